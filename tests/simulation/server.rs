//! The API server in memory that the operator's unit tests have too, as Jobs: what it commits the judge
//! sees, and the log feeds watches.

use http::Method;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use patchbay_api::job::{Backoff, DeliveryPolicy, OutputPolicy, PluginRef, Target};
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::{Job, JobSpec, JobStatus};
use patchbay_fake_api::{Answer, ApiRequest, ApiServer, Change};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub const NAMESPACE: &str = "ns";
const COLLECTION: &str = "/apis/patchbay.dev/v1alpha1/namespaces/ns/jobs";
const OUTPUTS: &str = "/apis/patchbay.dev/v1alpha1/namespaces/ns/joboutputs";
/// The moment at which every run begins, in microseconds since 1970.
pub const BASE: i64 = 1_800_000_000_000_000;

/// A Job as somebody wants it. Times are moments of the run in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub plugin: usize,
    pub location: String,
    pub port: String,
    pub start: Option<u64>,
    pub expire: Option<u64>,
    pub priority: i32,
    pub at_least_once: bool,
    pub backoff_limit: i32,
    pub deadline_s: Option<i32>,
    pub suspend: bool,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    Put(u32, Arc<Job>),
    ProcessGone {
        name: u32,
        uid: String,
        version: u64,
    },
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Call {
    Put {
        name: u32,
        uid: String,
        version: u64,
        status: Box<JobStatus>,
    },
    Get {
        name: u32,
    },
    /// Creates one JobOutput object that the Job with this uid owns.
    Store {
        object: String,
        uid: String,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Written(Arc<Job>),
    Conflict,
    ProcessGone,
    Read(Option<Arc<Job>>),
    Stored,
    /// None came, or one that says nothing.
    Unknown,
}

/// What a request has changed.
pub struct Commit {
    pub before: Arc<Job>,
    pub after: Arc<Job>,
}

/// The API server in memory, what it has as Jobs, and what it tells watches.
#[derive(Default)]
pub struct Server {
    api: ApiServer,
    pub objects: BTreeMap<u32, Arc<Job>>,
    pub log: VecDeque<Entry>,
    /// Position of the first entry that is still in the log.
    pub first: u64,
}

pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

fn micro(at: u64) -> MicroTime {
    MicroTime(timestamp(BASE + at as i64))
}

pub fn job_name(name: u32) -> String {
    format!("job-{name:05}")
}

fn path_of(name: u32) -> String {
    format!("{COLLECTION}/{}", job_name(name))
}

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("it is JSON")
}

/// Uid of the owner of an object.
fn owner(object: &Value) -> Option<&str> {
    object["metadata"]["ownerReferences"][0]["uid"].as_str()
}

/// The number in the name of a Job.
pub fn number(name: &str) -> u32 {
    name.strip_prefix("job-")
        .and_then(|n| n.parse().ok())
        .unwrap_or(u32::MAX)
}

pub fn plugin_name(plugin: usize) -> String {
    format!("plugin-{plugin}")
}

pub fn version_of(job: &Job) -> u64 {
    job.metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

pub fn uid_of(job: &Job) -> &str {
    job.metadata.uid.as_deref().unwrap_or_default()
}

impl Server {
    pub fn create(&mut self, name: u32, now: u64, plan: &Plan) -> Arc<Job> {
        let spec = JobSpec {
            plugin_ref: PluginRef {
                name: plugin_name(plan.plugin),
            },
            command: None,
            call: None,
            target: Target {
                client: plan.location.clone(),
                port: plan.port.clone(),
                optional: Default::default(),
            },
            start_time: plan.start.map(micro),
            expire_time: plan.expire.map(micro),
            suspend: plan.suspend,
            priority: plan.priority,
            active_deadline_seconds: plan.deadline_s,
            ttl_seconds_after_finished: None,
            backoff_limit: plan.backoff_limit,
            backoff: Backoff {
                initial_seconds: 1,
                max_seconds: 2,
            },
            delivery_policy: match plan.at_least_once {
                true => DeliveryPolicy::AtLeastOnce,
                false => DeliveryPolicy::AtMostOnce,
            },
            output_policy: OutputPolicy {
                inline_max_bytes: 64,
                max_bytes: 1 << 20,
            },
        };
        // Whole seconds, as in the API.
        let second = (BASE + now as i64).div_euclid(1_000_000) * 1_000_000;
        self.api.now = timestamp(second).to_string();
        let job = Job::new(&job_name(name), spec);
        let (answer, change) = self.request(Method::POST, COLLECTION, json_of(&job));
        assert_eq!(answer.code, 201, "{}", answer.body);
        self.keep(change).expect("it is new").after
    }

    fn request(&mut self, method: Method, path: &str, body: Value) -> (Answer, Option<Change>) {
        let path = path.to_owned();
        self.api.handle(ApiRequest { method, path, body })
    }

    /// Reads what has changed in a Job, for the judge and for watches.
    fn keep(&mut self, change: Option<Change>) -> Option<Commit> {
        let object = change?.after?;
        let job = Arc::new(Job::deserialize(&*object).expect("a Job"));
        let name = number(job.metadata.name.as_deref().unwrap_or_default());
        let before = self.objects.insert(name, job.clone());
        self.log.push_back(Entry::Put(name, job.clone()));
        Some(Commit {
            before: before.unwrap_or_else(|| job.clone()),
            after: job,
        })
    }

    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.api.version()
    }

    /// Uid of the Job that owns this JobOutput object.
    pub fn owner_of_output(&self, name: &str) -> Option<&str> {
        owner(self.api.get(&format!("{OUTPUTS}/{name}"))?)
    }

    /// Deletes a Job; what it owns goes some time later, see [`Server::collect`].
    pub fn delete(&mut self, name: u32) -> Option<Arc<Job>> {
        let version = self.api.remove(&path_of(name))?.version;
        let job = self.objects.remove(&name)?;
        let uid = uid_of(&job).to_owned();
        self.log
            .push_back(Entry::ProcessGone { name, uid, version });
        Some(job)
    }

    /// The garbage collector takes what the Job with this uid owned.
    pub fn collect(&mut self, uid: &str) {
        let outputs = self.api.list(OUTPUTS);
        let owned = outputs.filter(|(_, object)| owner(object) == Some(uid));
        let paths: Vec<String> = owned.map(|(path, _)| path.clone()).collect();
        for path in paths {
            self.api.remove(&path);
        }
    }

    /// A user patches a Job. Nothing when that changes nothing.
    fn patch(&mut self, name: u32, patch: Value) -> Option<Commit> {
        let (_, change) = self.request(Method::PATCH, &path_of(name), patch);
        self.keep(change)
    }

    pub fn suspend(&mut self, name: u32, suspend: bool) -> Option<Commit> {
        self.patch(name, json!({"spec": {"suspend": suspend}}))
    }

    pub fn cancel(&mut self, name: u32) -> Option<Commit> {
        let annotations = json!({CANCEL_ANNOTATION: "somebody"});
        self.patch(name, json!({"metadata": {"annotations": annotations}}))
    }

    /// Carries out a request.
    pub fn serve(&mut self, call: Call) -> (Reply, Option<Commit>) {
        match call {
            Call::Get { name } => {
                let (answer, _) = self.request(Method::GET, &path_of(name), Value::Null);
                let job = self.objects.get(&name).filter(|_| answer.code == 200);
                (Reply::Read(job.cloned()), None)
            }
            Call::Store { object, uid } => (self.store(&object, &uid), None),
            Call::Put {
                name,
                uid,
                version,
                status,
            } => {
                let body = json!({
                    "metadata": {"uid": uid, "resourceVersion": version.to_string()},
                    "status": json_of(&*status),
                });
                let path = path_of(name) + "/status";
                let (answer, change) = self.request(Method::PUT, &path, body);
                let commit = self.keep(change);
                let reply = match answer.code {
                    200 => Reply::Written(self.objects[&name].clone()),
                    404 => Reply::ProcessGone,
                    409 => Reply::Conflict,
                    _ => Reply::Unknown,
                };
                (reply, commit)
            }
        }
    }

    /// Creates a JobOutput object. One of a deleted Job of the same name makes room.
    fn store(&mut self, name: &str, uid: &str) -> Reply {
        let body = json!({"metadata": {"name": name, "ownerReferences": [{"uid": uid}]}});
        let (answer, _) = self.request(Method::POST, OUTPUTS, body.clone());
        if answer.code == 409 && self.owner_of_output(name) != Some(uid) {
            self.api.remove(&format!("{OUTPUTS}/{name}"));
            self.request(Method::POST, OUTPUTS, body);
        }
        Reply::Stored
    }

    pub fn end_of_log(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Forgets what everybody has read.
    pub fn trim(&mut self, read: u64) {
        while self.first < read && self.log.pop_front().is_some() {
            self.first += 1;
        }
    }
}
