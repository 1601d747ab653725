//! The kind Job: one unit of work for one plugin, handed out at most once.
//!
//! Spec only; what became of it stands in [`crate::job_status`]. Large output lies in objects of
//! the kind [`crate::job_output`]. The kind shares its name with batch/v1: in `kubectl get` use
//! `pbjobs` or `jobs.patchbay.dev`.

pub mod rules;

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod schema_tests;

use crate::job_status::JobStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One unit of work for one plugin. Only `suspend`, `priority`, `ttlSecondsAfterFinished` and
/// `expireTime` may change after creation.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "patchbay.dev",
    version = "v1alpha1",
    kind = "Job",
    plural = "jobs",
    shortname = "pbjob",
    shortname = "pbjobs",
    category = "patchbay",
    namespaced,
    status = "JobStatus",
    derive = "PartialEq",
    doc = "One unit of work for one plugin, handed out at most once.",
    selectable = ".spec.pluginRef.name",
    selectable = ".spec.target.client",
    selectable = ".status.phase",
    validation = kube::core::Rule::new(rules::NAME)
        .message(kube::core::Message::Expression(rules::NAME_MESSAGE.to_owned())),
    validation = kube::core::Rule::new(rules::STATUS_STAYS)
        .message(rules::STATUS_STAYS_MESSAGE),
    printcolumn(name = "Plugin", type_ = "string", json_path = ".spec.pluginRef.name",
        description = "The plugin that does it."),
    printcolumn(name = "Command", type_ = "string", json_path = ".status.command",
        description = "What is to be done: a command, or a method of a gRPC service."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Where it stands."),
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.claim.holderPod",
        description = "The pod that has it."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "Time since the Job was created."),
    printcolumn(name = "Start", type_ = "date", json_path = ".spec.startTime", priority = 1,
        description = "Not handed out before."),
    printcolumn(name = "Expire", type_ = "date", json_path = ".spec.expireTime", priority = 1,
        description = "Not handed out from then on."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1,
        description = "Why the Job is in its current phase.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct JobSpec {
    /// The plugin that shall do it, in the same namespace.
    pub plugin_ref: PluginRef,

    /// A command of a PCP controller plugin. Either this or `call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,

    /// A call of a gRPC plugin. Either this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,

    /// Which client of the plugin it is for.
    #[serde(default)]
    pub target: Target,

    /// Not handed out before this time. Its creation when absent. RFC 3339 with microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub start_time: Option<MicroTime>,

    /// Handed out strictly before this time or never. RFC 3339 with microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub expire_time: Option<MicroTime>,

    /// While true it is not handed out. Has no effect on a job that a plugin has already.
    #[serde(default)]
    pub suspend: bool,

    /// Decides between jobs of the same startTime only; the greater comes first.
    #[serde(default)]
    pub priority: i32,

    /// Number of seconds after the Job was claimed at which it fails with DeadlineExceeded unless it has ended. Unlimited if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i32>,

    /// Number of seconds after its end at which the Job is deleted. Kept if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Maximum number of further attempts after one that was lost or failed. Requires deliveryPolicy AtLeastOnce.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9))]
    pub backoff_limit: i32,

    /// Wait between attempts.
    #[serde(default)]
    pub backoff: Backoff,

    /// AtMostOnce, or AtLeastOnce for work that may safely be done twice.
    #[serde(default)]
    pub delivery_policy: DeliveryPolicy,

    /// Where output is kept and where it is cut.
    #[serde(default)]
    pub output_policy: OutputPolicy,
}

/// Names a Plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::plugin_ref()))]
pub struct PluginRef {
    /// Name of the Plugin.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
}

/// A command as the plugin advertises it; only values may differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Name of the command.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Values of its inputs. An input that is not named keeps its advertised value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub inputs: Vec<Input>,
    /// Values of its optional inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub optional_inputs: Vec<Input>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Name of the input, as advertised.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its value: always text.
    #[schemars(length(max = 32_768))]
    pub value: String,
}

/// A call of a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// Full name of the service, such as proto.KV.
    #[schemars(length(min = 1, max = 256))]
    pub service: String,
    /// Name of the method, such as Get.
    #[schemars(length(min = 1, max = 256))]
    pub method: String,
    /// The request message in its JSON form.
    #[serde(default)]
    #[schemars(schema_with = "free_object")]
    pub request: Map<String, Value>,
}

/// Which client of the plugin a job is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = rules::target()))]
pub struct Target {
    /// Address or name of the client; empty means any.
    #[schemars(length(max = 253))]
    pub client: String,
    /// The plugin's port as text; empty means any.
    #[schemars(length(max = 5))]
    pub port: String,
    /// Handed to the plugin as it is. At most 16 KiB.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_object")]
    pub optional: Map<String, Value>,
}

/// Wait between attempts: doubles from the first value to the second, with jitter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::backoff()))]
pub struct Backoff {
    /// Seconds before the second attempt.
    #[schemars(range(min = 1, max = 86_400))]
    pub initial_seconds: i32,
    /// Longest wait in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: i32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial_seconds: 10,
            max_seconds: 360,
        }
    }
}

/// How often a job may reach a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryPolicy {
    /// Once or never. A job whose plugin is lost fails.
    #[default]
    AtMostOnce,
    /// Again after a loss or failure, up to `backoffLimit` further times.
    AtLeastOnce,
}

/// Where output is kept and where it is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputPolicy {
    /// Maximum number of bytes of output that stand in the Job itself; more goes into objects of kind JobOutput.
    #[schemars(range(min = 0, max = 32_768))]
    pub inline_max_bytes: i32,
    /// Maximum number of bytes of output. More fails the Job with OutputTooLarge.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub max_bytes: i32,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self {
            inline_max_bytes: 32_768,
            max_bytes: 16_777_216,
        }
    }
}

/// A time to the microsecond, as text: a rule can then show it. The pattern is stricter than the
/// format date-time: what the API server lets in is read by every program here, and loses nothing.
fn time(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$",
        "x-kubernetes-validations": rules::time()
    })
}

/// An object whose fields are the plugin's business. Said as a map of anything: on an object that
/// keeps unknown fields the API server would take a renamed field for no change.
fn free_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 1024,
        "additionalProperties": {
            "nullable": true,
            "x-kubernetes-preserve-unknown-fields": true
        }
    })
}
