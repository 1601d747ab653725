//! A namespace for one story, with the strictest Pod Security level, removed when the story ends.

use crate::plugin::{Plugin, plugin_resource};
use crate::world::{Outcome, PATIENCE, World, fail, until};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One story's namespace.
pub struct Sandbox {
    pub world: Arc<World>,
    /// Name of the namespace.
    pub name: String,
}

impl Sandbox {
    /// Makes the namespace `pbt-<story>`; one left over from an interrupted run is replaced.
    pub async fn new(world: Arc<World>, story: &str) -> Outcome<Sandbox> {
        let name = format!("pbt-{story}");
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        let sandbox = Sandbox {
            world,
            name: name.clone(),
        };
        sandbox.remove(&namespaces).await?;
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(
                    [(
                        "pod-security.kubernetes.io/enforce".to_owned(),
                        "restricted".to_owned(),
                    )]
                    .into(),
                ),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(sandbox)
    }

    /// Removes the namespace and waits until it is gone.
    pub async fn close(self) -> Outcome {
        let namespaces: Api<Namespace> = Api::all(self.world.client.clone());
        self.remove(&namespaces).await
    }

    async fn remove(&self, namespaces: &Api<Namespace>) -> Outcome {
        if namespaces.get_opt(&self.name).await?.is_none() {
            return Ok(());
        }
        // Plugins first: their finalizer is the operator's business, and a stuck one should show
        // its own name instead of a namespace that hangs.
        let plugins = self.plugins();
        plugins
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        until("every Plugin of the namespace is gone", || async {
            Ok(plugins
                .list(&ListParams::default())
                .await?
                .items
                .is_empty()
                .then_some(()))
        })
        .await?;
        self.remove_jobs().await?;
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await?;
        until("the namespace is gone", || async {
            Ok(namespaces
                .get_opt(&self.name)
                .await?
                .is_none()
                .then_some(()))
        })
        .await
    }

    /// Deletes every Job, many at once: with the namespace they would go one after the other.
    async fn remove_jobs(&self) -> Outcome {
        const IN_FLIGHT: usize = 8;
        let jobs = &self.jobs();
        let all = jobs.list_metadata(&ListParams::default()).await?;
        stream::iter(all.items)
            .map(|job| async move {
                let gone = jobs.delete(&job.name_any(), &DeleteParams::default()).await;
                match gone {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    gone => Ok(gone.map(drop)?),
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// The Plugins of this namespace.
    pub fn plugins(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.world.client.clone(), &self.name, &plugin_resource())
    }

    /// Any other kind of this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.world.client.clone(), &self.name)
    }

    /// Creates or changes a Plugin, as `kubectl apply` would.
    pub async fn apply(&self, plugin: &Plugin) -> Outcome {
        let manifest = plugin.manifest(&self.name);
        let params = PatchParams::apply("a-user").force();
        self.plugins()
            .patch(&plugin.name, &params, &Patch::Apply(&manifest))
            .await?;
        Ok(())
    }

    /// Waits until a Plugin's status satisfies `wanted`; says what it was when patience ends.
    pub async fn plugin_until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Outcome<Value> {
        let plugins = self.plugins();
        let mut last = Value::Null;
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut changes = Box::pin(watcher(plugins, only));
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(event) = changes.next().await {
                let (Ok(watcher::Event::Apply(object)) | Ok(watcher::Event::InitApply(object))) =
                    event
                else {
                    continue;
                };
                last = json!({
                    "generation": object.metadata.generation,
                    "spec": object.data["spec"],
                    "status": object.data["status"],
                });
                if wanted(&last["status"]) && is_current(&last) {
                    return true;
                }
            }
            false
        })
        .await;
        if let Ok(true) = found {
            return Ok(last["status"].take());
        }
        fail!(
            "{what}: not within {PATIENCE:?}; status is {}",
            pretty(&last["status"])
        )
    }

    /// Waits for condition Ready=True.
    pub async fn ready(&self, name: &str) -> Outcome<Value> {
        self.plugin_until(name, "Ready is True", |status| {
            condition(status, "Ready")["status"] == "True"
        })
        .await
    }

    /// Waits until Ready is False for `reason` and an event of that reason names the Plugin.
    /// Returns the status and how long it took.
    pub async fn refused(&self, name: &str, reason: &str) -> Outcome<(Value, Duration)> {
        let start = Instant::now();
        let status = self
            .plugin_until(
                name,
                &format!("Ready is False with reason {reason}"),
                |status| {
                    let ready = condition(status, "Ready");
                    ready["status"] == "False" && ready["reason"] == reason
                },
            )
            .await?;
        self.event_about(name, reason).await?;
        Ok((status, start.elapsed()))
    }

    /// Waits for an event of this reason about an object of this name.
    pub async fn event_about(&self, name: &str, reason: &str) -> Outcome {
        let events: Api<Event> = self.api();
        until(
            &format!("an event with reason {reason} about {name}"),
            || async {
                let all = events.list(&ListParams::default()).await?;
                let found = all.items.iter().any(|event| {
                    event.reason.as_deref() == Some(reason)
                        && event
                            .regarding
                            .as_ref()
                            .is_some_and(|about| about.name.as_deref() == Some(name))
                });
                Ok(found.then_some(()))
            },
        )
        .await
    }

    /// The Plugin's pods that are not being deleted, by name.
    pub async fn pods(&self, plugin: &str) -> Outcome<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("patchbay.dev/plugin={plugin}"));
        let mut pods = self.api::<Pod>().list(&selector).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }
}

/// A status speaks of the present spec only when it has seen its generation.
fn is_current(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["generation"]
}

/// One condition of a status; Null when it is not there.
pub fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    const NONE: &Value = &Value::Null;
    status["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .unwrap_or(NONE)
}

pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}
