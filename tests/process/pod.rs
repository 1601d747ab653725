//! A pod without a kubelet: a folder, a launcher in its own pid namespace, a sidecar.

use crate::authority::Authority;
use crate::operator::Session;
use crate::programs;
use crate::queue::Queue;
use crate::setup::Setup;
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::session::{Counters, Instance, Phase};
use patchbay_sidecar::workers::POD_IPS;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything that should happen.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A running pod. Dropping it ends its processes and removes its folder.
pub struct Pod {
    folder: tempfile::TempDir,
    authority: Authority,
    config: PodConfig,
    unshare: Child,
    launcher: u32,
    sidecar: Child,
    session: Session,
    /// The jobs of this pod's plugin.
    pub queue: Queue,
    pod_ips: String,
    /// Every picture of the instance, oldest first.
    pub history: Vec<Instance>,
    counters: Counters,
}

impl Pod {
    /// Starts everything and releases the plugin.
    pub async fn start(setup: Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("pb").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            "bin",
            "run",
            "private",
            "identity",
            "config",
            "plugin-tls",
            "work",
        ] {
            fs::create_dir(at(name)).unwrap();
        }
        let authority = Authority::new();
        let own = authority.leaf("pod.test", Some("patchbay://installation/plugin/ns/uid"));
        fs::write(at("identity/tls.crt"), own.certificate).unwrap();
        fs::write(at("identity/tls.key"), own.key).unwrap();
        fs::write(at("identity/ca.crt"), &authority.pem).unwrap();
        for (name, content) in &setup.plugin_tls {
            fs::write(at("plugin-tls").join(name), content).unwrap();
        }
        fs::write(
            at("config/config"),
            serde_json::to_vec(&setup.config).unwrap(),
        )
        .unwrap();

        let sidecar = start_sidecar(&folder, &setup.pod_ips);
        until("the launcher is in place", || {
            at("bin/patchbay-launcher").exists().then_some(())
        })
        .await;
        let unshare = start_launcher(&folder, &setup);
        let launcher = until("the launcher runs", || {
            children(unshare.id()).first().copied()
        })
        .await;
        let queue = Queue::new();
        let session = Session::attach(folder.path(), &authority, true, &queue).await;
        Self {
            folder,
            authority,
            config: setup.config,
            unshare,
            launcher,
            sidecar,
            session,
            queue,
            pod_ips: setup.pod_ips,
            history: Vec::new(),
            counters: Counters::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Text of a file that a process writes: `sidecar.log`, `launcher.out`, `launcher.err`.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// Waits for a picture of the instance.
    pub async fn wait(&mut self, what: &str, wanted: impl Fn(&Instance) -> bool) -> Instance {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        if let Some(last) = self.history.last()
            && wanted(last)
        {
            return last.clone();
        }
        loop {
            match tokio::time::timeout_at(deadline, self.session.next()).await {
                Ok(Some((instance, counters))) => {
                    if let Some(counters) = counters {
                        self.counters = counters;
                    }
                    if let Some(instance) = instance {
                        self.history.push(instance.clone());
                        if wanted(&instance) {
                            return instance;
                        }
                    }
                }
                Ok(None) => panic!(
                    "the session ended while waiting for {what}:\n{}",
                    self.story()
                ),
                Err(_) => panic!("waited in vain for {what}:\n{}", self.story()),
            }
        }
    }

    pub async fn ready(&mut self) -> Instance {
        let is_over = |instance: &Instance| {
            let pause = instance.next_start_ms.saturating_sub(now_ms());
            instance.phase() == Phase::BackingOff && Duration::from_millis(pause) > PATIENCE
        };
        let wanted = |instance: &Instance| instance.phase() == Phase::Ready || is_over(instance);
        let instance = self.wait("Ready", wanted).await;
        assert_eq!(instance.phase(), Phase::Ready, "it failed");
        instance
    }

    /// Waits until the plugin has failed; the next start is far away.
    pub async fn failure(&mut self) -> Instance {
        let wanted = |instance: &Instance| instance.phase() == Phase::BackingOff;
        self.wait("a failure", wanted).await
    }

    /// Waits for totals.
    pub async fn counters(&mut self, what: &str, wanted: impl Fn(&Counters) -> bool) -> Counters {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !wanted(&self.counters) {
            match tokio::time::timeout_at(deadline, self.session.next()).await {
                Ok(Some((instance, counters))) => {
                    self.history.extend(instance);
                    if let Some(counters) = counters {
                        self.counters = counters;
                    }
                }
                _ => panic!(
                    "waited in vain for {what}: {:?}\n{}",
                    self.counters,
                    self.story()
                ),
            }
        }
        self.counters
    }

    /// Sends a changed configuration.
    pub async fn configure(&mut self, change: impl FnOnce(&mut PodConfig)) -> u64 {
        self.config.revision += 1;
        change(&mut self.config);
        self.session.configure(&self.config).await;
        self.config.revision
    }

    /// Where client programs reach the plugin.
    pub fn proxy(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, listening_port(self.launcher)))
    }

    /// The processes that the launcher started and that live.
    pub fn plugin_processes(&self) -> Vec<u32> {
        children(self.launcher)
    }

    pub fn launcher(&self) -> u32 {
        self.launcher
    }

    pub fn sidecar(&self) -> u32 {
        self.sidecar.id()
    }

    /// SIGTERM at the launcher, as the kubelet sends it.
    pub fn terminate_launcher(&self) {
        send(self.launcher, Signal::TERM);
    }

    pub async fn launcher_exit_code(&mut self) -> Option<i32> {
        let unshare = &mut self.unshare;
        until("the launcher ends", || unshare.try_wait().unwrap())
            .await
            .code()
    }

    /// Ends the sidecar by this signal and starts another one.
    pub async fn replace_sidecar(&mut self, signal: Signal) {
        self.end_sidecar(signal).await;
        self.start_sidecar().await;
    }

    /// Ends the sidecar by this signal.
    pub async fn end_sidecar(&mut self, signal: Signal) {
        send(self.sidecar.id(), signal);
        let sidecar = &mut self.sidecar;
        until("the sidecar ends", || sidecar.try_wait().unwrap()).await;
        fs::remove_file(self.path("private/session-address")).unwrap();
    }

    /// Starts another sidecar.
    pub async fn start_sidecar(&mut self) {
        self.sidecar = start_sidecar(&self.folder, &self.pod_ips);
        self.session =
            Session::attach(self.folder.path(), &self.authority, false, &self.queue).await;
        self.history.clear();
        self.counters = Counters::default();
    }

    /// SIGKILL at the one process of the plugin.
    pub fn kill_plugin(&self) {
        let processes = self.plugin_processes();
        assert_eq!(processes.len(), 1, "the plugin is one process");
        send(processes[0], Signal::KILL);
    }

    /// What there is to tell when a test fails.
    pub fn story(&self) -> String {
        let log = self.text("sidecar.log");
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "last picture: {:#?}\nsidecar:\n{}\nplugin stderr:\n{}",
            self.history.last(),
            tail.join("\n"),
            self.text("launcher.err")
                .chars()
                .take(4000)
                .collect::<String>()
        )
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        // PID 1 takes its namespace along, unshare its child, and both are waited for.
        for child in [&mut self.sidecar, &mut self.unshare] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start_sidecar(folder: &tempfile::TempDir, pod_ips: &str) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("sidecar.log"))
        .unwrap();
    Command::new(programs::ours("patchbay-sidecar"))
        .arg("run")
        .arg("--root")
        .arg(folder.path())
        .args(["--session-address", "127.0.0.1:0"])
        .env_clear()
        .env("SIDECAR_SECRET", "never for the plugin")
        .env(POD_IPS, pod_ips)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn start_launcher(folder: &tempfile::TempDir, setup: &Setup) -> Child {
    let file = |name: &str| File::create(folder.path().join(name)).unwrap();
    Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(folder.path().join("bin/patchbay-launcher"))
        .arg("--run")
        .arg(folder.path().join("run"))
        .args(["--proxy-address", "127.0.0.1:0", "--"])
        .args(&setup.command)
        // Some examples keep their data in the working directory.
        .current_dir(folder.path().join("work"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PLUGIN_MULTIPLEX_GRPC", "inherited by mistake")
        .envs(setup.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(file("launcher.out"))
        .stderr(file("launcher.err"))
        .spawn()
        .unwrap()
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Waits until `condition` gives a value.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The children of a process, zombies excepted.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = pid.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        // "pid (name) state parent ..."
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = fields.split(' ');
        if fields.next() != Some("Z") && fields.next() == Some(&parent) {
            found.push(pid);
        }
    }
    found
}

/// A number of `/proc/<pid>/smaps_rollup` in KiB.
pub fn memory_kib(pid: u32, what: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .unwrap();
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Processor time that a process has used.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // A tick is 10 ms on every kernel that people use.
    Duration::from_millis(ticks * 10)
}

/// The one TCP port on which a process listens.
fn listening_port(pid: u32) -> u16 {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[") {
            sockets.push(inode.trim_end_matches(']').to_owned());
        }
    }
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let port = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields.get(3) == Some(&"0A")
            && sockets
                .iter()
                .any(|inode| fields.get(9) == Some(&inode.as_str()));
        let (_, port) = fields.get(1).filter(|_| is_ours)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    });
    port.expect("the launcher listens")
}
