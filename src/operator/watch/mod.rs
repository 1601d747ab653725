//! The watches that fill the stores and wake Plugins.
//!
//! Few watches, each with its own back-off, each guarded: an object that cannot be decoded is
//! counted and passed over, and the stream goes on.

pub mod kubelet;
pub mod store;
pub mod trim;

use crate::health::{Health, Need};
use crate::key::PluginKey;
use crate::metrics::{Metrics, WatchLabels};
use crate::queue::Queue;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use store::Store;

/// Objects per page of a list: the peak of memory is a page, not a list.
const PAGE: u32 = 20;
/// Seconds until a watch is opened again; a wedged one is noticed no later.
const WATCH_SECONDS: u32 = 240;

/// Everything that the operator looks at.
#[derive(Debug)]
pub struct Stores {
    /// All Plugins.
    pub plugins: Store<Plugin>,
    /// Pods with our label.
    pub pods: Store<Pod>,
    /// Services with our label.
    pub services: Store<Service>,
    /// NetworkPolicies with our label.
    pub policies: Store<NetworkPolicy>,
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
        }
    }
}

fn by_label<K: Resource>(object: &K) -> Option<PluginKey> {
    let meta = object.meta();
    let plugin = meta.labels.as_ref()?.get(PLUGIN_LABEL)?;
    Some(PluginKey::new(meta.namespace.clone()?, plugin))
}

impl Stores {
    /// Puts in the answer of a write of ours.
    pub fn wrote_plugin(&self, mut plugin: Plugin) {
        trim::plugin(&mut plugin);
        self.plugins.wrote(&plugin);
    }

    /// Waits for the first list of every kind.
    pub async fn filled(&self) {
        tokio::join!(
            self.plugins.filled(),
            self.pods.filled(),
            self.services.filled(),
            self.policies.filled(),
        );
    }
}

/// What every watch needs.
pub struct Watching {
    /// For lists and watches.
    pub client: Client,
    /// What is filled.
    pub stores: Arc<Stores>,
    /// Who is woken.
    pub queue: Arc<Queue<PluginKey>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Hears of complete lists.
    pub health: Arc<Health>,
}

impl Watching {
    /// Watches everything, for ever.
    pub async fn run(self) -> Infallible {
        let ours = Config::default()
            .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"))
            .page_size(PAGE)
            .timeout(WATCH_SECONDS);
        let all = Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
        let stores = &self.stores;
        let never = tokio::join!(
            self.one("plugins", Need::Plugins, all, &stores.plugins, trim::plugin),
            self.one("pods", Need::Pods, ours.clone(), &stores.pods, trim::pod),
            self.one(
                "services",
                Need::Services,
                ours.clone(),
                &stores.services,
                trim::service
            ),
            self.one(
                "networkpolicies",
                Need::NetworkPolicies,
                ours,
                &stores.policies,
                trim::policy
            ),
        );
        never.0
    }

    async fn one<K>(
        &self,
        kind: &'static str,
        need: Need,
        config: Config,
        store: &Store<K>,
        trim: fn(&mut K),
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
                self.health.has(Need::ApiServer);
                let Some(event) = decoded(kind, event, &undecodable) else {
                    continue;
                };
                let complete = matches!(event, Event::InitDone);
                for plugin in store.hear(&event.modify(trim)) {
                    self.queue.wake(plugin);
                }
                if complete {
                    self.health.has(need);
                }
                stored.set(i64::try_from(store.len()).unwrap_or(i64::MAX));
            }
        }
    }
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
                error = crate::session::bounds::bounded_text(&invalid.error, 512),
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
