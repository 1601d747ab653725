//! The life of a plugin process and of its pods: health, restarts, stops and updates.

use super::rules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Periodic health check over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// Seconds between two checks.
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: i32,
    /// Seconds until a check counts as failed.
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
    /// Number of consecutive failures after which the plugin is unhealthy.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// What happens then.
    pub on_failure: OnFailure,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            period_seconds: 10,
            timeout_seconds: 2,
            failure_threshold: 3,
            on_failure: OnFailure::Restart,
        }
    }
}

/// What an unhealthy plugin leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Stop the process and start it again, with back-off.
    Restart,
    /// Turn not ready and leave the process alone.
    Report,
}

/// Back-off between starts: doubles from the first value to the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::restart()))]
pub struct Restart {
    /// Seconds before the first restart.
    #[schemars(range(min = 1, max = 3600))]
    pub initial_seconds: i32,
    /// Longest wait in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: i32,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            initial_seconds: 1,
            max_seconds: 300,
        }
    }
}

/// Phases of a stop, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Shutdown {
    /// Calls in flight may end.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,
    /// Limit of the Shutdown call to the plugin.
    #[schemars(range(min = 0, max = 3600))]
    pub rpc_seconds: i32,
    /// Time to exit after that call.
    #[schemars(range(min = 0, max = 3600))]
    pub exit_seconds: i32,
    /// Time between SIGTERM and SIGKILL of the process group.
    #[schemars(range(min = 0, max = 3600))]
    pub term_seconds: i32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain_seconds: 5,
            rpc_seconds: 5,
            exit_seconds: 2,
            term_seconds: 5,
        }
    }
}

/// How changes reach running pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// InPlace changes what can be changed on the living pod; Replace makes a new pod when the
    /// plugin's image changes.
    pub strategy: Strategy,
    /// How many replicas may be away at the same time because of an update.
    #[schemars(range(min = 1, max = 200))]
    pub max_unavailable: i32,
    /// Seconds after which a change that did not become ready is taken back.
    #[schemars(range(min = 5, max = 86_400))]
    pub progress_deadline_seconds: i32,
    /// When the successor of a replaced pod is created.
    pub replacement: Replacement,
    /// Who decides when a pod gets a new sidecar.
    pub sidecar: SidecarUpdate,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            strategy: Strategy::InPlace,
            max_unavailable: 1,
            progress_deadline_seconds: 600,
            replacement: Replacement::WhenTerminating,
            sidecar: SidecarUpdate::Auto,
        }
    }
}

/// How much of a pod survives a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Change the living pod where that is possible.
    InPlace,
    /// Replace the pod when the plugin's image changes.
    Replace,
}

/// When the successor of a pod is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Replacement {
    /// As soon as the old pod is on its way out.
    WhenTerminating,
    /// When the old pod is gone: never two at once, for plugins that must be alone.
    WhenGone,
}

/// Who decides about new sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SidecarUpdate {
    /// The operator swaps the sidecar in the living pod; the plugin process goes on.
    Auto,
    /// Pods keep their sidecar until they are replaced.
    Manual,
}
