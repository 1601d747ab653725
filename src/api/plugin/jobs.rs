//! How a Plugin takes Jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of a Plugin's Jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobOptions {
    /// Maximum number of Jobs that are claimed or running in all pods of this Plugin together. Unlimited
    /// if unset. Must be between 1 and 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_running: Option<i32>,
    /// Maximum number of Jobs that are claimed or running for one client. Unlimited if unset. Must be
    /// between 1 and 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_running_per_client: Option<i32>,
    /// Maximum number of Jobs that one pod runs at the same time. With 0 it takes no Jobs. Only with
    /// goPlugin; a PCP controller plugin asks for each Job itself. Defaults to 4. Must be between 0 and
    /// 256.
    #[schemars(range(min = 0, max = 256))]
    pub max_running_per_pod: i32,
    /// Number of seconds in which a restarted plugin process may still give output for the Jobs of the
    /// previous process. After that these Jobs are lost. Defaults to 30. Must be between 0 and 3600.
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
