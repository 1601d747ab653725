//! What Jobs hear of their Plugins.

use super::{Stores, trim};
use crate::key::{JobKey, PluginKey};
use crate::queue::WorkQueue;
use crate::watch::job_feed::{JobFeed, WatchEvent};
use patchbay_api::Plugin;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Tells the dispatcher and the open Jobs what has changed in a Plugin.
///
/// Passes read Plugins from the store, which holds the answers of our own writes before the watch
/// shows them. So those answers come through here as events do: a watch that was away can show the
/// state before and the state after, and never the one between, by which Jobs were judged.
pub struct PluginChangeNotifier {
    stores: Arc<Stores>,
    queue: Arc<WorkQueue<JobKey>>,
    feed: JobFeed,
    /// What Jobs know of each Plugin, in short. Held while they are told, so that what is told
    /// last is the newest.
    views: Mutex<HashMap<PluginKey, u64>>,
}

impl PluginChangeNotifier {
    /// Jobs have heard nothing yet.
    pub fn new(stores: Arc<Stores>, queue: Arc<WorkQueue<JobKey>>, feed: JobFeed) -> Self {
        Self {
            stores,
            queue,
            feed,
            views: Mutex::default(),
        }
    }

    /// Puts in the answer of a write of ours.
    pub async fn record_write(&self, mut plugin: Plugin) {
        trim::plugin(&mut plugin);
        self.stores.plugins.record_write(&plugin);
        let (namespace, name) = (plugin.metadata.namespace, plugin.metadata.name);
        if let (Some(namespace), Some(name)) = (namespace, name) {
            self.changed(&PluginKey::new(namespace, name)).await;
        }
    }

    /// The store's copy of this Plugin may have changed. The dispatcher hears its limits, and its
    /// open Jobs are looked at again, when something changed that decides about them; most changes
    /// of a Plugin do not.
    pub async fn changed(&self, key: &PluginKey) {
        let mut views = self.views.lock().await;
        let plugin = self.stores.plugins.get(key, &key.name);
        let (view, limits) = match &plugin {
            Some(plugin) => (Some(view(plugin)), Some(plugin.spec.jobs.clone())),
            None => (None, None),
        };
        let before = match view {
            Some(view) => views.insert(key.clone(), view),
            None => views.remove(key),
        };
        if before == view {
            return;
        }
        self.feed
            .tell(WatchEvent::Plugin {
                key: key.clone(),
                limits,
            })
            .await;
        for job in self.stores.jobs.open_of(key) {
            self.queue.wake(job);
        }
    }
}

/// What of a Plugin decides about its Jobs, in short.
fn view(plugin: &Plugin) -> u64 {
    let provides = plugin.status.as_ref().map(|status| &status.provides);
    let mut hasher = DefaultHasher::new();
    plugin.metadata.uid.hash(&mut hasher);
    plugin
        .metadata
        .deletion_timestamp
        .is_some()
        .hash(&mut hasher);
    for part in [
        serde_json::to_vec(&plugin.spec.protocol),
        serde_json::to_vec(&plugin.spec.jobs),
        serde_json::to_vec(&provides),
    ] {
        part.unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::job_feed::feed;
    use kube::runtime::watcher::Event;
    use patchbay_api::Job;
    use serde_json::json;
    use std::time::Duration;

    fn plugin(version: u32, commands: serde_json::Value) -> Plugin {
        serde_json::from_value(json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin",
            "metadata": {
                "namespace": "ns", "name": "kv", "uid": "u", "resourceVersion": version.to_string(),
            },
            "spec": {"image": "kv", "protocol": {"pcpController": {"port": 10000}}},
            "status": {"provides": {"commands": commands}},
        }))
        .unwrap()
    }

    fn waiting() -> Job {
        serde_json::from_value(json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
            "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": "1"},
            "spec": {"pluginRef": {"name": "kv"}, "command": {"name": "echo"}},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_are_woken_for_a_state_that_the_watch_never_shows() {
        let stores = Arc::new(Stores::default());
        let queue = Arc::new(WorkQueue::new(Duration::ZERO));
        let (feed, _seen) = feed();
        let news = PluginChangeNotifier::new(Arc::clone(&stores), Arc::clone(&queue), feed);
        let key = PluginKey::new("ns", "kv");
        let known = json!([{"name": "echo"}]);
        stores
            .plugins
            .apply_event(&Event::Apply(plugin(1, known.clone())));
        news.changed(&key).await;

        // The watch is away while our own writes make of it something else, and the same again.
        news.record_write(plugin(2, json!([]))).await;
        stores.jobs.record_write(&waiting());
        news.record_write(plugin(3, known.clone())).await;
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert_eq!(woken.unwrap(), JobKey::new("ns", "a"));
        queue.done(&JobKey::new("ns", "a"));

        stores.plugins.apply_event(&Event::Apply(plugin(3, known)));
        news.changed(&key).await;
        let woken = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(woken.is_err(), "nothing has changed since");
    }
}
