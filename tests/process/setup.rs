//! What a pod runs and how it is configured.

use crate::authority::Authority;
use crate::programs;
use patchbay_protocol::pod_config::{
    CONTRACT, FamilyConfig, GoPluginConfig, Health, Jobs, OnFailure, PcpConfig, PluginName,
    PodConfig, Restart, Shutdown, Tls,
};
use std::net::{Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// Stand for the addresses of a pod: whoever connects there comes to the sidecar.
pub const POD_IPV4: &str = "127.77.0.1";
pub const POD_IPV6: &str = "::1";

/// Seconds of back-off in tests that look at one failure: nothing is started again meanwhile.
pub const LONG_PAUSE: u32 = 300;

/// A pod before it exists.
pub struct Setup {
    pub command: Vec<String>,
    /// Environment of the plugin container.
    pub env: Vec<(String, String)>,
    pub config: PodConfig,
    /// Files of the folder `plugin-tls`.
    pub plugin_tls: Vec<(&'static str, String)>,
    /// The pod's addresses, as the sidecar is told.
    pub pod_ips: String,
}

impl Setup {
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            env: Vec::new(),
            config: config(),
            plugin_tls: Vec::new(),
            pod_ips: String::new(),
        }
    }

    /// A shell script; `$DIR` is the directory of the start.
    pub fn shell(script: &str) -> Self {
        let script = format!("DIR=$PLUGIN_UNIX_SOCKET_DIR\n{script}");
        Self::new(vec!["/bin/sh".into(), "-c".into(), script])
    }

    /// A shell script that prints one line and stays; `$DIR` may stand in it.
    pub fn line(line: &str) -> Self {
        Self::shell(&format!("printf '%s\\n' \"{line}\"\nexec sleep 1000"))
    }

    /// A program that `tests/plugins/build.sh` makes.
    pub fn fixture(name: &str) -> Self {
        Self::new(vec![text(programs::fixture(name))])
    }

    /// The fixture with all its versions and modes.
    pub fn echo() -> Self {
        Self::fixture("echo-plugin").versions(&[3, 5])
    }

    /// The fixture, announced by `line`; see `plugins/relay.py`.
    pub fn relay(line: &str) -> Self {
        let relay = programs::source("tests/process/plugins/relay.py");
        let plugin = programs::fixture("echo-plugin");
        Self::new(vec!["python3".into(), text(relay), text(plugin)])
            .env("ECHO_VERSIONS", "1")
            .env("RELAY_LINE", line)
    }

    /// A Python file of the repository.
    pub fn python(path: &str) -> Self {
        Self::new(vec!["python3".into(), text(programs::source(path))])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", &text(programs::python_path().to_owned()))
    }

    /// A PCP controller plugin over our Python runtime. The file's name is that of its class.
    pub fn controller(file: PathBuf) -> Self {
        let runner = ["python3", "-m", "src.run"].map(str::to_owned).to_vec();
        let mut setup = Self::new(runner)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONPATH", &text(programs::source("runtime/python")))
            .env("PATCHBAY_PLUGIN_PATH", &text(file));
        setup.pod_ips = format!("{POD_IPV4},{POD_IPV6}");
        setup.with(|config| {
            config.protocol = FamilyConfig::PcpController(PcpConfig {
                port: free_port(),
                stage: "TESTING".into(),
                class_name: None,
                start_timeout_seconds: 30,
            });
            config.jobs.recover_seconds = 3;
        })
    }

    /// Such a plugin of the tests' own.
    pub fn steps(name: &str) -> Self {
        let folder = programs::source("tests/process/plugins/pcp");
        Self::controller(folder.join(name).with_extension("py"))
    }

    /// Where a PCP controller plugin listens.
    pub fn port(&self) -> u16 {
        match &self.config.protocol {
            FamilyConfig::PcpController(family) => family.port,
            other => panic!("a plugin of another family: {other:?}"),
        }
    }

    /// Ends are followed by a start at once.
    pub fn quick(self) -> Self {
        self.with(|config| {
            config.restart = Restart {
                initial_seconds: 0,
                max_seconds: 1,
            };
        })
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    pub fn versions(self, versions: &[u32]) -> Self {
        self.family(|family| family.versions = versions.to_vec())
    }

    pub fn tls(self, tls: Tls) -> Self {
        self.family(|family| family.tls = tls)
    }

    pub fn timeout(self, seconds: u32) -> Self {
        self.family(|family| family.handshake_timeout_seconds = seconds)
    }

    pub fn family(self, change: impl FnOnce(&mut GoPluginConfig)) -> Self {
        self.with(|config| {
            if let FamilyConfig::GoPlugin(family) = &mut config.protocol {
                change(family);
            }
        })
    }

    pub fn with(mut self, change: impl FnOnce(&mut PodConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Explicit TLS: what the sidecar trusts and the name that it expects.
    pub fn explicit(mut self, trusted: &Authority, server_name: &str) -> Self {
        self.plugin_tls.push(("ca.crt", trusted.pem.clone()));
        self.tls(Tls::Explicit {
            server_name: server_name.into(),
        })
    }
}

/// A port below those that the kernel gives to connections, that nobody has at any address.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id() as u16).wrapping_add(number) % 20_000;
        let address = (Ipv6Addr::UNSPECIFIED, 10_000 + offset);
        if TcpListener::bind(address).is_ok() {
            return address.1;
        }
    }
}

/// The cookie is that of go-plugin's own example.
fn config() -> PodConfig {
    PodConfig {
        contract: CONTRACT,
        revision: 1,
        installation: "installation".into(),
        plugin: PluginName {
            namespace: "ns".into(),
            name: "plugin".into(),
            uid: "uid".into(),
        },
        protocol: FamilyConfig::GoPlugin(GoPluginConfig {
            cookie_key: "BASIC_PLUGIN".into(),
            cookie_value: "hello".into(),
            versions: vec![1],
            tls: Tls::None,
            min_port: 10_000,
            max_port: 25_000,
            handshake_timeout_seconds: 30,
            skip_lines: 0,
        }),
        checksums: Vec::new(),
        health: Health {
            period_seconds: 1,
            timeout_seconds: 1,
            failure_threshold: 1,
            on_failure: OnFailure::Report,
        },
        restart: Restart {
            initial_seconds: LONG_PAUSE,
            max_seconds: LONG_PAUSE,
        },
        shutdown: Shutdown {
            drain_seconds: 2,
            rpc_seconds: 2,
            exit_seconds: 2,
            term_seconds: 2,
        },
        jobs: Jobs::default(),
    }
}

fn text(path: PathBuf) -> String {
    path.into_os_string()
        .into_string()
        .expect("a path in UTF-8")
}
