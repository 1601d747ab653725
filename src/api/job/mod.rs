//! The kind Job: one unit of work for a plugin, delivered at most once.
//!
//! Spec only; the status is in [`crate::job_status`]. Large output is stored in objects of
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

/// Specification of the desired behavior of the Job. Only `suspend`, `priority`,
/// `ttlSecondsAfterFinished` and `expireTime` can be changed after creation.
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
    doc = "Job is one unit of work for a Plugin. By default it is delivered to the plugin at most once.",
    selectable = ".spec.pluginRef.name",
    selectable = ".spec.target.client",
    selectable = ".status.phase",
    validation = kube::core::Rule::new(rules::NAME)
        .message(kube::core::Message::Expression(rules::NAME_MESSAGE.to_owned())),
    validation = kube::core::Rule::new(rules::STATUS_STAYS)
        .message(rules::STATUS_STAYS_MESSAGE),
    printcolumn(name = "Plugin", type_ = "string", json_path = ".spec.pluginRef.name",
        description = "The Plugin that runs the Job."),
    printcolumn(name = "Command", type_ = "string", json_path = ".status.command",
        description = "Name of the command, or service and method of the call."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Phase of the Job."),
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.claim.holderPod",
        description = "The pod that holds, or last held, the claim."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "Time since the Job was created."),
    printcolumn(name = "Start", type_ = "date", json_path = ".spec.startTime", priority = 1,
        description = "Time before which the Job is not delivered."),
    printcolumn(name = "Expire", type_ = "date", json_path = ".spec.expireTime", priority = 1,
        description = "Time from which on the Job is no longer delivered."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1,
        description = "Why the Job is in its current phase.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct JobSpec {
    /// Reference to the Plugin that runs the Job, in the same namespace.
    pub plugin_ref: PluginRef,

    /// Command of a PCP controller plugin. Exactly one of `command` and `call` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,

    /// Call of a method of a gRPC plugin. Exactly one of `command` and `call` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,

    /// The client of the plugin that the Job is for.
    #[serde(default)]
    pub target: Target,

    /// Time before which the Job is not delivered, in RFC 3339 form with up to 6 fractional digits. If
    /// not specified, the creation time is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub start_time: Option<MicroTime>,

    /// Time from which on the Job is no longer delivered, in RFC 3339 form with up to 6 fractional
    /// digits. A Job that was not delivered by then fails with Expired. If not specified, the Job does
    /// not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub expire_time: Option<MicroTime>,

    /// If true, the Job is not delivered. Has no effect while the Job is claimed or running. Defaults to
    /// false.
    #[serde(default)]
    pub suspend: bool,

    /// Among Jobs with the same startTime, the one with the higher priority is delivered first. Defaults
    /// to 0.
    #[serde(default)]
    pub priority: i32,

    /// Number of seconds, counted from the claim, within which the Job must end. Otherwise it fails with
    /// DeadlineExceeded. Unlimited if unset. Must be between 1 and 31536000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i32>,

    /// ttlSecondsAfterFinished limits the lifetime of a Job that has finished execution (either Complete
    /// or Failed). The Job is deleted this number of seconds after its end. Kept if unset. Must be between
    /// 0 and 31536000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Specifies the number of retries before marking this job failed. A value greater than 0 requires
    /// deliveryPolicy AtLeastOnce. Defaults to 0. Must be between 0 and 9.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9))]
    pub backoff_limit: i32,

    /// Back-off between attempts.
    #[serde(default)]
    pub backoff: Backoff,

    /// How often the Job may be delivered to a plugin. Defaults to AtMostOnce.
    #[serde(default)]
    #[schemars(transform = crate::schema::explain_values)]
    pub delivery_policy: DeliveryPolicy,

    /// Limits for the output of the Job.
    #[serde(default)]
    pub output_policy: OutputPolicy,
}

/// Reference to a Plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::plugin_ref()))]
pub struct PluginRef {
    /// Name of the Plugin.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
}

/// A command that the plugin advertises, with values for its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Name of the command.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Values of the required inputs. An input that is not listed has the value that the plugin
    /// advertises. At most 64 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub inputs: Vec<Input>,
    /// Values of the optional inputs. At most 64 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub optional_inputs: Vec<Input>,
}

/// Value of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Name of the input, as the plugin advertises it.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value of the input.
    #[schemars(length(max = 32_768))]
    pub value: String,
}

/// A call of a gRPC method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// Full name of the gRPC service, such as proto.KV.
    #[schemars(length(min = 1, max = 256))]
    pub service: String,
    /// Name of the method, such as Get.
    #[schemars(length(min = 1, max = 256))]
    pub method: String,
    /// Request message in JSON form. Defaults to the empty message.
    #[serde(default)]
    #[schemars(schema_with = "free_object")]
    pub request: Map<String, Value>,
}

/// The client of the plugin that a Job is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = rules::target()))]
pub struct Target {
    /// IP address or host name of the client. If empty, the Job is for any client.
    #[schemars(length(max = 253))]
    pub client: String,
    /// Port of the plugin, as a decimal number. If empty, the Job is for any port.
    #[schemars(length(max = 5))]
    pub port: String,
    /// Additional fields that are passed to the plugin unchanged. At most 1024 fields and 16 KiB.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_object")]
    pub optional: Map<String, Value>,
}

/// Back-off between attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::backoff()))]
pub struct Backoff {
    /// Number of seconds before the second attempt. Doubles with each further attempt; up to a quarter
    /// is subtracted at random. Defaults to 10. Must be between 1 and 86400.
    #[schemars(range(min = 1, max = 86_400))]
    pub initial_seconds: i32,
    /// Maximum number of seconds between two attempts. Defaults to 360. Must be between 1 and 86400.
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

/// How often a Job may be delivered to a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryPolicy {
    /// Once or not at all; if the plugin is lost, the Job fails.
    #[default]
    AtMostOnce,
    /// Again after a lost or failed attempt, up to `backoffLimit` times; only for work that may be done
    /// twice.
    AtLeastOnce,
}

/// Limits for the output of a Job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputPolicy {
    /// Maximum number of bytes of output that are stored in the status of the Job. More output is stored
    /// in objects of kind JobOutput. Defaults to 32768. Must be between 0 and 32768.
    #[schemars(range(min = 0, max = 32_768))]
    pub inline_max_bytes: i32,
    /// Maximum number of bytes of output. With more output the Job fails with OutputTooLarge. Defaults to
    /// 16777216. Must be between 1 and 67108864.
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
