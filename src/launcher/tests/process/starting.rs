//! How a plugin comes to life, and how it does not.

use crate::harness::{Harness, USER, can_run, executable};
use crate::sidecar::{Sidecar, lines};
use patchbay_launcher::control::{Event, Exit, LineEnd, Refusal, State, Stream};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

#[test]
fn lines_exit_code_directory_and_environment_are_as_ordered() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new(
        r#"echo one; echo two >&2
        stat -c %a "$PLUGIN_UNIX_SOCKET_DIR"
        env | grep -c ^PLUGIN_; echo "$KEPT"
        ln -s / "$PLUGIN_UNIX_SOCKET_DIR/root"; mkdir "$PLUGIN_UNIX_SOCKET_DIR/sub"
        touch "$PLUGIN_UNIX_SOCKET_DIR/sub/file"
        printf unfinished; exit 3"#,
    );
    let mut sidecar = Sidecar::connect(&harness);
    assert_eq!(sidecar.hello.state, State::Idle);
    let order = harness.order();
    sidecar.start(&order);
    assert!(sidecar.started(&order) > 1);
    let (events, exit) = sidecar.exited();
    assert_eq!(exit, Exit::Code(3));
    assert_eq!(
        lines(&events, Stream::Stdout),
        ["one", "700", "1", "from the container", "unfinished"]
    );
    assert_eq!(lines(&events, Stream::Stderr), ["two"]);
    let last = events.iter().rev().find_map(|event| match event {
        Event::Line(line) if line.stream == Stream::Stdout => Some(line.end),
        _ => None,
    });
    assert_eq!(last, Some(LineEnd::Eof));
    let directory = String::from_utf8(order.directory).unwrap();
    assert!(
        !Path::new(&directory).exists(),
        "the directory is removed before the end is told"
    );
    assert!(Path::new("/etc").exists(), "links in it are not followed");
    harness.terminate();
    assert_eq!(harness.exit_code(), 3);
    assert_eq!(
        harness.copied(),
        "one\n700\n1\nfrom the container\nunfinished"
    );
}

#[test]
fn a_second_start_is_refused_while_one_runs_and_granted_afterwards() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("echo up; exec sleep 1000");
    let mut sidecar = Sidecar::connect(&harness);
    let (first, second) = (harness.order(), harness.order());
    sidecar.start(&first);
    sidecar.line("up");
    sidecar.start(&second);
    let refused = Event::Refused {
        start_id: second.start_id,
        refusal: Refusal::Busy,
    };
    assert_eq!(sidecar.event(), refused);
    sidecar.signal(second.start_id, 9);
    sidecar.signal(first.start_id, 15);
    assert_eq!(sidecar.exited().1, Exit::Signal(15));
    sidecar.start(&second);
    sidecar.started(&second);
}

fn refusal(prepare: impl FnOnce(&Path)) -> Refusal {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("plugin");
    prepare(&plugin);
    let harness = Harness::with_command(folder, &plugin);
    let mut sidecar = Sidecar::connect(&harness);
    let order = harness.order();
    sidecar.start(&order);
    let Event::Refused { start_id, refusal } = sidecar.event() else {
        panic!("it was started")
    };
    assert_eq!(start_id, order.start_id);
    refusal
}

#[test]
fn four_ways_not_to_execute_are_four_refusals() {
    if !can_run() {
        return;
    }
    let exec = |refusal| match refusal {
        Refusal::Exec {
            errno,
            missing_interpreter,
            ..
        } => (errno, missing_interpreter),
        other => panic!("{other:?}"),
    };
    assert_eq!(exec(refusal(|_| ())), (2, None), "no such file");
    assert_eq!(
        exec(refusal(|plugin| fs::write(plugin, "x").unwrap())),
        (13, None),
        "no x bit"
    );
    let foreign = refusal(|plugin| {
        executable(plugin, "");
        let mut bytes = fs::read("/bin/true").unwrap();
        bytes[18..20].copy_from_slice(&[0xf3, 0]); // e_machine: RISC-V
        fs::write(plugin, bytes).unwrap();
    });
    assert_eq!(exec(foreign), (8, None), "wrong architecture");
    let script = refusal(|plugin| executable(plugin, "#!/no/such/thing -x\n"));
    assert_eq!(
        exec(script),
        (2, Some(b"/no/such/thing".to_vec())),
        "absent interpreter"
    );
}

#[test]
fn a_digest_decides_whether_the_plugin_starts() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("echo ran; id -u; cat /proc/1/maps 2>&1 | head -c 1000");
    let mut sidecar = Sidecar::connect(&harness);
    let right: [u8; 32] = Sha256::digest(fs::read(harness.path("plugin")).unwrap()).into();
    let mut wrong = right;
    wrong[0] ^= 0x80;
    let path = harness.path("plugin").display().to_string().into_bytes();
    let mut order = harness.order();
    order.checksums = vec![(path.clone(), wrong)];
    sidecar.start(&order);
    let Event::Refused { refusal, .. } = sidecar.event() else {
        panic!("it was started")
    };
    assert_eq!(
        refusal,
        Refusal::ChecksumMismatch {
            path: path.clone(),
            got: right
        }
    );
    order.checksums = vec![(path, right)];
    sidecar.start(&order);
    assert_eq!(lines(&sidecar.exited().0, Stream::Stdout)[0], "ran");
}

#[test]
fn an_ordinary_user_can_execute_by_descriptor_and_cannot_look_into_the_launcher() {
    if !can_run() {
        return;
    }
    let harness = Harness::with_user(
        "id -u; cat /proc/1/maps >/dev/null 2>&1 || echo hidden; ls /proc/1/fd >/dev/null 2>&1 || echo closed; ls -l /proc/self/fd | grep -c -e socket: -e control.sock -e anon_inode:",
        USER,
    );
    let mut sidecar = Sidecar::connect(&harness);
    let digest: [u8; 32] = Sha256::digest(fs::read(harness.path("plugin")).unwrap()).into();
    let mut order = harness.order();
    order.checksums = vec![(
        harness.path("plugin").display().to_string().into_bytes(),
        digest,
    )];
    sidecar.start(&order);
    let (events, exit) = sidecar.exited();
    // The last number: no socket of the launcher leaks into the plugin.
    let expected = [
        USER.to_string(),
        "hidden".into(),
        "closed".into(),
        "0".into(),
    ];
    assert_eq!(lines(&events, Stream::Stdout), expected, "{events:?}");
    assert_eq!(exit, Exit::Code(1), "of grep, which found nothing");
}
