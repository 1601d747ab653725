//! Health, restarts, stops and updates of a plugin process and of its pods.

use super::rules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Periodic health check over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// How often (in seconds) to perform the probe. Defaults to 10. Must be between 1 and 3600.
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: i32,
    /// Number of seconds after which the probe times out. Defaults to 2. Must be between 1 and 600.
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
    /// Minimum consecutive failures for the probe to be considered failed after having succeeded.
    /// Defaults to 3. Must be between 1 and 100.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// What happens when the probe is considered failed. Defaults to Restart.
    #[schemars(transform = crate::schema::explain_values)]
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

/// What happens when the plugin is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The process is stopped and started again after the back-off of `restart`.
    Restart,
    /// The pod becomes not ready; the process goes on.
    Report,
}

/// Back-off between restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::restart()))]
pub struct Restart {
    /// Number of seconds before the first restart. Doubles with each further restart. Defaults to 1.
    /// Must be between 1 and 3600.
    #[schemars(range(min = 1, max = 3600))]
    pub initial_seconds: i32,
    /// Maximum number of seconds before a restart. Defaults to 300. Must be between 1 and 86400.
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

/// Time limits for the steps of a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Shutdown {
    /// Maximum number of seconds to wait until calls in progress have ended. 0 skips the wait. Defaults
    /// to 5. Must be between 0 and 3600.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,
    /// Maximum number of seconds for the Shutdown call to the plugin. 0 skips the call. Has no effect
    /// with pcpController, which has no such call. Defaults to 5. Must be between 0 and 3600.
    #[schemars(range(min = 0, max = 3600))]
    pub rpc_seconds: i32,
    /// Maximum number of seconds to wait after the Shutdown call until the process has exited. Then
    /// SIGTERM is sent. Defaults to 2. Must be between 0 and 3600.
    #[schemars(range(min = 0, max = 3600))]
    pub exit_seconds: i32,
    /// Maximum number of seconds to wait after SIGTERM until the process has exited. Then SIGKILL is
    /// sent to the process group. Defaults to 5. Must be between 0 and 3600.
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

/// How changes are applied to running pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// How a new `image` is applied. Defaults to InPlace.
    #[schemars(transform = crate::schema::explain_values)]
    pub strategy: Strategy,
    /// The maximum number of pods that can be unavailable during the update. Defaults to 1. Must be
    /// between 1 and 200.
    #[schemars(range(min = 1, max = 200))]
    pub max_unavailable: i32,
    /// The maximum time in seconds for a pod to become ready after its image was changed in place. After
    /// that the previous image is restored and the update stops. Defaults to 600. Must be between 5 and
    /// 86400.
    #[schemars(range(min = 5, max = 86_400))]
    pub progress_deadline_seconds: i32,
    /// When to create a replacement pod. Defaults to WhenTerminating.
    #[schemars(transform = crate::schema::explain_values)]
    pub replacement: Replacement,
    /// When a new sidecar image of the installation is applied. Defaults to Auto.
    #[schemars(transform = crate::schema::explain_values)]
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

/// How a new image is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// The image is changed on the running pod.
    InPlace,
    /// The pod is replaced.
    Replace,
}

/// When a replacement pod is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Replacement {
    /// As soon as the old pod is terminating (has a metadata.deletionTimestamp).
    WhenTerminating,
    /// When the old pod no longer exists, so that the two never run at the same time.
    WhenGone,
}

/// When a new sidecar is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SidecarUpdate {
    /// The operator changes the sidecar image on the running pod; the plugin process goes on.
    Auto,
    /// A pod keeps its sidecar image until the pod is replaced.
    Manual,
}
