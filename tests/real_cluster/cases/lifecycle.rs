//! From the first apply to the last trace: scaling, failed pods, deletion, and silence when idle.

use super::{Case, case};
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("lifecycle::scaling_adds_and_removes_pods", scaling),
        case(
            "lifecycle::a_failed_pod_is_replaced_by_the_next_incarnation",
            replaced,
        ),
        case("lifecycle::deletion_leaves_nothing", deletion),
        case("lifecycle::a_crashed_plugin_starts_again", crashed).violent(),
    ]
}

async fn scaling(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "scaling").await?;
    sandbox
        .apply(&Plugin::kv_go("kv").with("/replicas", json!(2)))
        .await?;
    sandbox
        .plugin_until("kv", "two replicas are ready", |status| {
            status["readyReplicas"] == 2
        })
        .await?;
    let names: Vec<_> = sandbox
        .pods("kv")
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    if names != ["kv-0-0", "kv-1-0"] && names != ["kv-0-1", "kv-1-1"] {
        fail!("pods are not named by ordinal and incarnation: {names:?}");
    }
    // As `kubectl scale` does it: through the subresource.
    let plugins = sandbox.plugins();
    let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
    plugins
        .patch_scale("kv", &PatchParams::default(), &one)
        .await?;
    sandbox
        .plugin_until("kv", "one replica is left", |status| {
            status["replicas"] == 1
        })
        .await?;
    let left = sandbox.pods("kv").await?;
    if left.len() != 1 || left[0].name_any() != names[0] {
        fail!("scaling down removed the wrong pod");
    }
    let scale = plugins.get_scale("kv").await?;
    if scale
        .status
        .and_then(|status| status.selector)
        .is_none_or(|selector| selector.is_empty())
    {
        fail!("the scale subresource has no selector");
    }
    sandbox.close().await
}

async fn replaced(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "replaced").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let pods = sandbox.api::<Pod>();
    let first = sandbox.pods("kv").await?.remove(0);
    // The kubelet fails a pod whose deadline is over, as it fails one that it evicts.
    let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
    pods.patch(&first.name_any(), &PatchParams::default(), &deadline)
        .await?;
    let second = until("a pod of the next incarnation", || async {
        Ok(sandbox
            .pods("kv")
            .await?
            .into_iter()
            .find(|pod| pod.uid() != first.uid()))
    })
    .await?;
    if second.name_any() == first.name_any() {
        fail!("the name {} was used twice", first.name_any());
    }
    sandbox
        .plugin_until("kv", "the new pod is ready", |status| {
            status["readyReplicas"] == 1 && status["instances"][0]["pod"] == second.name_any()
        })
        .await?;
    sandbox.close().await
}

async fn deletion(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "deletion").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    sandbox.plugins().delete("kv", &Default::default()).await?;
    until("the Plugin is gone", || async {
        let plugin = sandbox.plugins().get_opt("kv").await?;
        let pods = sandbox
            .api::<Pod>()
            .list(&ListParams::default())
            .await?
            .items;
        if plugin.is_none() && !pods.is_empty() {
            fail!("the Plugin went before its pods");
        }
        Ok(plugin.is_none().then_some(()))
    })
    .await?;
    until("every owned object is gone", || async {
        let all = ListParams::default().labels("app.kubernetes.io/managed-by=patchbay");
        let left = sandbox.api::<Service>().list(&all).await?.items.len()
            + sandbox.api::<NetworkPolicy>().list(&all).await?.items.len()
            + sandbox.api::<Secret>().list(&all).await?.items.len();
        Ok((left == 0).then_some(()))
    })
    .await?;
    sandbox.close().await
}

async fn crashed(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "crashed").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    let before = sandbox.ready("kv").await?["instances"][0].clone();
    let pod = before["pod"].as_str().unwrap_or_default().to_owned();
    sandbox.kill_plugin(&pod).await?;
    let after = sandbox
        .plugin_until("kv", "Ready after one restart", |status| {
            status["readyReplicas"] == 1 && status["instances"][0]["restarts"] == 1
        })
        .await?["instances"][0]
        .clone();
    if before["startId"] == after["startId"] || before["podUID"] != after["podUID"] {
        fail!("the plugin was not started again in the same pod: {before} then {after}");
    }
    sandbox.close().await
}
