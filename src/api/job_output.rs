//! The kind JobOutput: a piece of a Job's output that is too large for the Job itself. Owned by
//! its Job and deleted with it.

// Columns of a table may have the same type.
#![allow(clippy::duplicated_attributes)]

use crate::job::rules;
use crate::job_status::Encoding;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A piece of one row of output. It never changes.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "patchbay.dev",
    version = "v1alpha1",
    kind = "JobOutput",
    plural = "joboutputs",
    shortname = "pboutput",
    category = "patchbay",
    namespaced,
    derive = "PartialEq",
    doc = "A piece of a Job's output that is too large for the Job itself.",
    selectable = ".spec.job",
    printcolumn(
        name = "Job",
        type_ = "string",
        json_path = ".spec.job",
        description = "The Job that it belongs to."
    ),
    printcolumn(
        name = "Attempt",
        type_ = "integer",
        json_path = ".spec.attempt",
        description = "The attempt, from 1."
    ),
    printcolumn(
        name = "Row",
        type_ = "integer",
        json_path = ".spec.row",
        description = "The row of output, from 1."
    ),
    printcolumn(
        name = "Chunk",
        type_ = "integer",
        json_path = ".spec.chunk",
        description = "The piece of the row, from 0."
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        json_path = ".spec.bytes",
        description = "Length of the piece."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was stored."
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::output()))]
pub struct JobOutputSpec {
    /// Name of the Job.
    #[schemars(length(min = 1, max = 63))]
    pub job: String,
    /// Its attempt, from 1.
    pub attempt: i32,
    /// The row, from 1.
    pub row: i32,
    /// The piece of the row, from 0.
    pub chunk: i32,
    /// Length of the piece in bytes.
    pub bytes: i32,
    /// SHA-256 of the piece; 64 hexadecimal digits.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// How `content` is written.
    pub encoding: Encoding,
    /// The piece itself.
    #[schemars(length(max = 1_048_576))]
    pub content: String,
}
