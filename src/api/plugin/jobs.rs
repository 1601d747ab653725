//! How a Plugin takes Jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of a Plugin's Jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobOptions {
    /// Maximum number of Jobs that are claimed or running in all pods of this Plugin together. Unlimited if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_running: Option<i32>,
    /// Maximum number of Jobs that are claimed or running for one client. Unlimited if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_running_per_client: Option<i32>,
    /// Calls that one pod carries out at a time; family goPlugin. A PCP controller plugin decides by
    /// its own requests.
    #[schemars(range(min = 0, max = 256))]
    pub max_running_per_pod: i32,
    /// Seconds in which a restarted plugin process may still answer a job of the one before.
    #[schemars(range(min = 0, max = 3600))]
    pub recover_seconds: i32,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            max_running: None,
            max_running_per_client: None,
            max_running_per_pod: 4,
            recover_seconds: 30,
        }
    }
}
