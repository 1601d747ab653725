//! What the cluster looked like a moment ago, grouped by Plugin.
//!
//! Stores lag behind our own writes, so the answer of every write is put in at once; an older
//! event that arrives later does not undo it. Nothing is read from a store before its first list
//! is complete, and a new list replaces the old one in one step.
//!
//! Jobs have a store of their own, [`super::jobs`]: a Plugin can have many thousands.

use super::packed::Packed;
use crate::key::PluginKey;
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// A child is one of few: a list needs less than a map.
type PluginObjects = Vec<Packed>;
type ObjectsByPlugin = HashMap<PluginKey, PluginObjects>;

/// Objects of one kind.
#[derive(Debug)]
pub struct Store<K> {
    inner: RwLock<StoreState>,
    synced: watch::Sender<bool>,
    group: fn(&K) -> Option<PluginKey>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Debug, Default)]
struct StoreState {
    groups: ObjectsByPlugin,
    count: usize,
    /// The list that is being read, until it is complete.
    listing: Option<ObjectsByPlugin>,
}

impl<K> Store<K>
where
    K: Resource + Serialize + DeserializeOwned,
{
    /// An empty store. `group` says which Plugin an object belongs to; objects that belong to
    /// none are passed over.
    pub fn new(group: fn(&K) -> Option<PluginKey>) -> Self {
        Self {
            inner: RwLock::default(),
            synced: watch::channel(false).0,
            group,
            kind: PhantomData,
        }
    }

    /// Waits for the end of the first list.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in self.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Every object of `plugin`.
    pub fn of(&self, plugin: &PluginKey) -> Vec<K> {
        self.read()
            .groups
            .get(plugin)
            .map(|group| group.iter().filter_map(Packed::unpack).collect())
            .unwrap_or_default()
    }

    /// One object of `plugin`.
    pub fn get(&self, plugin: &PluginKey, name: &str) -> Option<K> {
        let inner = self.read();
        let group = inner.groups.get(plugin)?;
        group.iter().find(|packed| *packed.name == *name)?.unpack()
    }

    /// The resource version of one object of `plugin`; 0 where that is no number.
    pub fn version(&self, plugin: &PluginKey, name: &str) -> Option<u64> {
        let inner = self.read();
        let group = inner.groups.get(plugin)?;
        let packed = group.iter().find(|packed| *packed.name == *name)?;
        Some(packed.version)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().count
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts in the answer of a write.
    pub fn record_write(&self, object: &K) {
        self.write().insert((self.group)(object), object);
    }

    /// Takes in an event and answers which Plugins it concerns.
    pub fn apply_event(&self, event: &Event<K>) -> Vec<PluginKey> {
        let mut inner = self.write();
        match event {
            Event::Init => {
                inner.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(packed)) = ((self.group)(object), Packed::new(object)) {
                    let listing = inner.listing.get_or_insert_default();
                    let group = listing.entry(key).or_default();
                    // Pages of one list may repeat an object.
                    group.retain(|other| other.name != packed.name);
                    push(group, packed);
                }
                Vec::new()
            }
            Event::InitDone => {
                let mut listed = inner.listing.take().unwrap_or_default();
                listed.shrink_to_fit();
                let mut concerned: HashSet<PluginKey> = listed.keys().cloned().collect();
                concerned.extend(inner.groups.keys().cloned());
                inner.count = listed.values().map(Vec::len).sum();
                let before = std::mem::replace(&mut inner.groups, listed);
                // What was written while the list was read is newer than the list, and stays.
                for (key, group) in before {
                    if let Some(listed) = inner.groups.get_mut(&key) {
                        group.into_iter().for_each(|known| keep(listed, known));
                    }
                }
                drop(inner);
                self.synced.send_replace(true);
                concerned.into_iter().collect()
            }
            Event::Apply(object) => {
                let key = (self.group)(object);
                inner.insert(key.clone(), object);
                key.into_iter().collect()
            }
            Event::Delete(object) => {
                let Some(key) = (self.group)(object) else {
                    return Vec::new();
                };
                inner.remove(&key, object);
                vec![key]
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, StoreState> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, StoreState> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreState {
    fn insert<K: Resource + Serialize>(&mut self, key: Option<PluginKey>, object: &K) {
        let (Some(key), Some(packed)) = (key, Packed::new(object)) else {
            return;
        };
        let group = self.groups.entry(key).or_default();
        match group.iter_mut().find(|known| known.name == packed.name) {
            Some(known) if known.newer_than(&packed) => {}
            Some(known) => *known = packed,
            None => {
                push(group, packed);
                self.count += 1;
            }
        }
    }

    fn remove<K: Resource>(&mut self, key: &PluginKey, object: &K) {
        let meta = object.meta();
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let before = group.len();
        // A successor of the same name may have been put in already.
        group.retain(|known| {
            Some(&*known.name) != meta.name.as_deref() || Some(&*known.uid) != meta.uid.as_deref()
        });
        self.count -= before - group.len();
        if group.is_empty() {
            self.groups.remove(key);
        }
    }
}

/// Puts in what is newer than what is there.
fn keep(group: &mut PluginObjects, known: Packed) {
    let listed = group.iter_mut().find(|listed| listed.name == known.name);
    if let Some(listed) = listed
        && known.newer_than(listed)
    {
        *listed = known;
    }
}

/// Most groups have one or two objects, and a list that grows by itself begins with room for four.
fn push(group: &mut PluginObjects, packed: Packed) {
    group.reserve_exact(1);
    group.push(packed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use std::sync::Arc;

    fn pod(name: &str, uid: &str, version: u64) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    fn key() -> PluginKey {
        PluginKey::new("ns", "kv")
    }

    fn store() -> Store<Pod> {
        Store::new(|_| Some(PluginKey::new("ns", "kv")))
    }

    fn version(store: &Store<Pod>, name: &str) -> Option<String> {
        store.get(&key(), name)?.metadata.resource_version
    }

    #[test]
    fn a_list_replaces_everything_in_one_step() {
        let store = store();
        store.apply_event(&Event::Apply(pod("old", "1", 1)));
        store.apply_event(&Event::Init);
        store.apply_event(&Event::InitApply(pod("new", "2", 2)));
        assert!(
            store.get(&key(), "old").is_some(),
            "until the list is complete"
        );
        assert_eq!(store.apply_event(&Event::InitDone), [key()]);
        assert!(store.get(&key(), "old").is_none());
        assert!(store.get(&key(), "new").is_some());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn an_old_event_does_not_undo_a_write_of_ours() {
        let store = store();
        store.apply_event(&Event::Apply(pod("a", "1", 5)));
        store.record_write(&pod("a", "1", 9));
        store.apply_event(&Event::Apply(pod("a", "1", 7)));
        assert_eq!(version(&store, "a").as_deref(), Some("9"));
        store.apply_event(&Event::Apply(pod("a", "1", 10)));
        assert_eq!(version(&store, "a").as_deref(), Some("10"));
    }

    #[test]
    fn what_is_written_while_a_list_is_read_stays() {
        let store = store();
        store.apply_event(&Event::Apply(pod("a", "1", 5)));
        store.apply_event(&Event::Init);
        store.apply_event(&Event::InitApply(pod("a", "1", 5)));
        store.record_write(&pod("a", "1", 9));
        store.apply_event(&Event::InitDone);
        assert_eq!(version(&store, "a").as_deref(), Some("9"));
    }

    #[test]
    fn the_deletion_of_a_predecessor_does_not_remove_its_successor() {
        let store = store();
        store.record_write(&pod("a", "new", 9));
        store.apply_event(&Event::Delete(pod("a", "old", 8)));
        assert!(store.get(&key(), "a").is_some());
        store.apply_event(&Event::Delete(pod("a", "new", 10)));
        assert!(store.is_empty());
        assert!(store.of(&key()).is_empty());
    }

    #[tokio::test]
    async fn a_store_is_filled_after_its_first_list_even_when_it_is_empty() {
        let store = Arc::new(store());
        let waiter = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.synced().await })
        };
        store.apply_event(&Event::Init);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        store.apply_event(&Event::InitDone);
        waiter.await.unwrap();
    }
}
