//! A change of the spec disturbs no more than it has to.

use super::{Case, case};
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "swaps::a_new_plugin_image_keeps_the_pod_and_the_sidecar",
            plugin_image,
        ),
        case("swaps::a_new_health_period_restarts_nothing", live_change),
        case(
            "swaps::a_new_version_list_restarts_only_the_plugin",
            plugin_restart,
        ),
        case("swaps::a_new_command_replaces_the_pod", replacement),
    ]
}

/// What a swap may or may not change.
#[derive(Debug, PartialEq)]
struct Traces {
    pod: Option<String>,
    sidecar: Option<String>,
    plugin: Option<String>,
    start: serde_json::Value,
}

/// Looks once the Plugin is ready at the given spec and its image is `image`.
async fn traces(sandbox: &Sandbox, image: &str) -> Outcome<Traces> {
    let status = sandbox
        .plugin_until(
            "kv",
            &format!("ready and up to date with {image}"),
            |status| {
                status["readyReplicas"] == 1
                    && status["updatedReplicas"] == 1
                    && status["instances"][0]["pluginImage"] == image
                    && status["instances"][0]["state"] == "Ready"
            },
        )
        .await?;
    let Some(pod) = sandbox.pods("kv").await?.into_iter().next() else {
        fail!("no pod of kv")
    };
    Ok(Traces {
        pod: pod.uid(),
        sidecar: container(&pod, "sidecar"),
        plugin: container(&pod, "plugin"),
        start: status["instances"][0]["startId"].clone(),
    })
}

fn container(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    all.into_iter()
        .find(|container| container.name == name)?
        .container_id
        .clone()
}

const NEW: &str = "patchbay.dev/example-kv-go:v1";
const OLD: &str = "patchbay.dev/example-kv-go-old:v1";

async fn plugin_image(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "swap-plugin").await?;
    let plugin = Plugin::kv_go("kv").with("/image", json!(OLD));
    sandbox.apply(&plugin).await?;
    let before = traces(&sandbox, OLD).await?;
    sandbox.apply(&plugin.with("/image", json!(NEW))).await?;
    let after = traces(&sandbox, NEW).await?;
    if before.pod != after.pod || before.sidecar != after.sidecar {
        fail!("more than the plugin was replaced: {before:?} then {after:?}");
    }
    if before.plugin == after.plugin || before.start == after.start {
        fail!("the plugin was not replaced: {before:?} then {after:?}");
    }
    sandbox.close().await
}

async fn live_change(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "swap-live").await?;
    let plugin = Plugin::kv_go("kv");
    sandbox.apply(&plugin).await?;
    let before = traces(&sandbox, NEW).await?;
    sandbox
        .apply(&plugin.with("/health/periodSeconds", json!(3)))
        .await?;
    let after = traces(&sandbox, NEW).await?;
    if before != after {
        fail!("a live change restarted something: {before:?} then {after:?}");
    }
    sandbox.close().await
}

async fn plugin_restart(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "swap-restart").await?;
    let plugin = Plugin::kv_go("kv");
    sandbox.apply(&plugin).await?;
    let before = traces(&sandbox, NEW).await?;
    sandbox
        .apply(&plugin.with("/protocol/goPlugin/versions", json!([1, 2])))
        .await?;
    sandbox
        .plugin_until("kv", "the new version list was offered", |status| {
            status["readyReplicas"] == 1 && status["handshake"]["offered"] == json!([1, 2])
        })
        .await?;
    let after = traces(&sandbox, NEW).await?;
    if before.start == after.start {
        fail!("the plugin did not start again");
    }
    if (before.pod, before.sidecar, before.plugin) != (after.pod, after.sidecar, after.plugin) {
        fail!("a container was restarted where the process sufficed");
    }
    sandbox.close().await
}

async fn replacement(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "swap-pod").await?;
    let plugin = Plugin::kv_go("kv");
    sandbox.apply(&plugin).await?;
    let before = traces(&sandbox, NEW).await?;
    sandbox
        .apply(&plugin.with("/env", json!([{"name": "COLOUR", "value": "blue"}])))
        .await?;
    until("another pod", || async {
        let pods = sandbox.pods("kv").await?;
        Ok(pods.iter().any(|pod| pod.uid() != before.pod).then_some(()))
    })
    .await?;
    let after = traces(&sandbox, NEW).await?;
    if before.pod == after.pod {
        fail!("a new environment needs a new pod");
    }
    sandbox.close().await
}
