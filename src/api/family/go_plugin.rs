//! HashiCorp go-plugin over gRPC: its settings and their rules.

use crate::plugin::rules::RESERVED;
use crate::schema::{rule, telling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
#[schemars(extend("x-kubernetes-validations" = cookie()))]
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
#[schemars(extend("x-kubernetes-validations" = tls()))]
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
#[schemars(extend("x-kubernetes-validations" = ports()))]
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

/// Rules on the whole spec.
pub(crate) fn spec_rules() -> Vec<Value> {
    vec![telling(
        "!has(self.env) || !has(self.protocol.goPlugin) || self.env.all(e, e.name != self.protocol.goPlugin.cookie.key)",
        "'spec.env sets ' + self.protocol.goPlugin.cookie.key + ', which is the cookie; expected the cookie only in spec.protocol.goPlugin.cookie: remove it from spec.env'",
        "spec.env sets the cookie; expected it only in spec.protocol.goPlugin.cookie: remove it from spec.env",
    )]
}

fn cookie() -> Value {
    json!([telling(
        &format!("self.key.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !(self.key in {RESERVED})"),
        "'key is ' + self.key + '; expected the name of an environment variable that the sidecar does not set for the handshake: take it from the documentation of the plugin'",
        "key is not a valid name of an environment variable: take it from the documentation of the plugin",
    )])
}

fn tls() -> Value {
    json!([
        rule(
            "self.mode != 'Explicit' || (has(self.secretName) && has(self.serverName))",
            "tls.mode is Explicit without secretName or serverName; expected both: name the Secret with ca.crt and the name in the plugin's certificate",
        ),
        telling(
            "self.mode == 'Explicit' || (!has(self.secretName) && !has(self.serverName))",
            "'tls.mode is ' + self.mode + ' and secretName or serverName is set; expected them only with Explicit: remove them or set mode to Explicit'",
            "secretName and serverName are expected only with mode Explicit: remove them or set mode to Explicit",
        ),
        rule(
            "!has(self.secretName) || !self.secretName.startsWith('pb-id-')",
            "tls.secretName begins with pb-id-; expected a Secret of your own, because those hold identities of Patchbay: use another Secret",
        ),
    ])
}

fn ports() -> Value {
    json!([
        rule(
            "self.min <= self.max",
            "ports.min is greater than ports.max: correct one of them",
        ),
        rule(
            "self.max < 7443 || self.min > 7445",
            "ports includes a port from 7443 to 7445; expected a range without them, because the sidecar uses these: choose another range",
        ),
    ])
}
