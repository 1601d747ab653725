//! What became of a Job.

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

/// Status of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = crate::job::rules::status()))]
pub struct JobStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands. Nothing leaves Invalid, Succeeded and Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One word of the catalogue: why it stands there. For the printed table.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What is to be done, for the printed table: a command, or service/method.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 520))]
    pub command: String,
    /// Accepted, Eligible, Claimed and Started; Complete, Failed and Suspended once they are true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Who has it, or had it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Which attempt this is, from 1; 0 before the first claim.
    pub attempt: i32,
    /// Earlier attempts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    /// While backing off: not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<MicroTime>,
    /// When it was first handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
    /// What the plugin gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// Where a Job stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// It cannot be done as it is written. The end.
    Invalid,
    /// Its time has not come, its plugin is missing, or it is backing off.
    Waiting,
    /// It can be handed out.
    Ready,
    /// Held back by `spec.suspend`.
    Suspended,
    /// A pod has it.
    Claimed,
    /// The plugin is known to work on it.
    Running,
    /// Done. The end.
    Succeeded,
    /// Not done. The end.
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

/// Who has a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Minted by the sidecar for one ask: 32 hexadecimal digits.
    #[schemars(length(max = 64))]
    pub claim_id: String,
    /// Counts the claims of one leader's term.
    pub sequence: i64,
    /// The newest resource version of Jobs that the leader had seen when it chose.
    #[schemars(length(max = 64))]
    pub observed_resource_version: String,
    /// The pod.
    #[schemars(length(max = 253))]
    pub holder_pod: String,
    /// Its uid.
    #[serde(rename = "holderPodUID")]
    #[schemars(length(max = 64))]
    pub holder_pod_uid: String,
    /// Names the ledger of that pod.
    #[schemars(length(max = 64))]
    pub ledger_epoch: String,
    /// When, by the leader's clock.
    pub claimed_at: MicroTime,
    /// The client that the plugin asked for, if for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub client_location: Option<String>,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub attempt: i32,
    /// Its claim.
    #[schemars(length(max = 64))]
    pub claim_id: String,
    /// The pod that had it.
    #[schemars(length(max = 253))]
    pub holder_pod: String,
    /// When it was claimed.
    pub claimed_at: MicroTime,
    /// When it was over.
    pub ended_at: MicroTime,
    /// Why, one word of the catalogue.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What the plugin gave back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Output {
    /// Length of all rows that were not late, in bytes.
    pub bytes: i64,
    /// SHA-256 of those rows, one after the other; 64 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// How the last row is written here: Text or Base64.
    pub encoding: Encoding,
    /// The beginning of the last row.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub preview: String,
    /// The first rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["row"]))]
    pub rows: Vec<OutputRow>,
    /// How many rows there are, the late ones too.
    pub row_count: i32,
    /// How many objects of kind JobOutput hold what does not stand here.
    pub chunks: i32,
    /// Whether the plugin gave more than is kept.
    pub truncated: bool,
    /// Rows that came after the end.
    pub late_count: i32,
}

/// One row of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputRow {
    /// From 1, in the order in which the plugin gave them.
    pub row: i32,
    /// Length in bytes.
    pub bytes: i64,
    /// How `content` is written.
    pub encoding: Encoding,
    /// What the plugin gave. Absent when it lies in objects of kind JobOutput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub content: Option<String>,
    /// How many objects of kind JobOutput hold it.
    #[serde(default)]
    pub chunks: i32,
    /// Whether it came after the end.
    #[serde(default)]
    pub late: bool,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// As they are: the plugin gave text.
    #[default]
    Text,
    /// Base64: the plugin gave bytes, or text that JSON cannot hold.
    Base64,
}
