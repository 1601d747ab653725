//! The watches that fill the stores, wake Plugins and Jobs, and keep the dispatcher informed.
//!
//! Few watches, each with its own back-off, each guarded: an object that cannot be decoded is
//! counted and passed over, and the stream goes on.

pub mod job_feed;
pub mod jobs;
pub mod kubelet;
mod packed;
pub mod plugin_changes;
pub mod store;
pub mod trim;

use crate::health::{ProcessHealth, ReadinessGate};
use crate::key::{JobKey, PluginKey};
use crate::metrics::{Metrics, WatchLabels};
use crate::queue::WorkQueue;
use futures::StreamExt;
use job_feed::{JobFeed, WatchEvent};
use jobs::{JobChange, JobStore};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL};
use plugin_changes::PluginChangeNotifier;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use store::Store;

/// Objects per page of a list: the peak of memory is a page, not a list.
const PAGE: u32 = 20;
/// A Job is far smaller than a pod, and there are many of them.
const JOBS_PAGE: u32 = 100;
/// Seconds until a watch is opened again; a wedged one is noticed no later.
const WATCH_SECONDS: u32 = 240;

/// Everything that the operator looks at.
#[derive(Debug)]
pub struct Stores {
    pub plugins: Store<Plugin>,
    /// Pods with our label.
    pub pods: Store<Pod>,
    /// Services with our label.
    pub services: Store<Service>,
    /// NetworkPolicies with our label.
    pub policies: Store<NetworkPolicy>,
    pub jobs: JobStore,
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            plugins: Store::new(|plugin| {
                Some(PluginKey::new(plugin.namespace()?, plugin.name_any()))
            }),
            pods: Store::new(by_label),
            services: Store::new(by_label),
            policies: Store::new(by_label),
            jobs: JobStore::default(),
        }
    }
}

fn by_label<K: Resource>(object: &K) -> Option<PluginKey> {
    let meta = object.meta();
    let plugin = meta.labels.as_ref()?.get(PLUGIN_LABEL)?;
    Some(PluginKey::new(meta.namespace.clone()?, plugin))
}

impl Stores {
    /// Waits for the first list of every kind.
    pub async fn synced(&self) {
        tokio::join!(
            self.plugins.synced(),
            self.pods.synced(),
            self.services.synced(),
            self.policies.synced(),
            self.jobs.synced(),
        );
    }
}

/// What every watch needs.
pub struct Watching {
    /// For lists and watches.
    pub client: Client,
    pub stores: Arc<Stores>,
    /// Plugins that are woken.
    pub queue: Arc<WorkQueue<PluginKey>>,
    /// Jobs that are woken.
    pub job_queue: Arc<WorkQueue<JobKey>>,
    /// Tells the dispatcher of Jobs what was seen.
    pub feed: JobFeed,
    /// Tells Jobs about their Plugins.
    pub plugin_changes: Arc<PluginChangeNotifier>,
    pub metrics: Arc<Metrics>,
    /// Hears of complete lists.
    pub health: Arc<ProcessHealth>,
}

impl Watching {
    /// Watches everything, for ever.
    pub async fn run(self) -> Infallible {
        let ours = Config::default()
            .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"))
            .page_size(PAGE)
            .timeout(WATCH_SECONDS);
        let all = Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
        let jobs = Config::default()
            .page_size(JOBS_PAGE)
            .timeout(WATCH_SECONDS);
        let stores = &self.stores;
        let never = tokio::join!(
            self.one(
                "plugins",
                ReadinessGate::Plugins,
                all,
                trim::plugin,
                async |event| {
                    for plugin in stores.plugins.apply_event(&event) {
                        self.plugin_changes.changed(&plugin).await;
                        self.queue.wake(plugin);
                    }
                    stores.plugins.len()
                }
            ),
            self.one(
                "pods",
                ReadinessGate::Pods,
                ours.clone(),
                trim::pod,
                async |event| {
                    for plugin in stores.pods.apply_event(&event) {
                        self.queue.wake(plugin);
                    }
                    self.pod_changed(&event);
                    stores.pods.len()
                }
            ),
            self.one(
                "services",
                ReadinessGate::Services,
                ours.clone(),
                trim::service,
                async |event| self.child_changed(&stores.services, &event)
            ),
            self.one(
                "networkpolicies",
                ReadinessGate::NetworkPolicies,
                ours,
                trim::policy,
                async |event| self.child_changed(&stores.policies, &event)
            ),
            self.one(
                "jobs",
                ReadinessGate::Jobs,
                jobs,
                trim::job,
                async |event| {
                    for change in stores.jobs.apply_event(event) {
                        self.job_changed(change).await;
                    }
                    stores.jobs.len()
                }
            ),
        );
        never.0
    }

    fn child_changed<K>(&self, store: &Store<K>, event: &Event<K>) -> usize
    where
        K: Resource + Serialize + DeserializeOwned,
    {
        for plugin in store.apply_event(event) {
            self.queue.wake(plugin);
        }
        store.len()
    }

    /// A pod that ends wakes the Jobs that it holds.
    fn pod_changed(&self, event: &Event<Pod>) {
        let held = match event {
            Event::Delete(pod) => self.held_by(pod),
            Event::Apply(pod) if is_over(pod) => self.held_by(pod),
            Event::InitDone => self.stores.jobs.held(),
            _ => Vec::new(),
        };
        for job in held {
            self.job_queue.wake(job);
        }
    }

    fn held_by(&self, pod: &Pod) -> Vec<JobKey> {
        let namespace = pod.namespace().unwrap_or_default();
        let uid = pod.uid().unwrap_or_default();
        self.stores.jobs.held_by(&namespace, &uid)
    }

    async fn job_changed(&self, change: JobChange) {
        let (key, seen) = match change {
            // Our own write comes back: the pass was woken by its answer.
            JobChange::Job { job, news: false } => {
                return self.feed.tell(WatchEvent::Job(job)).await;
            }
            JobChange::Job { job, news: true } => (jobs::key(&job), WatchEvent::Job(job)),
            JobChange::Gone { key, uid } => (key.clone(), WatchEvent::JobGone { key, uid }),
            JobChange::Listing => return self.feed.tell(WatchEvent::Listing).await,
            JobChange::Listed => return self.feed.tell(WatchEvent::Listed).await,
        };
        self.feed.tell(seen).await;
        self.job_queue.wake(key);
    }

    async fn one<K>(
        &self,
        kind: &'static str,
        need: ReadinessGate,
        config: Config,
        trim: fn(&mut K),
        mut heard: impl AsyncFnMut(Event<K>) -> usize,
    ) -> Infallible
    where
        K: Resource<DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        let labels = WatchLabels { kind };
        let stored = self.metrics.stored.get_or_create_owned(&labels);
        let errors = self.metrics.watch_errors.get_or_create_owned(&labels);
        let undecodable = self.metrics.undecodable.get_or_create_owned(&labels);
        loop {
            let api = Api::<DeserializeGuard<K>>::all(self.client.clone());
            let mut events = std::pin::pin!(watcher(api, config.clone()).default_backoff());
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        errors.inc();
                        tracing::warn!(kind, %error, "the watch broke and is opened again");
                        continue;
                    }
                };
                self.health.open_gate(ReadinessGate::ApiServer);
                let Some(event) = decoded(kind, event, &undecodable) else {
                    continue;
                };
                let complete = matches!(event, Event::InitDone);
                let count = heard(event.modify(trim)).await;
                if complete {
                    self.health.open_gate(need);
                }
                stored.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}

/// Whether no container of the pod runs, or will.
pub fn is_over(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
}

fn decoded<K: Resource<DynamicType = ()>>(
    kind: &'static str,
    event: Event<DeserializeGuard<K>>,
    undecodable: &prometheus_client::metrics::counter::Counter,
) -> Option<Event<K>> {
    let guard = |object: DeserializeGuard<K>| match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            undecodable.inc();
            tracing::warn!(
                kind,
                namespace = invalid.metadata.namespace,
                name = invalid.metadata.name,
                error = crate::text::bounded_text(&invalid.error, 512),
                "an object could not be decoded and is passed over"
            );
            None
        }
    };
    Some(match event {
        Event::Apply(object) => Event::Apply(guard(object)?),
        Event::Delete(object) => Event::Delete(guard(object)?),
        Event::InitApply(object) => Event::InitApply(guard(object)?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}
