//! The kinds of the group `patchbay.dev`, with everything that users read and write: fields,
//! rules, conditions, reasons and fixed names.
//!
//! Nothing here talks to a cluster, reads a clock or depends on how a plugin is run.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod conditions;
pub mod family;
pub mod job;
pub mod job_output;
pub mod job_status;
pub mod names;
pub mod plugin;
pub mod plugin_status;
pub mod reasons;

#[cfg(test)]
mod published;
mod schema;

pub use conditions::ConditionType;
pub use family::{Family, FamilySpec};
pub use job::{Job, JobSpec};
pub use job_output::{JobOutput, JobOutputSpec};
pub use job_status::JobStatus;
pub use plugin::{Plugin, PluginSpec};
pub use plugin_status::PluginStatus;
pub use reasons::Reason;
