//! The kind JobOutput: a part of a Job's output that is too large for the Job itself. Owned by
//! its Job and deleted with it.

// Columns of a table may have the same type.
#![allow(clippy::duplicated_attributes)]

use crate::job::rules;
use crate::job_status::Encoding;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Part of one row of output. It cannot be changed.
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
    doc = "JobOutput is a part of the output of a Job that is too large for the status of the Job.",
    selectable = ".spec.job",
    printcolumn(
        name = "Job",
        type_ = "string",
        json_path = ".spec.job",
        description = "Name of the Job."
    ),
    printcolumn(
        name = "Attempt",
        type_ = "integer",
        json_path = ".spec.attempt",
        description = "Number of the attempt, starting at 1."
    ),
    printcolumn(
        name = "Row",
        type_ = "integer",
        json_path = ".spec.row",
        description = "Number of the row of output, starting at 1."
    ),
    printcolumn(
        name = "Chunk",
        type_ = "integer",
        json_path = ".spec.chunk",
        description = "Number of the part within the row, starting at 0."
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        json_path = ".spec.bytes",
        description = "Length of the part in bytes."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the JobOutput was created."
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::output()))]
pub struct JobOutputSpec {
    /// Name of the Job.
    #[schemars(length(min = 1, max = 63))]
    pub job: String,
    /// Number of the attempt of the Job, starting at 1.
    pub attempt: i32,
    /// Number of the row of output, starting at 1.
    pub row: i32,
    /// Number of the part within the row, starting at 0.
    pub chunk: i32,
    /// Length of the part in bytes, before encoding.
    pub bytes: i32,
    /// SHA-256 of the part, as 64 hexadecimal digits.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// Encoding of `content`.
    #[schemars(transform = crate::schema::explain_values)]
    pub encoding: Encoding,
    /// Content of the part.
    #[schemars(length(max = 1_048_576))]
    pub content: String,
}
