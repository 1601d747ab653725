//! How to speak to a plugin: one key per family.

use super::rules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The family and its settings. Exactly one key.
///
/// A struct of options and not an enum: the API server then answers a missing or doubled key with
/// our sentence. [`Protocol::family`] gives the enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::protocol()))]
pub struct Protocol {
    /// HashiCorp go-plugin over gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_plugin: Option<GoPlugin>,
    /// A controller plugin of the PCP job queue: Python over `src.controller_plugin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcp_controller: Option<PcpController>,
}

/// The one family that a Plugin names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family<'a> {
    /// HashiCorp go-plugin over gRPC.
    GoPlugin(&'a GoPlugin),
    /// A controller plugin of the PCP job queue.
    PcpController(&'a PcpController),
}

impl Family<'_> {
    /// The key in `spec.protocol`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Family::GoPlugin(_) => "goPlugin",
            Family::PcpController(_) => "pcpController",
        }
    }
}

impl Protocol {
    /// The family, or `None` when no key is there (an API server never lets that in).
    pub fn family(&self) -> Option<Family<'_>> {
        let go_plugin = self.go_plugin.as_ref().map(Family::GoPlugin);
        go_plugin.or_else(|| self.pcp_controller.as_ref().map(Family::PcpController))
    }
}

/// Settings of the family goPlugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoPlugin {
    /// The magic cookie, as the plugin's documentation names it. Not a secret.
    pub cookie: Cookie,
    /// Application versions that client programs understand, 1 to 16 of them.
    #[schemars(
        length(min = 1, max = 16),
        inner(range(min = 0, max = 2_147_483_647)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub versions: Vec<i32>,
    /// Transport security between sidecar and plugin.
    #[serde(default)]
    pub tls: TlsOptions,
    /// Range of ports for a plugin that listens on TCP.
    #[serde(default)]
    pub ports: PortRange,
    /// How the handshake is waited for.
    #[serde(default)]
    pub handshake: Handshake,
}

/// The magic cookie: an environment variable that tells the plugin that a host started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::cookie()))]
pub struct Cookie {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Its value.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Transport security between sidecar and plugin.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::tls()))]
pub struct TlsOptions {
    /// None, AutoMTLS or Explicit.
    #[serde(default)]
    pub mode: TlsMode,
    /// Explicit only: Secret with ca.crt, and tls.crt with tls.key when the plugin asks for a
    /// client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Explicit only: the name that the plugin's certificate must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// Where the certificates come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS; the socket lies in a volume of the pod.
    #[default]
    None,
    /// Certificates are made for each start and exchanged in the handshake.
    AutoMTLS,
    /// Certificates come from a Secret.
    Explicit,
}

/// Ports that a TCP plugin may choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = rules::ports()))]
pub struct PortRange {
    /// Lowest port.
    #[schemars(range(min = 1, max = 65535))]
    pub min: i32,
    /// Highest port.
    #[schemars(range(min = 1, max = 65535))]
    pub max: i32,
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            min: 10_000,
            max: 25_000,
        }
    }
}

/// How the handshake line is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Handshake {
    /// Seconds from the start of the process to the line.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,
    /// Maximum number of other lines before the handshake line; they are logged and skipped. 0 makes the first
    /// one fatal.
    #[schemars(range(min = 0, max = 1000))]
    pub skip_lines: i32,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            timeout_seconds: 60,
            skip_lines: 0,
        }
    }
}

/// Settings of the family pcpController.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::controller()))]
pub struct PcpController {
    /// The plugin's one port: PORT in its environment, and where external workers connect.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// STAGE in its environment.
    #[serde(default)]
    pub stage: Stage,
    /// Class and module to load: PLUGIN in its environment. The runner looks for the only class
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub class_name: Option<String>,
    /// Seconds from the start of the process to its first word.
    #[serde(default = "PcpController::default_start_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub start_timeout_seconds: i32,
}

impl PcpController {
    fn default_start_timeout() -> i32 {
        60
    }
}

/// The stages that a PCP controller plugin knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    /// Development.
    Dev,
    /// Tests.
    Testing,
    /// Quality assurance.
    Qa,
    /// Production.
    #[default]
    Prod,
}

impl Stage {
    /// The word in the environment.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Dev => "DEV",
            Stage::Testing => "TESTING",
            Stage::Qa => "QA",
            Stage::Prod => "PROD",
        }
    }
}
