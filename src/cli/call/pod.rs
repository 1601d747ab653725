//! Chooses the pod to call.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::conditions::ConditionType;
use patchbay_api::names::PLUGIN_LABEL;

use crate::api_error::ApiError;
use crate::args;
use crate::connect::ClusterClient;
use crate::plugins;

/// How long to wait for a Ready pod of a plugin that has worked before.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error(transparent)]
    Read(#[from] ApiError),
    #[error(
        "choosing a pod of {plugin}: none is Ready{why}\n`kubectl patchbay status -n {namespace} {plugin}` shows more"
    )]
    NoneReady {
        plugin: String,
        namespace: String,
        why: String,
    },
    #[error("choosing pod {pod}: it does not belong to {plugin}; its pods are {pods}")]
    NotOfPlugin {
        pod: String,
        plugin: String,
        pods: String,
    },
}

pub(crate) async fn ready(
    cluster: &ClusterClient,
    arguments: &args::CallArgs,
) -> Result<(Api<Pod>, String), PodError> {
    let plugin = plugins::get(cluster, &arguments.plugin).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let selector = ListParams::default().labels(&format!("{}={}", PLUGIN_LABEL, arguments.plugin));
    let found = pods
        .list(&selector)
        .await
        .map_err(|error| {
            ApiError::from_kube(
                cluster,
                format!("reading the pods of {}", arguments.plugin),
                error,
            )
        })?
        .items;

    if let Some(wanted) = &arguments.pod {
        return match found.iter().any(|pod| pod.name_any() == *wanted) {
            true => Ok((pods, wanted.clone())),
            false => Err(PodError::NotOfPlugin {
                pod: wanted.clone(),
                plugin: arguments.plugin.clone(),
                pods: names(&found),
            }),
        };
    }
    let ready = found
        .iter()
        .find(|pod| is_ready(pod))
        .map(ResourceExt::name_any);
    let ready = match ready {
        // It has worked before: a sidecar that is being replaced is Ready again within seconds.
        None if has_handshake(&plugin) => next_ready(&pods, &arguments.plugin).await,
        ready => ready,
    };
    match ready {
        Some(pod) => Ok((pods, pod)),
        None => Err(PodError::NoneReady {
            plugin: arguments.plugin.clone(),
            namespace: cluster.namespace.clone(),
            why: why(&plugin, found.len()),
        }),
    }
}

fn has_handshake(plugin: &Plugin) -> bool {
    plugin
        .status
        .as_ref()
        .is_some_and(|status| status.handshake.is_some())
}

/// The first pod that becomes Ready within the timeout.
async fn next_ready(pods: &Api<Pod>, plugin: &str) -> Option<String> {
    let of_plugin = WatchParams::default().labels(&format!("{PLUGIN_LABEL}={plugin}"));
    let watched = async {
        // From version 0 a watch begins with the existing objects.
        let mut changes = Box::pin(pods.watch(&of_plugin, "0").await.ok()?);
        while let Some(Ok(change)) = changes.next().await {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = change
                && is_ready(&pod)
            {
                return Some(pod.name_any());
            }
        }
        None
    };
    tokio::time::timeout(READY_TIMEOUT, watched)
        .await
        .ok()
        .flatten()
}

/// Ready and not being deleted.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn names(pods: &[Pod]) -> String {
    match pods {
        [] => "none".to_owned(),
        pods => pods
            .iter()
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn why(plugin: &Plugin, pods: usize) -> String {
    let ready = plugin.status.as_ref().and_then(|status| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == ConditionType::Ready.as_str())
    });
    match ready {
        Some(condition) if condition.status != "True" => {
            format!(": {}: {}", condition.reason, condition.message)
        }
        Some(_) => format!(" of its {pods} pods"),
        None => ": its status is empty; check that the operator is running".to_owned(),
    }
}
