//! The document in the annotation `patchbay.dev/config`: everything that a sidecar has to know
//! about its plugin. Written by the operator, read through the downward API, and sent again over
//! the session when it changes; the highest revision wins.
//!
//! It never holds a secret. Unknown fields are accepted, so that an older sidecar reads the
//! document of a newer operator.

use serde::{Deserialize, Serialize};

/// Version of the contract between operator and pod: volumes, paths, ports, this document.
pub const CONTRACT: u32 = 1;

/// The whole document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodConfig {
    /// See [`CONTRACT`].
    pub contract: u32,
    /// Grows with every change; the Plugin's generation.
    pub revision: u64,
    /// Unique name of the installation; part of every identity.
    pub installation: String,
    /// Which Plugin this pod belongs to.
    pub plugin: PluginName,
    /// How to speak to it.
    pub protocol: FamilyConfig,
    /// Files to verify before the start.
    #[serde(default)]
    pub checksums: Vec<Checksum>,
    /// Periodic health check.
    pub health: Health,
    /// Back-off between starts.
    pub restart: Restart,
    /// Phases of a stop.
    pub shutdown: Shutdown,
    /// How Jobs are taken. Absent from documents of operators that knew none; the usual limits
    /// count then, and such an operator answers no request for work.
    #[serde(default)]
    pub jobs: Jobs,
}

/// Names one Plugin object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginName {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
}

/// The plugin family and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FamilyConfig {
    /// HashiCorp go-plugin over gRPC.
    GoPlugin(GoPluginConfig),
    /// A controller plugin of the PCP job queue.
    PcpController(PcpConfig),
}

/// Settings of the family `pcpController`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PcpConfig {
    /// PORT: where the plugin listens on localhost, and where the sidecar lets workers in.
    pub port: u16,
    /// STAGE: DEV, TESTING, QA or PROD.
    pub stage: String,
    /// PLUGIN: class and module to load; the runner finds the only one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Seconds from the start of the process to its first word on the jobs socket.
    pub start_timeout_seconds: u32,
}

/// How a sidecar takes Jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Jobs {
    /// Calls that this pod carries out at a time; family `goPlugin`. 0 takes none.
    pub per_pod: u32,
    /// Seconds in which a restarted plugin process may still answer a job of the one before.
    pub recover_seconds: u32,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            per_pod: 4,
            recover_seconds: 30,
        }
    }
}

/// Settings of the family `goPlugin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoPluginConfig {
    /// Name of the cookie variable.
    pub cookie_key: String,
    /// Value that the plugin expects there.
    pub cookie_value: String,
    /// Accepted application versions, ascending.
    pub versions: Vec<u32>,
    /// Transport security to the plugin.
    pub tls: Tls,
    /// PLUGIN_MIN_PORT.
    pub min_port: u16,
    /// PLUGIN_MAX_PORT.
    pub max_port: u16,
    /// Seconds from the start to the handshake line.
    pub handshake_timeout_seconds: u32,
    /// How many foreign lines before the handshake line are passed over.
    pub skip_lines: u16,
}

/// Transport security between sidecar and plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode")]
pub enum Tls {
    /// Plain HTTP/2 over the socket.
    None,
    /// Certificates exchanged in the handshake.
    AutoMTLS,
    /// Certificates from the Secret that is mounted at the sidecar's `plugin-tls` folder.
    Explicit {
        /// Name that the plugin's certificate must carry.
        #[serde(rename = "serverName")]
        server_name: String,
    },
}

/// One file and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checksum {
    /// Absolute path in the plugin container.
    pub path: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Settings of the health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Seconds between two checks.
    pub period_seconds: u32,
    /// Seconds until a check counts as failed.
    pub timeout_seconds: u32,
    /// Number of consecutive failures after which the plugin is unhealthy.
    pub failure_threshold: u32,
    /// What happens then.
    pub on_failure: OnFailure,
}

/// What an unhealthy plugin leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Stop the plugin process and start it again, with back-off.
    Restart,
    /// Turn not ready and say so; leave the process alone.
    Report,
}

/// Back-off between starts: doubles from `initial` to `max`, falls back after a quiet time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// Seconds before the first restart.
    pub initial_seconds: u32,
    /// Upper bound in seconds.
    pub max_seconds: u32,
}

/// Phases of a stop, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// Calls in flight may end.
    pub drain_seconds: u32,
    /// Limit of the controller's Shutdown call.
    pub rpc_seconds: u32,
    /// Time to exit after that call.
    pub exit_seconds: u32,
    /// Time between SIGTERM and SIGKILL of the process group.
    pub term_seconds: u32,
}

impl PodConfig {
    /// Whether the running plugin must be started again to take over `next`.
    pub fn needs_plugin_restart(&self, next: &PodConfig) -> bool {
        self.by_effect().process != next.by_effect().process
    }

    /// Every setting by what its change costs. A field that is added here must be put into one of the
    /// groups, or this does not compile; one that is in none would never reach a running pod.
    pub fn by_effect(&self) -> SettingsByEffect<'_> {
        let PodConfig {
            // What the document is about, and its version: no settings.
            contract: _,
            revision: _,
            installation: _,
            plugin: _,
            protocol,
            checksums,
            health,
            restart,
            shutdown,
            jobs,
        } = self;
        SettingsByEffect {
            live: (health, restart, shutdown, jobs),
            process: (protocol, checksums),
        }
    }
}

/// The settings of a [`PodConfig`] by what their change costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettingsByEffect<'a> {
    /// The sidecar takes these over at once.
    pub live: (&'a Health, &'a Restart, &'a Shutdown, &'a Jobs),
    /// These need the plugin process to start again.
    pub process: (&'a FamilyConfig, &'a [Checksum]),
}
