//! Status of a Job.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Maximum number of attempts that are listed.
pub const MAX_ATTEMPTS: usize = 10;
/// Maximum number of rows of output that are listed.
pub const MAX_ROWS: usize = 16;
/// Longest preview in characters.
pub const MAX_PREVIEW: usize = 1024;
/// Content of one JobOutput in bytes, at most.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// Most recently observed status of the Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = crate::job::rules::status()))]
pub struct JobStatus {
    /// The generation observed by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase of the Job. Invalid, Succeeded and Failed are final.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::explain_values)]
    pub phase: Option<Phase>,
    /// Reason for the current phase, in CamelCase. Shown by kubectl get.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Name of the command, or service and method of the call. Shown by kubectl get.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 520))]
    pub command: String,
    /// The latest available observations of an object's current state. The types Accepted, Eligible,
    /// Claimed and Started are always present. Complete, Failed and Suspended are added when they become
    /// true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Claim of the pod that holds the Job, or that held it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Number of the current attempt, starting at 1. 0 before the first claim.
    pub attempt: i32,
    /// Earlier attempts. At most 10 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    /// Time before which the next attempt is not made. Only set during back-off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<MicroTime>,
    /// Time when the Job was first claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// Time when the Job ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
    /// Output of the plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// Phase of a Job.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// The spec is rejected; the Job is never delivered. Final.
    Invalid,
    /// The start time is in the future, the Plugin is missing or not ready, or the Job is in back-off.
    Waiting,
    /// The Job can be delivered.
    Ready,
    /// The Job is suspended by `spec.suspend`.
    Suspended,
    /// A pod holds the Job.
    Claimed,
    /// The plugin works on the Job.
    Running,
    /// The Job has completed. Final.
    Succeeded,
    /// The Job has failed, was cancelled or has expired. Final.
    Failed,
}

impl Phase {
    /// The word as it stands in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Invalid => "Invalid",
            Phase::Waiting => "Waiting",
            Phase::Ready => "Ready",
            Phase::Suspended => "Suspended",
            Phase::Claimed => "Claimed",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Phase::Invalid | Phase::Succeeded | Phase::Failed)
    }

    /// Whether a pod has the job.
    pub const fn is_held(self) -> bool {
        matches!(self, Phase::Claimed | Phase::Running)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Claim of a pod on a Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Identifier of the claim, as 32 hexadecimal digits. The sidecar creates it with its request for
    /// work.
    #[schemars(length(max = 64))]
    pub claim_id: String,
    /// Number of the claim since this operator became leader.
    pub sequence: i64,
    /// The newest resource version of Jobs that the operator had observed when it chose this Job.
    #[schemars(length(max = 64))]
    pub observed_resource_version: String,
    /// Name of the pod that holds the Job.
    #[schemars(length(max = 253))]
    pub holder_pod: String,
    /// UID of that pod.
    #[serde(rename = "holderPodUID")]
    #[schemars(length(max = 64))]
    pub holder_pod_uid: String,
    /// Identifier of the ledger of that pod.
    #[schemars(length(max = 64))]
    pub ledger_epoch: String,
    /// Time of the claim, by the clock of the operator.
    pub claimed_at: MicroTime,
    /// Client for which the plugin requested work. Not set if it accepted Jobs for any client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub client_location: Option<String>,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Number of the attempt, starting at 1.
    pub attempt: i32,
    /// Identifier of the claim of the attempt.
    #[schemars(length(max = 64))]
    pub claim_id: String,
    /// Name of the pod that held the Job.
    #[schemars(length(max = 253))]
    pub holder_pod: String,
    /// Time of the claim.
    pub claimed_at: MicroTime,
    /// Time when the attempt ended.
    pub ended_at: MicroTime,
    /// Reason why the attempt ended, in CamelCase.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Human readable message that explains the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Output of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Output {
    /// Number of bytes of all rows that are not late.
    pub bytes: i64,
    /// SHA-256 of all rows that are not late, concatenated, as 64 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// Encoding of `preview`.
    #[schemars(transform = crate::schema::explain_values)]
    pub encoding: Encoding,
    /// Beginning of the last row.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub preview: String,
    /// The first rows of output. At most 16 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["row"]))]
    pub rows: Vec<OutputRow>,
    /// Number of rows, including late rows.
    pub row_count: i32,
    /// Number of objects of kind JobOutput that hold the rest of the output.
    pub chunks: i32,
    /// Whether the plugin gave more output than is stored.
    pub truncated: bool,
    /// Number of late rows, which arrived after the Job had ended.
    pub late_count: i32,
}

/// One row of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputRow {
    /// Number of the row, starting at 1, in the order in which the plugin gave them.
    pub row: i32,
    /// Number of bytes of the row, before encoding.
    pub bytes: i64,
    /// Encoding of `content`.
    #[schemars(transform = crate::schema::explain_values)]
    pub encoding: Encoding,
    /// Content of the row. Not set if it is stored in objects of kind JobOutput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub content: Option<String>,
    /// Number of objects of kind JobOutput that hold the row.
    #[serde(default)]
    pub chunks: i32,
    /// Whether the row arrived after the Job had ended.
    #[serde(default)]
    pub late: bool,
}

/// Encoding of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// The text that the plugin gave.
    #[default]
    Text,
    /// The bytes in Base64, if the plugin gave bytes or text with characters that JSON cannot hold.
    Base64,
}
