//! Every Job, found by its name, by its Plugin and by its holder.
//!
//! The same promises as [`super::store`]: the answer of a write is put in at once, and an older event
//! that arrives later does not undo it. But what a list has is put in one by one, since each Job is
//! told of and woken by itself; what it lacks goes in one step. A Plugin can have ten thousand Jobs,
//! so nothing here unpacks one that nobody asked for.

use super::packed::Packed;
use crate::key::{JobKey, PluginKey};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use patchbay_reconcile::job::times;
use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// What an event, or a list, has changed.
#[derive(Debug, PartialEq)]
pub enum JobChange {
    /// This is what a Job looks like.
    Job {
        job: Box<Job>,
        /// Whether that was not known.
        news: bool,
    },
    /// The Job with this uid is gone.
    Gone {
        key: JobKey,
        /// Its uid: another of the same name may be there.
        uid: String,
    },
    /// A list of all Jobs begins; what comes until its end comes in no order.
    Listing,
    /// The list is complete.
    Listed,
}

/// All Jobs.
#[derive(Debug)]
pub struct JobStore {
    inner: RwLock<JobStoreState>,
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct JobStoreState {
    namespaces: HashMap<Box<str>, Namespace>,
    count: usize,
    /// The newest resource version that the watch has shown.
    seen: u64,
    /// Names in the list that is being read, by namespace, until it is complete.
    listing: Option<HashMap<Box<str>, HashSet<Box<str>>>>,
}

#[derive(Debug, Default)]
struct Namespace {
    jobs: HashMap<Box<str>, StoredJob>,
    /// Bytes of output outside of Jobs, of all Jobs together.
    outside: u64,
}

#[derive(Debug)]
struct StoredJob {
    packed: Packed,
    plugin: Box<str>,
    phase: Option<Phase>,
    start: Timestamp,
    /// Uid of the pod that has it now.
    holder: Option<Box<str>>,
    outside: u64,
}

impl Default for JobStore {
    fn default() -> Self {
        Self {
            inner: RwLock::default(),
            synced: watch::channel(false).0,
        }
    }
}

impl JobStore {
    /// Waits for the end of the first list.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in self.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    pub fn get(&self, key: &JobKey) -> Option<Job> {
        let inner = self.read();
        let entry = inner
            .namespaces
            .get(&*key.namespace)?
            .jobs
            .get(&*key.name)?;
        entry.packed.unpack()
    }

    /// The Jobs of `plugin` that have not ended and that nobody has, in the order of their start:
    /// they are judged in that order, and each waits for those before it.
    pub fn open_of(&self, plugin: &PluginKey) -> Vec<JobKey> {
        let inner = self.read();
        let jobs = inner.namespaces.get(&*plugin.namespace).map(|n| &n.jobs);
        let mut open: Vec<&StoredJob> = jobs
            .into_iter()
            .flat_map(HashMap::values)
            .filter(|entry| *entry.plugin == *plugin.name && entry.is_open())
            .collect();
        open.sort_by_key(|entry| (entry.start, &*entry.packed.name));
        open.into_iter()
            .map(|entry| JobKey::new(&*plugin.namespace, &*entry.packed.name))
            .collect()
    }

    /// The Jobs that the pod with this uid has.
    pub fn held_by(&self, namespace: &str, pod_uid: &str) -> Vec<JobKey> {
        self.find(namespace, |entry| entry.holder.as_deref() == Some(pod_uid))
    }

    /// Every Job that some pod has.
    pub fn held(&self) -> Vec<JobKey> {
        let namespaces: Vec<Box<str>> = self.read().namespaces.keys().cloned().collect();
        namespaces
            .iter()
            .flat_map(|namespace| self.find(namespace, |entry| entry.holder.is_some()))
            .collect()
    }

    /// Bytes of output that the Jobs of `namespace` have outside of themselves.
    pub fn output_outside(&self, namespace: &str) -> u64 {
        self.read()
            .namespaces
            .get(namespace)
            .map_or(0, |namespace| namespace.outside)
    }

    /// How many Jobs there are.
    pub fn len(&self) -> usize {
        self.read().count
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts in the answer of a write, trimmed. Whether it was news.
    pub fn record_write(&self, job: &Job) -> bool {
        let mut inner = self.write();
        // The watch has passed this version and the Job is not there: it was deleted since.
        if inner.find(job).is_none() && version(job) <= inner.seen {
            return false;
        }
        inner.insert(job)
    }

    /// Takes in an event and answers what it has changed.
    pub fn apply_event(&self, event: Event<Job>) -> Vec<JobChange> {
        let mut inner = self.write();
        match event {
            Event::Init => {
                inner.listing = Some(HashMap::new());
                vec![JobChange::Listing]
            }
            Event::InitApply(job) => {
                // At once: a reconcile that is woken by it looks here, and what was written since is newer.
                inner.insert(&job);
                inner.list(&job);
                let job = Box::new(job);
                vec![JobChange::Job { job, news: true }]
            }
            Event::InitDone => {
                let mut changes = inner.purge();
                drop(inner);
                self.synced.send_replace(true);
                changes.push(JobChange::Listed);
                changes
            }
            Event::Apply(job) => {
                inner.seen = inner.seen.max(version(&job));
                let news = inner.insert(&job);
                let job = Box::new(job);
                vec![JobChange::Job { job, news }]
            }
            Event::Delete(job) => {
                let key = key(&job);
                let uid = job.uid().unwrap_or_default();
                inner.seen = inner.seen.max(version(&job));
                inner.remove(&key, &uid);
                vec![JobChange::Gone { key, uid }]
            }
        }
    }

    fn find(&self, namespace: &str, matches: impl Fn(&StoredJob) -> bool) -> Vec<JobKey> {
        let inner = self.read();
        let Some(jobs) = inner.namespaces.get(namespace).map(|n| &n.jobs) else {
            return Vec::new();
        };
        jobs.values()
            .filter(|entry| matches(entry))
            .map(|entry| JobKey::new(namespace, &*entry.packed.name))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, JobStoreState> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, JobStoreState> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobStoreState {
    fn find(&self, job: &Job) -> Option<&StoredJob> {
        let namespace = job.metadata.namespace.as_deref()?;
        let name = job.metadata.name.as_deref()?;
        self.namespaces.get(namespace)?.jobs.get(name)
    }

    /// Puts a Job in, unless this version of it, or a newer one, is here: every write of ours
    /// comes back through the watch. Whether it was put in.
    fn insert(&mut self, job: &Job) -> bool {
        let known = self.find(job).is_some_and(|known| {
            let version = version(job);
            version != 0
                && known.packed.version >= version
                && Some(&*known.packed.uid) == job.metadata.uid.as_deref()
        });
        if known {
            return false;
        }
        let Some((namespace, entry)) = entry(job) else {
            return false;
        };
        if self.namespaces.entry(namespace).or_default().put(entry) {
            self.count += 1;
        }
        true
    }

    /// Notes that the list has it.
    fn list(&mut self, job: &Job) {
        let key = key(job);
        let listing = self.listing.get_or_insert_default();
        let names = listing.entry(key.namespace.into()).or_default();
        names.insert(key.name.into());
    }

    /// The list is complete: what it lacks is gone.
    fn purge(&mut self) -> Vec<JobChange> {
        let listed = self.listing.take().unwrap_or_default();
        let mut gone = Vec::new();
        for (namespace, known) in &self.namespaces {
            let listed = listed.get(namespace);
            for (name, entry) in &known.jobs {
                if !listed.is_some_and(|listed| listed.contains(name)) {
                    gone.push((
                        JobKey::new(&**namespace, &**name),
                        entry.packed.uid.to_string(),
                    ));
                }
            }
        }
        for (key, uid) in &gone {
            self.remove(key, uid);
        }
        let told = |(key, uid)| JobChange::Gone { key, uid };
        gone.into_iter().map(told).collect()
    }

    fn remove(&mut self, key: &JobKey, uid: &str) {
        let Some(namespace) = self.namespaces.get_mut(&*key.namespace) else {
            return;
        };
        // A successor of the same name may have been put in already.
        let matches = namespace
            .jobs
            .get(&*key.name)
            .is_some_and(|entry| *entry.packed.uid == *uid);
        if matches && let Some(entry) = namespace.jobs.remove(&*key.name) {
            namespace.outside -= entry.outside;
            self.count -= 1;
            if namespace.jobs.is_empty() {
                self.namespaces.remove(&*key.namespace);
            }
        }
    }
}

impl StoredJob {
    /// Whether it has not ended and nobody has it.
    fn is_open(&self) -> bool {
        !self.phase.is_some_and(|p| p.is_terminal() || p.is_held())
    }
}

impl Namespace {
    /// Whether the name is new.
    fn put(&mut self, entry: StoredJob) -> bool {
        self.outside += entry.outside;
        match self.jobs.insert(entry.packed.name.clone(), entry) {
            Some(before) => {
                self.outside -= before.outside;
                false
            }
            None => true,
        }
    }
}

/// The name of `job`.
pub fn key(job: &Job) -> JobKey {
    JobKey::new(job.namespace().unwrap_or_default(), job.name_any())
}

/// Its resource version; 0 where that is no number.
fn version(job: &Job) -> u64 {
    let version = job.metadata.resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn entry(job: &Job) -> Option<(Box<str>, StoredJob)> {
    let namespace = job.metadata.namespace.as_deref()?.into();
    let status = job.status.as_ref();
    let phase = status.and_then(|s| s.phase);
    let holder = status
        .filter(|_| phase.is_some_and(Phase::is_held))
        .and_then(|s| s.claim.as_ref())
        .map(|claim| claim.holder_pod_uid.as_str().into());
    let outside = status
        .and_then(|s| s.output.as_ref())
        .filter(|output| output.chunks > 0)
        .map_or(0, |output| u64::try_from(output.bytes).unwrap_or(0));
    let entry = StoredJob {
        packed: Packed::new(job)?,
        plugin: job.spec.plugin_ref.name.as_str().into(),
        phase,
        start: times::start(job),
        holder,
        outside,
    };
    Some((namespace, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    fn job(name: &str, uid: &str, version: u64, status: serde_json::Value) -> Job {
        serde_json::from_value(json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
            "metadata": {
                "namespace": "ns", "name": name, "uid": uid,
                "resourceVersion": version.to_string(),
            },
            "spec": {"pluginRef": {"name": "kv"}, "command": {"name": "echo"}},
            "status": status,
        }))
        .unwrap()
    }

    fn ready(name: &str, version: u64) -> Job {
        job(name, name, version, json!({"phase": "Ready", "attempt": 0}))
    }

    fn held(name: &str, version: u64, pod: &str) -> Job {
        let claim = json!({
            "claimId": "c", "sequence": 1, "observedResourceVersion": "1", "holderPod": "kv-0-1",
            "holderPodUID": pod, "ledgerEpoch": "e", "claimedAt": "2026-11-22T12:00:00.000000Z",
        });
        let status = json!({"phase": "Claimed", "attempt": 1, "claim": claim});
        job(name, name, version, status)
    }

    fn name(name: &str) -> JobKey {
        JobKey::new("ns", name)
    }

    #[test]
    fn an_old_event_changes_nothing() {
        let store = JobStore::default();
        assert!(store.record_write(&ready("a", 9)));
        let news = |version| {
            let changes = store.apply_event(Event::Apply(ready("a", version)));
            matches!(changes[..], [JobChange::Job { news: true, .. }])
        };
        assert!(!news(7), "older");
        assert!(!news(9), "the same");
        assert!(news(10));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn the_answer_of_a_write_does_not_bring_back_what_was_deleted_since() {
        let store = JobStore::default();
        store.apply_event(Event::Apply(ready("a", 5)));
        store.apply_event(Event::Delete(ready("a", 8)));
        assert!(!store.record_write(&held("a", 7, "pod")));
        assert!(store.is_empty());
    }

    #[test]
    fn a_list_tells_what_is_gone_and_keeps_what_was_written_since() {
        let store = JobStore::default();
        store.apply_event(Event::Apply(ready("gone", 1)));
        store.apply_event(Event::Apply(ready("again", 2)));
        store.record_write(&held("written", 9, "pod"));
        store.apply_event(Event::Init);
        store.apply_event(Event::InitApply(ready("written", 5)));
        store.apply_event(Event::InitApply(job(
            "again",
            "other",
            6,
            json!({"attempt": 0}),
        )));
        let gone = JobChange::Gone {
            key: name("gone"),
            uid: "gone".into(),
        };
        assert_eq!(
            store.apply_event(Event::InitDone),
            [gone, JobChange::Listed]
        );
        let again = store.get(&name("again")).unwrap();
        assert_eq!(again.uid().as_deref(), Some("other"));
        assert_eq!(store.held_by("ns", "pod"), [name("written")]);
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn whoever_is_woken_by_a_list_that_goes_on_finds_the_job() {
        let store = JobStore::default();
        store.apply_event(Event::Init);
        store.apply_event(Event::InitApply(ready("new", 3)));
        assert!(store.get(&name("new")).is_some());
        assert_eq!(store.apply_event(Event::InitDone), [JobChange::Listed]);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn what_is_written_while_a_list_is_read_stays() {
        let store = JobStore::default();
        store.apply_event(Event::Apply(ready("a", 1)));
        store.apply_event(Event::Apply(ready("b", 2)));
        store.apply_event(Event::Init);
        store.record_write(&held("a", 8, "pod"));
        for (name, version) in [("a", 1), ("b", 2)] {
            store.apply_event(Event::InitApply(ready(name, version)));
        }
        store.record_write(&held("b", 9, "pod"));
        assert_eq!(store.apply_event(Event::InitDone), [JobChange::Listed]);
        let version = |job| version(&store.get(&name(job)).unwrap());
        assert_eq!(["a", "b"].map(version), [8, 9]);
        assert_eq!(store.held_by("ns", "pod").len(), 2);
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn jobs_are_found_by_plugin_and_by_holder() {
        let store = JobStore::default();
        store.record_write(&ready("a", 1));
        store.record_write(&held("b", 2, "pod"));
        store.record_write(&job("c", "c", 3, json!({"phase": "Failed", "attempt": 1})));
        assert_eq!(store.open_of(&PluginKey::new("ns", "kv")), [name("a")]);
        assert!(store.open_of(&PluginKey::new("ns", "other")).is_empty());
        assert!(store.open_of(&PluginKey::new("other", "kv")).is_empty());
        assert_eq!(store.held(), [name("b")]);
        store.apply_event(Event::Delete(held("b", 4, "pod")));
        assert!(store.held_by("ns", "pod").is_empty());
    }

    #[test]
    fn the_open_jobs_of_a_plugin_come_in_the_order_of_their_start() {
        let store = JobStore::default();
        for (version, name, second) in [(1, "a", 30), (2, "b", 10), (3, "c", 20)] {
            let mut job = ready(name, version);
            job.spec.start_time = Some(MicroTime(Timestamp::from_second(second).unwrap()));
            store.record_write(&job);
        }
        assert_eq!(
            store.open_of(&PluginKey::new("ns", "kv")),
            [name("b"), name("c"), name("a")]
        );
    }

    #[test]
    fn output_outside_of_jobs_is_summed_up_by_namespace() {
        let store = JobStore::default();
        let with = |version, bytes, chunks| {
            let output = json!({"bytes": bytes, "chunks": chunks});
            let status = json!({"phase": "Succeeded", "attempt": 1, "output": output});
            job("a", "a", version, status)
        };
        store.record_write(&with(1, 100, 0));
        assert_eq!(store.output_outside("ns"), 0);
        store.record_write(&with(2, 900_000, 2));
        store.record_write(&with(3, 900_001, 2));
        assert_eq!(store.output_outside("ns"), 900_001);
        store.apply_event(Event::Delete(with(4, 900_001, 2)));
        assert_eq!(store.output_outside("ns"), 0);
        assert!(store.is_empty());
    }
}
