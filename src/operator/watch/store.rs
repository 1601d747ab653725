//! What the cluster looked like a moment ago, grouped by Plugin.
//!
//! Stores lag behind our own writes, so the answer of every write is put in at once; an older
//! event that arrives later does not undo it. Nothing is read from a store before its first list
//! is complete, and a new list replaces the old one in one step.

use crate::key::PluginKey;
use kube::Resource;
use kube::runtime::watcher::Event;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

type Group<K> = BTreeMap<String, Arc<K>>;
type Groups<K> = HashMap<PluginKey, Group<K>>;

/// Objects of one kind.
#[derive(Debug)]
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
    filled: watch::Sender<bool>,
    group: fn(&K) -> Option<PluginKey>,
}

#[derive(Debug)]
struct Inner<K> {
    groups: Groups<K>,
    count: usize,
    /// The list that is being read, until it is complete.
    listing: Option<Groups<K>>,
}

impl<K: Resource> Store<K> {
    /// An empty store. `group` says which Plugin an object belongs to; objects that belong to
    /// none are passed over.
    pub fn new(group: fn(&K) -> Option<PluginKey>) -> Self {
        Self {
            inner: RwLock::new(Inner {
                groups: HashMap::new(),
                count: 0,
                listing: None,
            }),
            filled: watch::channel(false).0,
            group,
        }
    }

    /// Waits for the end of the first list.
    pub async fn filled(&self) {
        let mut filled = self.filled.subscribe();
        // The sender lives in self.
        let _ = filled.wait_for(|filled| *filled).await;
    }

    /// Every object of `plugin`, by name.
    pub fn of(&self, plugin: &PluginKey) -> Vec<Arc<K>> {
        self.read()
            .groups
            .get(plugin)
            .map(|group| group.values().cloned().collect())
            .unwrap_or_default()
    }

    /// One object of `plugin`.
    pub fn get(&self, plugin: &PluginKey, name: &str) -> Option<Arc<K>> {
        self.read().groups.get(plugin)?.get(name).cloned()
    }

    /// Every Plugin that has objects here.
    pub fn plugins(&self) -> Vec<PluginKey> {
        self.read().groups.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts in the answer of a write.
    pub fn wrote(&self, object: K) {
        let mut inner = self.write();
        self.insert(&mut inner, object);
    }

    /// Takes in an event and answers which Plugins it concerns.
    pub fn hear(&self, event: Event<K>) -> Vec<PluginKey> {
        let mut inner = self.write();
        match event {
            Event::Init => {
                inner.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(name)) = ((self.group)(&object), name(&object)) {
                    let listing = inner.listing.get_or_insert_default();
                    listing
                        .entry(key)
                        .or_default()
                        .insert(name, Arc::new(object));
                }
                Vec::new()
            }
            Event::InitDone => {
                let listed = inner.listing.take().unwrap_or_default();
                let mut concerned: HashSet<PluginKey> = listed.keys().cloned().collect();
                concerned.extend(inner.groups.keys().cloned());
                inner.count = listed.values().map(Group::len).sum();
                inner.groups = listed;
                drop(inner);
                self.filled.send_replace(true);
                concerned.into_iter().collect()
            }
            Event::Apply(object) => {
                let key = (self.group)(&object);
                self.insert(&mut inner, object);
                key.into_iter().collect()
            }
            Event::Delete(object) => {
                let (Some(key), Some(name)) = ((self.group)(&object), name(&object)) else {
                    return Vec::new();
                };
                if let Some(group) = inner.groups.get_mut(&key) {
                    // A successor of the same name may have been put in already.
                    let same = group
                        .get(&name)
                        .is_some_and(|known| known.meta().uid == object.meta().uid);
                    if same {
                        group.remove(&name);
                        if group.is_empty() {
                            inner.groups.remove(&key);
                        }
                        inner.count = inner.count.saturating_sub(1);
                    }
                }
                vec![key]
            }
        }
    }

    fn insert(&self, inner: &mut Inner<K>, object: K) {
        let (Some(key), Some(name)) = ((self.group)(&object), name(&object)) else {
            return;
        };
        let group = inner.groups.entry(key).or_default();
        if group
            .get(&name)
            .is_some_and(|known| newer(known.as_ref(), &object))
        {
            return;
        }
        if group.insert(name, Arc::new(object)).is_none() {
            inner.count += 1;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name<K: Resource>(object: &K) -> Option<String> {
    object.meta().name.clone()
}

/// Whether `known` is the same object at a later version. Versions are compared as numbers where
/// both are; anything else counts as not newer, and the event wins.
fn newer<K: Resource>(known: &K, event: &K) -> bool {
    let version = |object: &K| {
        object
            .meta()
            .resource_version
            .as_deref()
            .and_then(|v| v.parse::<u64>().ok())
    };
    known.meta().uid == event.meta().uid
        && matches!((version(known), version(event)), (Some(k), Some(e)) if k > e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
        store.get(&key(), name)?.metadata.resource_version.clone()
    }

    #[test]
    fn a_list_replaces_everything_in_one_step() {
        let store = store();
        store.hear(Event::Apply(pod("old", "1", 1)));
        store.hear(Event::Init);
        store.hear(Event::InitApply(pod("new", "2", 2)));
        assert!(
            store.get(&key(), "old").is_some(),
            "until the list is complete"
        );
        assert_eq!(store.hear(Event::InitDone), [key()]);
        assert!(store.get(&key(), "old").is_none());
        assert!(store.get(&key(), "new").is_some());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn an_old_event_does_not_undo_a_write_of_ours() {
        let store = store();
        store.hear(Event::Apply(pod("a", "1", 5)));
        store.wrote(pod("a", "1", 9));
        store.hear(Event::Apply(pod("a", "1", 7)));
        assert_eq!(version(&store, "a").as_deref(), Some("9"));
        store.hear(Event::Apply(pod("a", "1", 10)));
        assert_eq!(version(&store, "a").as_deref(), Some("10"));
    }

    #[test]
    fn the_deletion_of_a_predecessor_does_not_remove_its_successor() {
        let store = store();
        store.wrote(pod("a", "new", 9));
        store.hear(Event::Delete(pod("a", "old", 8)));
        assert!(store.get(&key(), "a").is_some());
        store.hear(Event::Delete(pod("a", "new", 10)));
        assert!(store.is_empty());
        assert!(store.plugins().is_empty());
    }

    #[tokio::test]
    async fn a_store_is_filled_after_its_first_list_even_when_it_is_empty() {
        let store = Arc::new(store());
        let waiter = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.filled().await })
        };
        store.hear(Event::Init);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        store.hear(Event::InitDone);
        waiter.await.unwrap();
    }
}
