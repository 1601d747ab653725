//! Everything around the dispatcher that its tests need, over the API server in memory.

use super::messages::Holder;
use super::session_registry::{Inbox, SessionRegistry, open_registry};
use super::{Concurrency, JobContext, JobSettings};
use crate::clock::WallClock;
use crate::events::recorder;
use crate::key::{JobKey, PluginKey};
use crate::queue::WorkQueue;
use crate::watch::Stores;
use crate::watch::job_feed::{WatchEvent, feed};
use patchbay_api::{Job, JobStatus};
use patchbay_fake_api::FakeApi;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Path of the Job `name`.
pub(crate) fn job_path(name: &str) -> String {
    format!("/apis/patchbay.dev/v1alpha1/namespaces/ns/jobs/{name}")
}

/// Path of a chunk.
pub(crate) fn chunk_path(name: &str) -> String {
    format!("/apis/patchbay.dev/v1alpha1/namespaces/ns/joboutputs/{name}")
}

/// The dispatcher over such an API server.
pub(crate) struct Harness {
    pub(crate) api: FakeApi,
    pub(crate) jobs: Arc<JobContext>,
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) inbox: Option<Inbox>,
    pub(crate) seen: Option<mpsc::Receiver<WatchEvent>>,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with(JobSettings {
            namespace_output: 1 << 30,
        })
    }

    pub(crate) fn with(settings: JobSettings) -> Self {
        let api = FakeApi::default();
        let (feed, seen) = feed();
        let (sessions, inbox) = open_registry(Arc::default());
        let client = api.client();
        let (events, _told) = recorder(client.clone(), "test");
        let jobs = JobContext {
            client,
            stores: Arc::new(Stores::default()),
            queue: Arc::new(WorkQueue::new(Duration::ZERO)),
            feed,
            sessions: Arc::clone(&sessions),
            events,
            metrics: Arc::default(),
            wall: WallClock::default(),
            clock: Arc::default(),
            settings,
            inspector: Arc::default(),
            concurrency: Concurrency::default(),
        };
        Self {
            api,
            jobs: Arc::new(jobs),
            sessions,
            inbox: Some(inbox),
            seen: Some(seen),
        }
    }

    /// Creates the Job and shows it to the store, as the watch does.
    pub(crate) fn add(&self, name: &str, spec: Value, status: Option<Value>) -> Job {
        let mut object = json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
            "metadata": {"creationTimestamp": "2026-11-22T12:00:00Z"}, "spec": spec,
        });
        if let Some(status) = status {
            object["status"] = status;
        }
        let job: Job = serde_json::from_value(self.api.put(&job_path(name), object)).unwrap();
        self.jobs.stores.jobs.record_write(&job);
        job
    }

    /// Says that the lists of every kind are complete.
    pub(crate) fn fill(&self) {
        use kube::runtime::watcher::Event;
        let stores = &self.jobs.stores;
        let jobs: Vec<Job> = ["a", "b", "c"]
            .iter()
            .filter_map(|n| self.stored(n))
            .collect();
        stores.jobs.apply_event(Event::Init);
        for job in jobs {
            stores.jobs.apply_event(Event::InitApply(job));
        }
        stores.jobs.apply_event(Event::InitDone);
        macro_rules! empty {
            ($($store:ident),*) => {$(
                stores.$store.apply_event(&Event::Init);
                stores.$store.apply_event(&Event::InitDone);
            )*};
        }
        empty!(plugins, pods, services, policies);
    }

    /// The Job as the API server has it.
    pub(crate) fn job(&self, name: &str) -> Job {
        serde_json::from_value(self.api.get(&job_path(name)).unwrap()).unwrap()
    }

    pub(crate) fn status(&self, name: &str) -> JobStatus {
        self.job(name).status.unwrap()
    }

    /// The Job as the store has it.
    pub(crate) fn stored(&self, name: &str) -> Option<Job> {
        self.jobs.stores.jobs.get(&JobKey::new("ns", name))
    }
}

/// A spec without anything special.
pub(crate) fn spec() -> Value {
    json!({"pluginRef": {"name": "kv"}, "command": {"name": "echo"}})
}

/// A status that can be claimed.
pub(crate) fn ready() -> Value {
    let accepted = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    });
    json!({"phase": "Ready", "attempt": 0, "conditions": [accepted]})
}

/// A status that says that [`holder`] has it by this claim.
pub(crate) fn claimed(claim_id: &str) -> Value {
    let mut status = ready();
    status["phase"] = "Claimed".into();
    status["attempt"] = 1.into();
    status["claim"] = json!({
        "claimId": claim_id, "sequence": 1, "observedResourceVersion": "1",
        "holderPod": "kv-0-1", "holderPodUID": "pod-uid", "ledgerEpoch": "e",
        "claimedAt": "2026-11-22T12:00:01.000000Z",
    });
    status
}

/// The pod of the tests.
pub(crate) fn holder() -> Holder {
    Holder {
        plugin: PluginKey::new("ns", "kv"),
        pod: "kv-0-1".into(),
        uid: "pod-uid".into(),
    }
}
