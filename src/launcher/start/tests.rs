use super::*;
use patchbay_launcher::control::StartId;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

fn order(run: &Path) -> Start {
    Start {
        start_id: StartId(1),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        defaults: Vec::new(),
        keep_host_variables: false,
        directory: run
            .join("0000000000000001")
            .into_os_string()
            .as_bytes()
            .to_vec(),
        checksums: Vec::new(),
        head_lines: 1,
        term_millis: 0,
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn output(process: Process) -> String {
    let (pid, stdout, _) = process;
    ioctl_fionbio(&stdout, false).unwrap();
    let mut text = String::new();
    File::from(stdout).read_to_string(&mut text).unwrap();
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    text
}

#[test]
fn an_order_wins_over_the_container_and_the_container_over_a_default() {
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let own = [("NAME", "own"), ("PORT", "1")].map(|(key, value)| (key.into(), value.into()));
    let env = layers(
        &[pair("NAME", "default"), pair("OTHER", "default")],
        own.into_iter(),
        &[pair("PORT", "2")],
    );
    let last = |name: &str| {
        env.iter()
            .rev()
            .find(|(key, _)| key == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(last("NAME"), "own");
    assert_eq!(last("OTHER"), "default");
    assert_eq!(last("PORT"), "2");
}

#[test]
fn a_command_without_slash_is_searched_along_the_plugins_path() {
    let run = tempfile::tempdir().unwrap();
    script(&run.path().join("tool"), "#!/bin/sh\n");
    let mut order = order(run.path());
    let path = format!("/nowhere:{}", run.path().display());
    order.env = vec![(b"PATH".to_vec(), path.into_bytes())];
    let found = find(OsStr::new("tool"), &environment(&order)).unwrap();
    assert_eq!(found, run.path().join("tool"));
    let absent = find(OsStr::new("absent"), &environment(&order)).unwrap_err();
    assert!(matches!(
        absent,
        Refusal::Exec {
            errno: 2,
            missing_interpreter: None,
            ..
        }
    ));
}

#[test]
fn a_file_swapped_after_its_check_is_not_executed() {
    let run = tempfile::tempdir().unwrap();
    let program = run.path().join("plugin");
    let old = "#!/bin/sh\necho old\n";
    script(&program, old);
    let mut order = order(run.path());
    order.checksums = vec![(
        program.as_os_str().as_bytes().to_vec(),
        sha256(old.as_bytes()),
    )];
    let verified = verify(&order, &program).unwrap();
    assert!(verified.is_some());
    script(&run.path().join("new"), "#!/bin/sh\necho new\n");
    fs::rename(run.path().join("new"), &program).unwrap();
    let process = execute(
        &program,
        verified,
        program.as_os_str(),
        &[],
        environment(&order),
    )
    .unwrap();
    assert_eq!(output(process), "old\n");
}

#[test]
fn a_binary_is_executed_by_its_verified_descriptor_too() {
    let run = tempfile::tempdir().unwrap();
    let program = run.path().join("link");
    symlink("/bin/echo", &program).unwrap();
    let mut order = order(run.path());
    // Named by another path than the one that is executed.
    let digest = sha256(&fs::read("/bin/echo").unwrap());
    order.checksums = vec![(b"/bin/echo".to_vec(), digest)];
    let verified = verify(&order, &program).unwrap();
    assert!(verified.is_some());
    let arguments = [OsString::from("a"), OsString::from("b c")];
    let process = execute(
        &program,
        verified,
        OsStr::new("echo"),
        &arguments,
        environment(&order),
    )
    .unwrap();
    assert_eq!(output(process), "a b c\n");
}

#[test]
fn a_flipped_bit_an_absent_file_and_a_folder_are_three_refusals() {
    let run = tempfile::tempdir().unwrap();
    let program = run.path().join("plugin");
    script(&program, "#!/bin/sh\n");
    let with = |path: &Path, digest| {
        let mut order = order(run.path());
        order.checksums = vec![(path.as_os_str().as_bytes().to_vec(), digest)];
        verify(&order, &program).unwrap_err()
    };
    let right = sha256(b"#!/bin/sh\n");
    let mut wrong = right;
    wrong[31] ^= 1;
    assert!(matches!(with(&program, wrong), Refusal::ChecksumMismatch { got, .. } if got == right));
    let absent = with(&run.path().join("absent"), right);
    assert!(matches!(absent, Refusal::ChecksumError { errno: 2, .. }));
    let folder = with(run.path(), right);
    assert!(matches!(folder, Refusal::ChecksumError { errno: 22, .. }));
}

#[test]
fn a_program_that_no_digest_names_is_executed_by_path() {
    let run = tempfile::tempdir().unwrap();
    let (program, data) = (run.path().join("plugin"), run.path().join("data"));
    script(&program, "#!/bin/sh\necho $0\n");
    fs::write(&data, "x").unwrap();
    let mut order = order(run.path());
    order.checksums = vec![(data.as_os_str().as_bytes().to_vec(), sha256(b"x"))];
    let verified = verify(&order, &program).unwrap();
    assert!(verified.is_none());
    let process = execute(
        &program,
        verified,
        program.as_os_str(),
        &[],
        environment(&order),
    )
    .unwrap();
    assert_eq!(output(process), format!("{}\n", program.display()));
}

#[test]
fn a_directory_outside_the_shared_folder_is_refused() {
    let run = tempfile::tempdir().unwrap();
    for path in ["/tmp", "/", "relative", "", "RUN", "RUN/a/b", "RUN/.."] {
        let path = path.replace("RUN", &run.path().display().to_string());
        let mut order = order(run.path());
        order.directory = path.clone().into_bytes();
        let refusal = make_directory(&order, run.path()).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Directory { errno: 22, .. }),
            "{path}"
        );
    }
    let made = make_directory(&order(run.path()), run.path()).unwrap();
    assert_eq!(
        fs::metadata(made).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    let again = make_directory(&order(run.path()), run.path()).unwrap_err();
    assert!(matches!(again, Refusal::Directory { errno: 17, .. }));
}

#[test]
fn a_refused_start_leaves_no_directory_and_tells_what_is_missing() {
    let run = tempfile::tempdir().unwrap();
    let program = run.path().join("plugin");
    script(&program, "#!/no/such/interpreter\n");
    let refusal = start(&order(run.path()), program.as_os_str(), &[], run.path())
        .err()
        .unwrap();
    assert_eq!(
        refusal,
        Refusal::Exec {
            path: program.as_os_str().as_bytes().to_vec(),
            errno: 2,
            missing_interpreter: Some(b"/no/such/interpreter".to_vec()),
        }
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    let refusal = start(&order(run.path()), program.as_os_str(), &[], run.path())
        .err()
        .unwrap();
    assert!(matches!(
        refusal,
        Refusal::Exec {
            errno: 13,
            missing_interpreter: None,
            ..
        }
    ));
    script(&program, "no interpreter line\n");
    let refusal = start(&order(run.path()), program.as_os_str(), &[], run.path())
        .err()
        .unwrap();
    assert!(
        matches!(refusal, Refusal::Exec { errno: 8, .. }),
        "a shell is not tried"
    );
    assert!(!run.path().join("0000000000000001").exists());
}

#[test]
fn only_directories_named_like_a_start_are_stale() {
    let run = tempfile::tempdir().unwrap();
    for name in ["0123456789abcdef", "lost+found", "0123456789abcdeg"] {
        fs::create_dir(run.path().join(name)).unwrap();
        fs::write(run.path().join(name).join("file"), "").unwrap();
    }
    remove_stale_directories(run.path());
    assert!(!run.path().join("0123456789abcdef").exists());
    assert!(run.path().join("lost+found").exists());
    assert!(run.path().join("0123456789abcdeg").exists());
}
