//! What is seen of a Plugin. Everything that a plugin said is foreign: escaped, bounded, counted.

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

/// Status of a Plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub selector: Option<String>,
    /// Pods that exist and are not on their way out.
    pub replicas: i32,
    /// Of these, the ones that answer calls.
    pub ready_replicas: i32,
    /// Of these, the ones that are what the spec says.
    pub updated_replicas: i32,
    /// Ready and wanted replicas as "1/2", for the printed table.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub ready: Option<String>,
    /// Family of protocols, for the printed table.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub family: Option<String>,
    /// Accepted, ResolvedRefs, Handshaken, SidecarCurrent and Ready; Degraded only while true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Handshake of the replica that has run longest; each instance has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeStatus>,
    /// What the running plugin says that it offers. The commands of a PCP controller plugin are there
    /// when Ready is True; the gRPC services of a go-plugin program are asked for by reflection after
    /// its health and may follow Ready by a few seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provides: Option<Provides>,
    /// One entry per pod, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"])
    )]
    pub instances: Vec<InstanceStatus>,
    /// How many pods `instances` leaves out.
    #[serde(skip_serializing_if = "is_zero")]
    pub instances_omitted: i32,
    /// The last or current change of running pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
}

/// Outcome of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HandshakeStatus {
    /// Version of the handshake itself.
    pub core_version: i64,
    /// The application version that was agreed upon.
    pub app_version: i64,
    /// Application versions that were offered to the plugin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub offered: Vec<i64>,
    /// unix or tcp.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub transport: String,
    /// Transport security in force, with its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tls: String,
    /// Seconds from the start of the process to its announcement.
    pub seconds: f64,
}

/// What a plugin offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provides {
    /// Its gRPC services, by reflection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub services: Vec<String>,
    /// Commands that a PCP controller plugin advertises; Jobs are checked against them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub commands: Vec<AdvertisedCommand>,
    /// How many names are left out.
    pub omitted: i64,
}

/// A command as the plugin advertises it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisedCommand {
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tooltip: String,
    /// Whether output is expected.
    pub output: bool,
    /// Inputs that a Job has to give, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub inputs: Vec<AdvertisedInput>,
    /// Inputs that a Job may give.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub optional_inputs: Vec<AdvertisedInput>,
}

/// One input of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdvertisedInput {
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// What a user interface shows, such as textbox.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub type_: String,
    /// What it means.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub tooltip: String,
    /// Value when a Job gives none.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub value: String,
}

/// State of one instance.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum InstanceState {
    /// The pod has failed for good.
    Failed,
    /// The plugin ended or failed; the next start waits for its back-off.
    BackingOff,
    /// Handshaken, and its health check does not pass.
    Unhealthy,
    /// The operator cannot tell.
    Unknown,
    /// The pod's containers are not up yet.
    Pending,
    /// Everything is in place; the operator has not released the plugin.
    Held,
    /// Started, not handshaken.
    Starting,
    /// Being stopped.
    Stopping,
    /// Answers calls.
    Ready,
}

/// One pod of a Plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Name of the pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Its uid.
    #[serde(rename = "podUID")]
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// Its ordinal.
    pub ordinal: i32,
    /// Names one start of the plugin process; unchanged while the process lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub start_id: Option<String>,
    /// When that process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// How often the process was started again in this pod.
    #[serde(default)]
    pub restarts: i64,
    /// How the process before it ended, such as "exit 1" or "signal 9 (by Kill)".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_exit: Option<String>,
    /// Image of the sidecar.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub sidecar_image: String,
    /// Image of the plugin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub plugin_image: String,
    /// Its handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeStatus>,
    /// What it is doing.
    pub state: InstanceState,
    /// One word of the catalogue; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A change of running pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStatus {
    /// The greatest step that the change needs: Live, PluginRestart, SidecarSwap, PluginSwap or
    /// ReplacePod.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub change: String,
    /// What the pods ran before: an image, or the revision of a configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub from: String,
    /// What they shall run.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub to: String,
    /// When the first pod was touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last one was ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Pods that are through.
    pub swapped: i32,
    /// Pods whose change was taken back. While it is not 0 no further pod is touched.
    pub failed: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}
