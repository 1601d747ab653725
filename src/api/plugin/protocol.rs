//! How to speak to a plugin: one key per family.

use super::rules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The family and its settings.
///
/// A struct of options and not an enum: the API server then answers a missing or doubled key with
/// our sentence. [`Protocol::family`] gives the enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::protocol()))]
pub struct Protocol {
    /// Settings of a plugin that uses HashiCorp go-plugin over gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_plugin: Option<GoPlugin>,
    /// Settings of a controller plugin of the PCP job queue: a Python program that uses
    /// `src.controller_plugin`.
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
    /// Magic cookie of the plugin, an environment variable. Its documentation names it. The cookie is not
    /// a secret.
    pub cookie: Cookie,
    /// List of application protocol versions that the clients support. The plugin chooses one of them. At
    /// least 1 entry, at most 16 entries.
    #[schemars(
        length(min = 1, max = 16),
        inner(range(min = 0, max = 2_147_483_647)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub versions: Vec<i32>,
    /// TLS between sidecar and plugin.
    #[serde(default)]
    pub tls: TlsOptions,
    /// Range of ports for a plugin that listens on TCP.
    #[serde(default)]
    pub ports: PortRange,
    /// Limits for the handshake.
    #[serde(default)]
    pub handshake: Handshake,
}

/// The magic cookie: an environment variable that tells the plugin that a host started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::cookie()))]
pub struct Cookie {
    /// Name of the environment variable.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Value of the environment variable.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Transport security between sidecar and plugin.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::tls()))]
pub struct TlsOptions {
    /// TLS mode. Defaults to None.
    #[serde(default)]
    #[schemars(transform = crate::schema::explain_values)]
    pub mode: TlsMode,
    /// Name of a Secret with the key ca.crt. If the plugin requires a client certificate, the Secret also
    /// has the keys tls.crt and tls.key. Required with mode Explicit, not allowed with other modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// DNS name that the certificate of the plugin must contain. Required with mode Explicit, not allowed
    /// with other modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// Where the certificates come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// No TLS.
    #[default]
    None,
    /// New certificates are created at each start and exchanged in the handshake.
    AutoMTLS,
    /// The certificates of the Secret `secretName` are used.
    Explicit,
}

/// Ports that a TCP plugin may choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = rules::ports()))]
pub struct PortRange {
    /// Lowest port. Defaults to 10000. Must be between 1 and 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub min: i32,
    /// Highest port. Defaults to 25000. Must be between 1 and 65535.
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

/// Limits for the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Handshake {
    /// Maximum number of seconds from the start of the process to its handshake line. Defaults to 60.
    /// Must be between 1 and 3600.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,
    /// Maximum number of other lines before the handshake line. They are logged and skipped. Defaults to
    /// 0. Must be between 0 and 1000.
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
    /// Port on which the plugin listens for external workers. Passed to the plugin in the environment
    /// variable PORT. Must be between 1024 and 65535.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Stage. Passed to the plugin in the environment variable STAGE. Defaults to PROD.
    #[serde(default)]
    #[schemars(transform = crate::schema::explain_values)]
    pub stage: Stage,
    /// Name of the plugin class, which is also the name of its module. Passed to the plugin in the
    /// environment variable PLUGIN. If not specified, the plugin class that is found is used; there must
    /// be only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub class_name: Option<String>,
    /// Maximum number of seconds from the start of the process until it reports that it has started.
    /// Defaults to 60. Must be between 1 and 3600.
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
