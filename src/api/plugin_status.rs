//! Status of a Plugin. Text of the plugin itself is escaped and limited in length and number.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum number of instances that are listed; the worst come first.
pub const MAX_INSTANCES: usize = 200;
/// Maximum number of services of a plugin that are listed.
pub const MAX_SERVICES: usize = 256;
/// Maximum number of commands of a plugin that are listed.
pub const MAX_COMMANDS: usize = 256;
/// Maximum number of inputs of either sort that a command has.
pub const MAX_INPUTS: usize = 64;
/// Room for all listed commands together, in bytes of their texts: status is one object.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;
/// Longest foreign string in bytes.
pub const MAX_FOREIGN: usize = 256;
/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// Most recently observed status of the Plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginStatus {
    /// The generation observed by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Label selector of the pods, in string form, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub selector: Option<String>,
    /// Total number of non-terminating pods of this Plugin.
    pub replicas: i32,
    /// Number of non-terminating pods whose plugin is ready.
    pub ready_replicas: i32,
    /// Number of non-terminating pods that match the current spec.
    pub updated_replicas: i32,
    /// Number of ready replicas and of desired replicas, such as "1/2". Shown by kubectl get.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub ready: Option<String>,
    /// Key of `spec.protocol` that is set. Shown by kubectl get.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub family: Option<String>,
    /// The latest available observations of an object's current state. The types Accepted, ResolvedRefs,
    /// Handshaken, SidecarCurrent and Ready are always present. Degraded is present while it is true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Handshake of the replica that has been running longest. See `instances` for the other replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeStatus>,
    /// Commands or services that the running plugin reports. The commands of a PCP controller plugin are
    /// present when Ready is True. The gRPC services of a go-plugin program are read by reflection and
    /// may be added a few seconds after Ready is True.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provides: Option<Provides>,
    /// State of each pod, ordered from worst to best. At most 200 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"])
    )]
    pub instances: Vec<InstanceStatus>,
    /// Number of pods that are not listed in `instances`.
    #[serde(skip_serializing_if = "is_zero")]
    pub instances_omitted: i32,
    /// The current or most recent update of running pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
}

/// Result of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HandshakeStatus {
    /// Core protocol version, which is the version of the handshake.
    pub core_version: i64,
    /// Application protocol version that was negotiated.
    pub app_version: i64,
    /// Application protocol versions that were offered to the plugin. At most 16 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub offered: Vec<i64>,
    /// Network of the plugin's address: unix or tcp.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub transport: String,
    /// TLS mode and TLS version of the connection to the plugin.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tls: String,
    /// Number of seconds from the start of the process to its handshake line.
    pub seconds: f64,
}

/// Commands or services of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provides {
    /// Full names of the gRPC services of the plugin, read by reflection. At most 256 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub services: Vec<String>,
    /// Commands that a PCP controller plugin advertises. Jobs are validated against them. At most 256
    /// entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub commands: Vec<AdvertisedCommand>,
    /// Number of commands or services that are not listed.
    pub omitted: i64,
}

/// A command that the plugin advertises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisedCommand {
    /// Name of the command.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Description of the command.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tooltip: String,
    /// Whether the command gives output.
    pub output: bool,
    /// Required inputs, in order. At most 64 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub inputs: Vec<AdvertisedInput>,
    /// Optional inputs. At most 64 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub optional_inputs: Vec<AdvertisedInput>,
}

/// An input of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdvertisedInput {
    /// Name of the input.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Type of the control in a user interface, such as textbox.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub type_: String,
    /// Description of the input.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tooltip: String,
    /// Value that is used if a Job does not set one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub value: String,
}

/// State of one instance.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum InstanceState {
    /// The pod has failed and is being replaced.
    Failed,
    /// The plugin process has ended; it is started again after the back-off.
    BackingOff,
    /// The handshake has succeeded; the probe of the plugin fails.
    Unhealthy,
    /// The operator has lost the connection to the sidecar.
    Unknown,
    /// The containers of the pod are not running yet.
    Pending,
    /// The pod runs; the operator has not allowed the start of the plugin process yet.
    Held,
    /// The plugin process was started; the handshake has not succeeded yet.
    Starting,
    /// The plugin process is being stopped.
    Stopping,
    /// The plugin is ready.
    Ready,
}

/// One pod of a Plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Name of the pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// UID of the pod.
    #[serde(rename = "podUID")]
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// Ordinal of the replica.
    pub ordinal: i32,
    /// Identifier of the current start of the plugin process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub start_id: Option<String>,
    /// Time when the plugin process was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Number of restarts of the plugin process in this pod.
    #[serde(default)]
    pub restarts: i64,
    /// How the previous plugin process ended, such as "exit 1" or "signal 9 (by Kill)".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_exit: Option<String>,
    /// Image of the sidecar in this pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub sidecar_image: String,
    /// Image of the plugin in this pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub plugin_image: String,
    /// Handshake of this replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeStatus>,
    /// State of the replica.
    #[schemars(transform = crate::schema::explain_values)]
    pub state: InstanceState,
    /// Reason for the state, in CamelCase. Empty when the replica is ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Human readable message that explains the state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// An update of running pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStatus {
    /// How the update is applied:
    /// - `Live`: the sidecar applies it at once.
    /// - `PluginRestart`: the plugin process is restarted in its container.
    /// - `SidecarSwap`: the image of the sidecar is changed on the running pod.
    /// - `PluginSwap`: the image of the plugin is changed on the running pod.
    /// - `ReplacePod`: the pod is replaced.
    ///
    /// If pods need different ways, the one that comes last in this list is shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub change: String,
    /// Image or configuration revision of the pods before the update.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub from: String,
    /// Image or configuration revision of the pods after the update.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub to: String,
    /// Time when the update of the first pod was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time when the last updated pod was ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Number of pods that are updated.
    pub swapped: i32,
    /// Number of pods whose update was rolled back. While it is greater than 0, no further pod is updated.
    pub failed: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}
