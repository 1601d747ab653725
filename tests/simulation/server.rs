//! The API server: objects with resource versions, replaces with a precondition, and the log that
//! watches are fed from. What it commits the judge sees.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use patchbay_api::job::{Backoff, DeliveryPolicy, OutputPolicy, PluginRef, Target};
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::{Job, JobSpec, JobStatus};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

pub const NAMESPACE: &str = "ns";
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

#[derive(Default)]
pub struct Server {
    pub version: u64,
    uids: u64,
    pub objects: BTreeMap<u32, Arc<Job>>,
    pub log: VecDeque<Entry>,
    /// Position of the first entry that is still in the log.
    pub first: u64,
    /// Owners of JobOutput objects by their names.
    pub outputs: HashMap<String, String>,
    pub writes: u64,
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
        let mut job = Job::new(&job_name(name), spec);
        self.uids += 1;
        job.metadata.namespace = Some(NAMESPACE.to_owned());
        job.metadata.uid = Some(format!("uid-{}", self.uids));
        job.metadata.generation = Some(1);
        // Whole seconds, as in the API.
        let second = (BASE + now as i64).div_euclid(1_000_000) * 1_000_000;
        job.metadata.creation_timestamp = Some(Time(timestamp(second)));
        self.put(name, job)
    }

    fn put(&mut self, name: u32, mut job: Job) -> Arc<Job> {
        self.version += 1;
        job.metadata.resource_version = Some(self.version.to_string());
        let job = Arc::new(job);
        self.objects.insert(name, job.clone());
        self.log.push_back(Entry::Put(name, job.clone()));
        job
    }

    /// Deletes a Job; what it owns goes some time later, see [`Server::collect`].
    pub fn delete(&mut self, name: u32) -> Option<Arc<Job>> {
        let job = self.objects.remove(&name)?;
        self.version += 1;
        let uid = uid_of(&job).to_owned();
        self.log.push_back(Entry::ProcessGone {
            name,
            uid,
            version: self.version,
        });
        Some(job)
    }

    /// The garbage collector takes what the Job with this uid owned.
    pub fn collect(&mut self, uid: &str) {
        self.outputs.retain(|_, owner| owner != uid);
    }

    /// A user changes a spec or an annotation.
    pub fn edit(&mut self, name: u32, change: impl FnOnce(&mut Job)) -> Option<Commit> {
        let before = self.objects.get(&name)?.clone();
        let mut job = (*before).clone();
        change(&mut job);
        job.metadata.generation = job.metadata.generation.map(|n| n + 1);
        let after = self.put(name, job);
        Some(Commit { before, after })
    }

    pub fn suspend(&mut self, name: u32, suspend: bool) -> Option<Commit> {
        self.edit(name, |job| job.spec.suspend = suspend)
    }

    pub fn cancel(&mut self, name: u32) -> Option<Commit> {
        self.edit(name, |job| {
            let annotations = job.metadata.annotations.get_or_insert_default();
            annotations.insert(CANCEL_ANNOTATION.to_owned(), "somebody".to_owned());
        })
    }

    /// Carries out a request.
    pub fn serve(&mut self, call: Call) -> (Reply, Option<Commit>) {
        match call {
            Call::Get { name } => (Reply::Read(self.objects.get(&name).cloned()), None),
            Call::Store { object, uid } => {
                // One of a deleted Job of the same name is deleted by its uid and made anew.
                self.outputs.insert(object, uid);
                (Reply::Stored, None)
            }
            Call::Put {
                name,
                uid,
                version,
                status,
            } => {
                let Some(before) = self.objects.get(&name).cloned() else {
                    return (Reply::ProcessGone, None);
                };
                if uid_of(&before) != uid || version_of(&before) != version {
                    return (Reply::Conflict, None);
                }
                self.writes += 1;
                let job = Job {
                    metadata: before.metadata.clone(),
                    spec: before.spec.clone(),
                    status: Some(*status),
                };
                let after = self.put(name, job);
                (
                    Reply::Written(after.clone()),
                    Some(Commit { before, after }),
                )
            }
        }
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
