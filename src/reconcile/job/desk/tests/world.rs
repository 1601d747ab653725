//! A small world around a desk: an API server that replaces a status only with the version in
//! force, a watch that can lag behind, and pods that take grants.

use crate::job::desk::{
    ClaimName, Desk, Heard, JobName, LedgerEntry, Limits, Outcome, PluginRefKey, PodName, Todo,
};
use crate::job::samples::now;
use crate::job::transition::{NotNow, accept, claim, release};
use jiff::{SignedDuration, Timestamp};
use patchbay_api::{Job, JobStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An answer to an ask, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted { ask: String, job: String },
    Nothing { ask: String },
}

pub(super) struct World {
    pub(super) desk: Desk,
    pub(super) now: Timestamp,
    pub(super) mono: u64,
    pub(super) version: u64,
    pub(super) jobs: BTreeMap<String, Job>,
    /// What the desk wants, not carried out yet.
    pub(super) todo: Vec<Todo>,
    pub(super) answers: Vec<Answer>,
    made: u64,
}

pub(super) fn key() -> PluginRefKey {
    PluginRefKey {
        namespace: "demo".to_owned(),
        name: "scraper".to_owned(),
    }
}

pub(super) fn granted(ask: &str, job: &str) -> Answer {
    Answer::Granted {
        ask: ask.to_owned(),
        job: job.to_owned(),
    }
}

pub(super) fn nothing(ask: &str) -> Answer {
    Answer::Nothing {
        ask: ask.to_owned(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self {
            desk: Desk::new(limits),
            now: now(),
            mono: 1_000,
            version: 100,
            jobs: BTreeMap::new(),
            todo: Vec::new(),
            answers: Vec::new(),
            made: 0,
        }
    }

    pub(super) fn hear(&mut self, heard: Heard<'_>) {
        self.desk.hear(self.now, self.mono, heard, &mut self.todo);
        self.desk.check();
    }

    /// Lets time pass on both clocks.
    pub(super) fn pass(&mut self, millis: u64) {
        self.mono += millis;
        let by = SignedDuration::from_millis(i64::try_from(millis).unwrap());
        self.now = self.now.checked_add(by).unwrap();
        self.hear(Heard::Tick);
    }

    /// A Job that exists and was accepted; the desk has not heard of it.
    pub(super) fn make(&mut self, name: &str, spec: Value) -> Job {
        self.made += 1;
        let mut value = json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
            "metadata": {
                "name": name, "namespace": "demo", "uid": format!("uid-{name}-{}", self.made),
                "generation": 1, "creationTimestamp": "2026-11-22T11:59:00Z"
            },
            "spec": {"pluginRef": {"name": "scraper"}, "command": {"name": "wget"}}
        });
        for (field, content) in spec.as_object().into_iter().flatten() {
            value["spec"][field] = content.clone();
        }
        let mut job: Job = serde_json::from_value(value).unwrap();
        job.status = accept(&job, self.now).ok();
        self.store(job)
    }

    /// A Job that the desk has heard of.
    pub(super) fn job(&mut self, name: &str, spec: Value) -> Job {
        let job = self.make(name, spec);
        self.hear(Heard::Job(&job));
        job
    }

    /// Stores whatever it is as the newest version.
    pub(super) fn store(&mut self, mut job: Job) -> Job {
        self.version += 1;
        job.metadata.resource_version = Some(self.version.to_string());
        let name = job.metadata.name.clone().unwrap();
        self.jobs.insert(name, job.clone());
        job
    }

    /// Somebody else changes a status; the desk does not hear of it.
    pub(super) fn change(
        &mut self,
        name: &str,
        change: impl FnOnce(&Job, Timestamp) -> Result<JobStatus, NotNow>,
    ) -> Job {
        let mut job = self.jobs[name].clone();
        job.status = Some(change(&job, self.now).unwrap());
        self.store(job)
    }

    pub(super) fn name(&self, name: &str) -> JobName {
        name_of(&self.jobs[name])
    }

    /// A pod with an open session of the same number as the pod.
    pub(super) fn attach(&mut self, session: u64) {
        self.attach_with(session, "epoch", &[]);
    }

    pub(super) fn attach_with(&mut self, session: u64, epoch: &str, ledger: &[ClaimName]) {
        self.hear(attached(session, epoch, ledger));
    }

    pub(super) fn ask(&mut self, session: u64, id: &str) {
        self.ask_for(session, id, None, None);
    }

    pub(super) fn ask_for(
        &mut self,
        session: u64,
        id: &str,
        location: Option<&str>,
        port: Option<&str>,
    ) {
        self.hear(Heard::Ask {
            session,
            claim_id: id.to_owned(),
            location: location.map(str::to_owned),
            port: port.map(str::to_owned),
            hold_ms: 1_000,
        });
    }

    /// The API server's part of a claim or a release.
    pub(super) fn write(&mut self, todo: &Todo) -> Outcome {
        let (job, version) = match todo {
            Todo::Claim {
                job,
                resource_version,
                ..
            }
            | Todo::Release {
                job,
                resource_version,
                ..
            } => (job, resource_version),
            other => panic!("{other:?} is no write"),
        };
        let found = self
            .jobs
            .get(&job.name)
            .filter(|found| found.metadata.uid.as_deref() == Some(job.uid.as_str()));
        let Some(found) = found.cloned() else {
            return Outcome::Lost(None);
        };
        if found.metadata.resource_version.as_ref() != Some(version) {
            return Outcome::Lost(Some(Box::new(found)));
        }
        let status = match todo {
            Todo::Claim { choice, .. } => claim(&found, choice, self.now),
            Todo::Release { claim_id, .. } => release(&found, claim_id, self.now),
            _ => return Outcome::Lost(Some(Box::new(found))),
        };
        match status {
            Ok(status) => {
                let mut won = found;
                won.status = Some(status);
                Outcome::Won(Box::new(self.store(won)))
            }
            Err(_) => Outcome::Lost(Some(Box::new(found))),
        }
    }

    /// Carries out the first thing to do.
    pub(super) fn step(&mut self) {
        let todo = self.todo.remove(0);
        match &todo {
            Todo::Claim { job, choice, .. } => {
                let outcome = self.write(&todo);
                self.tell(job, &choice.claim_id, outcome);
            }
            Todo::Release { job, claim_id, .. } => {
                let outcome = self.write(&todo);
                self.tell(job, claim_id, outcome);
            }
            Todo::Grant { claim, .. } => {
                self.answers.push(granted(&claim.claim_id, &claim.job.name))
            }
            Todo::Nothing { claim_id, .. } => self.answers.push(nothing(claim_id)),
            // What a ledger does not name in its greeting it does not know later.
            Todo::Doubt { session, claims } => {
                for claim in claims.clone() {
                    self.hear(Heard::LedgerAnswer {
                        session: *session,
                        claim,
                        known: false,
                        delivered: false,
                    });
                }
            }
            other => panic!("{other:?} was not expected"),
        }
    }

    pub(super) fn tell(&mut self, job: &JobName, claim_id: &str, outcome: Outcome) {
        self.hear(Heard::Written {
            job: job.clone(),
            claim_id: claim_id.to_owned(),
            outcome,
        });
    }

    /// Carries out everything; answers what was answered meanwhile.
    pub(super) fn run(&mut self) -> Vec<Answer> {
        while !self.todo.is_empty() {
            self.step();
        }
        std::mem::take(&mut self.answers)
    }

    /// Takes the one thing to do.
    pub(super) fn only(&mut self) -> Todo {
        assert_eq!(self.todo.len(), 1, "{:?}", self.todo);
        self.todo.remove(0)
    }

    pub(super) fn idle(&self) {
        assert_eq!(self.todo, []);
    }
}

/// Sessions 1, 101, 201 … are of the same pod.
pub(super) fn attached(session: u64, epoch: &str, ledger: &[ClaimName]) -> Heard<'static> {
    let pod = session % 100;
    Heard::Attached {
        session,
        pod: PodName {
            plugin: key(),
            pod: format!("scraper-{pod}-1"),
            uid: format!("pod-{pod}"),
        },
        ledger_epoch: epoch.to_owned(),
        ledger: ledger
            .iter()
            .map(|claim| LedgerEntry {
                claim: claim.clone(),
                delivered: true,
            })
            .collect(),
    }
}

pub(super) fn name_of(job: &Job) -> JobName {
    JobName {
        namespace: job.metadata.namespace.clone().unwrap(),
        name: job.metadata.name.clone().unwrap(),
        uid: job.metadata.uid.clone().unwrap(),
    }
}

pub(super) fn claim_of(todo: &Todo) -> (&JobName, &str, &str) {
    match todo {
        Todo::Claim {
            job,
            resource_version,
            choice,
        } => (job, resource_version, &choice.claim_id),
        other => panic!("{other:?} is no claim"),
    }
}
