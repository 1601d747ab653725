//! A launcher in its own pid namespace.

use patchbay_launcher::control::{Start, StartId};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Who runs the launcher in the tests that need an ordinary user.
pub(crate) const USER: u32 = 65532;

/// The launcher as images have it, a static program, where `make binaries` put it; otherwise the one
/// that cargo built for this test.
fn program() -> PathBuf {
    released().unwrap_or_else(|| env!("CARGO_BIN_EXE_patchbay-launcher").into())
}

/// The static launcher, if it was built.
pub(crate) fn released() -> Option<PathBuf> {
    let folder = std::env::var_os("PATCHBAY_BIN_DIR")?;
    let program = PathBuf::from(folder).join("patchbay-launcher");
    program.exists().then_some(program)
}

/// A running launcher and its folder; both are gone with the value.
pub(crate) struct Harness {
    folder: tempfile::TempDir,
    unshare: Child,
    /// The launcher as the test counts processes.
    pub(crate) pid: u32,
}

/// The tests need an own pid namespace, which only root can make.
pub(crate) fn can_run() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: a pid namespace needs root");
    }
    is_root
}

/// Waits until `condition` gives a value.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the launcher and its plugin write to stderr, in the rig's folder.
const LOG: &str = "log";

impl Harness {
    /// Starts a launcher whose plugin is this shell script.
    pub(crate) fn new(script: &str) -> Self {
        Self::with_user(script, 0)
    }

    pub(crate) fn with_user(script: &str, user: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugin");
        executable(&plugin, &format!("#!/bin/sh\n{script}\n"));
        Self::launch(folder, &plugin, user)
    }

    /// Starts a launcher for a command that need not exist.
    pub(crate) fn with_command(folder: tempfile::TempDir, command: &Path) -> Self {
        Self::launch(folder, command, 0)
    }

    fn launch(folder: tempfile::TempDir, command: &Path, user: u32) -> Self {
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let launcher = folder.path().join("launcher");
        fs::copy(program(), &launcher).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&run, Some(user), Some(user)).unwrap();
        let id = format!("--reuid={user}");
        let group = format!("--regid={user}");
        let mut call = Command::new("unshare");
        call.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        if user != 0 {
            call.args([
                "setpriv",
                &id,
                &group,
                "--clear-groups",
                "--no-new-privs",
                "--",
            ]);
        }
        let log = fs::File::create(folder.path().join(LOG)).unwrap();
        let mut unshare = call
            .arg(launcher)
            .arg("--run")
            .arg(&run)
            .args(["--proxy-address", "127.0.0.1:0", "--"])
            .arg(command)
            .env("PLUGIN_CLIENT_CERT", "of somebody else")
            .env("KEPT", "from the container")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("unshare of util-linux starts");
        let socket = run.join("control.sock");
        until("the control socket is there", || {
            assert_eq!(
                unshare.try_wait().unwrap(),
                None,
                "the launcher ended at once"
            );
            socket.exists().then_some(())
        });
        let pid = until("the launcher is the child of unshare", || {
            children(unshare.id()).first().copied()
        });
        Self {
            folder,
            unshare,
            pid,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    /// An order with a new id.
    pub(crate) fn order(&self) -> Start {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let start_id = StartId(NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = self
            .path("run")
            .join(start_id.to_string())
            .display()
            .to_string();
        Start {
            start_id,
            env: vec![(
                b"PLUGIN_UNIX_SOCKET_DIR".to_vec(),
                directory.clone().into_bytes(),
            )],
            defaults: Vec::new(),
            keep_host_variables: false,
            directory: directory.into_bytes(),
            checksums: Vec::new(),
            head_lines: 1,
            term_millis: 300,
        }
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    pub(crate) fn wait_for_file(&self, name: &str) {
        until(name, || self.path(name).exists().then_some(()));
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of the launcher and gives its exit code.
    pub(crate) fn exit_code(&mut self) -> i32 {
        until("the launcher ends", || self.unshare.try_wait().unwrap())
            .code()
            .unwrap()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.unshare.try_wait().unwrap().is_none()
    }

    /// The launcher's own stdout; until it is taken nobody reads it.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.unshare.stdout.take().unwrap()
    }

    /// Everything that the launcher copied, read until its end.
    pub(crate) fn copied(&mut self) -> String {
        let mut text = String::new();
        self.stdout().read_to_string(&mut text).unwrap();
        text
    }

    /// Anonymous memory of the launcher in KiB.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read(self.path(LOG)).unwrap_or_default();
            let last = &log[log.len().saturating_sub(4096)..];
            eprintln!("the launcher's log ends: {}", String::from_utf8_lossy(last));
        }
        // With PID 1 goes the whole namespace. Unshare's own wish to take it along is lost when
        // the user is changed.
        if let (Ok(None), Some(pid)) = (
            self.unshare.try_wait(),
            rustix::process::Pid::from_raw(self.pid.cast_signed()),
        ) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

pub(crate) fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let parent = format!(") {pid} ");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "pid (name) state parent ..."
        if let Some((name, rest)) = stat.rsplit_once(") ")
            && format!(") {} ", rest.split(' ').nth(1).unwrap_or_default()) == parent
            && !name.is_empty()
        {
            found.push(pid);
        }
    }
    found
}
