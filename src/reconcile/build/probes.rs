//! How the kubelet asks: by executing the sidecar, never over the network.

use crate::build::containers::SIDECAR_PROGRAM;
use k8s_openapi::api::core::v1::{ExecAction, Lifecycle, LifecycleHandler, Probe};

/// The pod is ready when its plugin has shaken hands and passes its health check. The command
/// waits for the first readiness, shorter than the limit, so that Ready is seen at once.
pub fn readiness() -> Probe {
    Probe {
        exec: Some(exec("ready")),
        period_seconds: Some(2),
        timeout_seconds: Some(6),
        failure_threshold: Some(1),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

/// Keeps the plugin's container from starting before its launcher lies in the volume. A startup
/// probe would cost a second more.
pub fn after_start() -> Lifecycle {
    Lifecycle {
        post_start: Some(LifecycleHandler {
            exec: Some(exec("wait-installed")),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

fn exec(verb: &str) -> ExecAction {
    ExecAction {
        command: Some(vec![SIDECAR_PROGRAM.to_owned(), verb.to_owned()]),
    }
}
