//! An API server of Jobs in memory, with faults on demand, and everything around it that the tests
//! of the dispatcher need.

use super::job_feed::{WatchEvent, feed};
use super::messages::Holder;
use super::session_registry::{Inbox, SessionRegistry, open_registry};
use super::{Concurrency, JobContext, JobSettings};
use crate::clock::WallClock;
use crate::events::recorder;
use crate::key::{JobKey, PluginKey};
use crate::queue::WorkQueue;
use crate::watch::Stores;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use patchbay_api::{Job, JobStatus};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out and the answer is lost.
    Lost,
    /// It is not carried out, and nobody can tell.
    Never,
    /// It is not carried out now, but right before the next request.
    Later,
    /// Somebody else's write comes before.
    Raced,
    /// The Job is deleted before.
    Deleted,
    /// The answer is this code, and nothing is carried out.
    Code(u16),
}

#[derive(Default)]
struct State {
    version: u64,
    objects: HashMap<String, Value>,
    faults: VecDeque<Fault>,
    late: Option<(Method, String, Value)>,
    log: Vec<String>,
}

/// The API server.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Ok::<_, Infallible>(this.serve(&head.method, head.uri.path(), body))
            }
        });
        Client::new(service, "default")
    }

    /// The next writes go wrong like this.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap().faults.extend(faults);
    }

    /// Creates or changes an object as somebody else.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.0.lock().unwrap().put(path, object)
    }

    pub(crate) fn delete(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Verb and path of every request since the last time.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }

    fn serve(&self, method: &Method, path: &str, body: Value) -> Response<Body> {
        let mut state = self.0.lock().unwrap();
        let short = path.rsplit("/v1alpha1/namespaces/ns/").next().unwrap();
        state.log.push(format!("{method} {short}"));
        if let Some((method, path, body)) = state.late.take() {
            state.carry_out(&method, &path, body);
        }
        let fault = match *method {
            Method::GET => None,
            _ => state.faults.pop_front(),
        };
        let (code, answer) = match fault {
            None => state.carry_out(method, path, body),
            Some(Fault::Lost) => {
                state.carry_out(method, path, body);
                (500, Value::Null)
            }
            Some(Fault::Never) => (504, Value::Null),
            Some(Fault::Later) => {
                state.late = Some((method.clone(), path.to_owned(), body));
                (500, Value::Null)
            }
            Some(Fault::Raced) => {
                let object = object_path(path);
                let racer = state.objects.get(object).cloned().unwrap();
                state.put(object, racer);
                state.carry_out(method, path, body)
            }
            Some(Fault::Deleted) => {
                state.objects.remove(object_path(path));
                state.carry_out(method, path, body)
            }
            Some(Fault::Code(code)) => (code, Value::Null),
        };
        let answer = if code < 300 {
            answer
        } else {
            json!({"kind": "Status", "status": "Failure", "code": code, "message": "as ordered"})
        };
        Response::builder()
            .status(StatusCode::from_u16(code).unwrap())
            .body(Body::from(serde_json::to_vec(&answer).unwrap()))
            .unwrap()
    }
}

fn object_path(path: &str) -> &str {
    path.strip_suffix("/status").unwrap_or(path)
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let name = path.rsplit('/').next().unwrap();
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), "ns".into());
        meta.insert("resourceVersion".into(), self.version.to_string().into());
        let uid = json!(format!("uid-{}", self.version));
        meta.entry("uid").or_insert(uid);
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn carry_out(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let object = object_path(path);
        match *method {
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return (409, Value::Null);
                }
                (201, self.put(&path, body))
            }
            Method::GET => match self.objects.get(path) {
                Some(found) => (200, found.clone()),
                None => (404, Value::Null),
            },
            Method::DELETE => {
                let uid = &body["preconditions"]["uid"];
                match self.objects.get(path) {
                    Some(found) if uid.is_null() || found["metadata"]["uid"] == *uid => {
                        let gone = self.objects.remove(path);
                        (200, gone.unwrap())
                    }
                    Some(_) => (409, Value::Null),
                    None => (404, Value::Null),
                }
            }
            Method::PUT => match self.objects.get(object).cloned() {
                None => (404, Value::Null),
                Some(found)
                    if found["metadata"]["uid"] != body["metadata"]["uid"]
                        || found["metadata"]["resourceVersion"]
                            != body["metadata"]["resourceVersion"] =>
                {
                    (409, Value::Null)
                }
                Some(mut found) => {
                    assert!(path.ends_with("/status"), "only statuses are replaced");
                    found["status"] = body["status"].clone();
                    (200, self.put(object, found))
                }
            },
            _ => (405, Value::Null),
        }
    }
}

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
