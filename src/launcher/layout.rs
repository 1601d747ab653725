//! Where things lie in a plugin pod. Paths are short on purpose: a unix socket's path may have
//! 107 bytes.

/// Everything of ours lies beneath this folder, in both containers.
pub const ROOT: &str = "/patchbay";
/// Volume `bin`, read-only for the plugin: the launcher.
pub const BIN: &str = "/patchbay/bin";
/// Volume `run`, shared: the control socket and one directory per start.
pub const RUN: &str = "/patchbay/run";
/// Volume `private`, sidecar only, in memory: hand-over record, cached configuration.
pub const PRIVATE: &str = "/patchbay/private";
/// The plugin's identity (Secret), sidecar only: `tls.crt`, `tls.key`, `ca.crt`.
pub const IDENTITY: &str = "/patchbay/identity";
/// The pod's annotations through the downward API, sidecar only: the file `config`.
pub const CONFIG: &str = "/patchbay/config";
/// Certificates for explicit TLS towards the plugin (Secret), sidecar only.
pub const PLUGIN_TLS: &str = "/patchbay/plugin-tls";

/// File name of the launcher in the sidecar's image and in the volume `bin`.
pub const LAUNCHER: &str = "patchbay-launcher";
/// File name of the sidecar in its image.
pub const SIDECAR: &str = "patchbay-sidecar";
/// Name of the control socket in the volume `run`.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Name of the configuration file in the folder [`CONFIG`].
pub const CONFIG_FILE: &str = "config";

/// The operator dials the sidecar here.
pub const SESSION_PORT: u16 = 7443;
/// Client programs reach the plugin here.
pub const PROXY_PORT: u16 = 7444;
/// The operator's canary listens here.
pub const CANARY_PORT: u16 = 7445;

/// Uid and gid of both containers when the Plugin names none.
pub const DEFAULT_UID: i64 = 65532;
