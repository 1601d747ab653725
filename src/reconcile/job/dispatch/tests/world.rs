//! A small world around a dispatcher: an API server that replaces a status only with the version in
//! force, a watch that can lag behind, and pods that take grants.

use crate::job::dispatch::{
    ClaimRef, DialedPod, DispatchLimits, Dispatcher, Effect, Event, JobRef, PluginRefKey,
    WriteOutcome,
};
use crate::job::samples::now;
use crate::job::transition::{NotNow, accept, claim, release};
use jiff::{SignedDuration, Timestamp};
use patchbay_api::{Job, JobStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An answer to a request, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted { request: String, job: String },
    NoWork { request: String },
}

pub(super) struct World {
    pub(super) dispatcher: Dispatcher,
    pub(super) now: Timestamp,
    pub(super) mono: u64,
    pub(super) version: u64,
    pub(super) jobs: BTreeMap<String, Job>,
    /// What the dispatcher wants, not carried out yet.
    pub(super) effects: Vec<Effect>,
    pub(super) answers: Vec<Answer>,
    made: u64,
}

pub(super) fn key() -> PluginRefKey {
    PluginRefKey {
        namespace: "demo".to_owned(),
        name: "scraper".to_owned(),
    }
}

pub(super) fn granted(request: &str, job: &str) -> Answer {
    Answer::Granted {
        request: request.to_owned(),
        job: job.to_owned(),
    }
}

pub(super) fn answer_no_work(request: &str) -> Answer {
    Answer::NoWork {
        request: request.to_owned(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(DispatchLimits::default())
    }

    pub(super) fn with(limits: DispatchLimits) -> Self {
        Self {
            dispatcher: Dispatcher::new(limits),
            now: now(),
            mono: 1_000,
            version: 100,
            jobs: BTreeMap::new(),
            effects: Vec::new(),
            answers: Vec::new(),
            made: 0,
        }
    }

    pub(super) fn handle(&mut self, event: Event<'_>) {
        self.dispatcher
            .handle(self.now, self.mono, event, &mut self.effects);
        self.dispatcher.check();
    }

    /// Lets time pass on both clocks.
    pub(super) fn pass(&mut self, millis: u64) {
        self.mono += millis;
        let by = SignedDuration::from_millis(i64::try_from(millis).unwrap());
        self.now = self.now.checked_add(by).unwrap();
        self.handle(Event::Tick);
    }

    /// A Job that exists and was accepted; the dispatcher has not heard of it.
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

    /// A Job that the dispatcher has heard of.
    pub(super) fn job(&mut self, name: &str, spec: Value) -> Job {
        let job = self.make(name, spec);
        self.handle(Event::Job(&job));
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

    /// Somebody else changes a status; the dispatcher does not hear of it.
    pub(super) fn change(
        &mut self,
        name: &str,
        change: impl FnOnce(&Job, Timestamp) -> Result<JobStatus, NotNow>,
    ) -> Job {
        let mut job = self.jobs[name].clone();
        job.status = Some(change(&job, self.now).unwrap());
        self.store(job)
    }

    pub(super) fn name(&self, name: &str) -> JobRef {
        name_of(&self.jobs[name])
    }

    /// A pod with an open session of the same number as the pod.
    pub(super) fn attach(&mut self, session: u64) {
        self.attach_with(session, "epoch", &[]);
    }

    pub(super) fn attach_with(&mut self, session: u64, epoch: &str, ledger: &[ClaimRef]) {
        self.handle(attached(session, epoch, ledger));
    }

    pub(super) fn request(&mut self, session: u64, id: &str) {
        self.request_for(session, id, None, None);
    }

    pub(super) fn request_for(
        &mut self,
        session: u64,
        id: &str,
        client: Option<&str>,
        port: Option<&str>,
    ) {
        self.handle(Event::WorkRequest {
            session,
            claim_id: id.to_owned(),
            client: client.map(str::to_owned),
            port: port.map(str::to_owned),
            wait_ms: 1_000,
        });
    }

    /// The API server's part of a claim or a release.
    pub(super) fn write(&mut self, effects: &Effect) -> WriteOutcome {
        let (job, version) = match effects {
            Effect::Claim {
                job,
                resource_version,
                ..
            }
            | Effect::Release {
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
            return WriteOutcome::Conflict(None);
        };
        if found.metadata.resource_version.as_ref() != Some(version) {
            return WriteOutcome::Conflict(Some(Box::new(found)));
        }
        let status = match effects {
            Effect::Claim { choice, .. } => claim(&found, choice, self.now),
            Effect::Release { claim_id, .. } => release(&found, claim_id, self.now),
            _ => return WriteOutcome::Conflict(Some(Box::new(found))),
        };
        match status {
            Ok(status) => {
                let mut grant_or_release = found;
                grant_or_release.status = Some(status);
                WriteOutcome::Applied(Box::new(self.store(grant_or_release)))
            }
            Err(_) => WriteOutcome::Conflict(Some(Box::new(found))),
        }
    }

    /// Carries out the first thing to do.
    pub(super) fn step(&mut self) {
        let effects = self.effects.remove(0);
        match &effects {
            Effect::Claim { job, choice, .. } => {
                let outcome = self.write(&effects);
                self.tell(job, &choice.claim_id, outcome);
            }
            Effect::Release { job, claim_id, .. } => {
                let outcome = self.write(&effects);
                self.tell(job, claim_id, outcome);
            }
            Effect::Grant { claim, .. } => {
                self.answers.push(granted(&claim.claim_id, &claim.job.name))
            }
            Effect::NoWork { claim_id, .. } => self.answers.push(answer_no_work(claim_id)),
            // What a ledger does not name in its greeting it does not know later.
            Effect::ClaimQuery { session, claims } => {
                for claim in claims.clone() {
                    self.handle(Event::ClaimQueryReply {
                        session: *session,
                        claim,
                        known: false,
                    });
                }
            }
            other => panic!("{other:?} was not expected"),
        }
    }

    pub(super) fn tell(&mut self, job: &JobRef, claim_id: &str, outcome: WriteOutcome) {
        self.handle(Event::WriteFinished {
            job: job.clone(),
            claim_id: claim_id.to_owned(),
            outcome,
        });
    }

    /// Carries out everything; answers what was answered meanwhile.
    pub(super) fn run(&mut self) -> Vec<Answer> {
        while !self.effects.is_empty() {
            self.step();
        }
        std::mem::take(&mut self.answers)
    }

    /// Takes the one thing to do.
    pub(super) fn only(&mut self) -> Effect {
        assert_eq!(self.effects.len(), 1, "{:?}", self.effects);
        self.effects.remove(0)
    }

    pub(super) fn idle(&self) {
        assert_eq!(self.effects, []);
    }
}

/// Sessions 1, 101, 201 … are of the same pod.
pub(super) fn attached(session: u64, epoch: &str, ledger: &[ClaimRef]) -> Event<'static> {
    let pod = session % 100;
    Event::Attached {
        session,
        pod: DialedPod {
            plugin: key(),
            pod: format!("scraper-{pod}-1"),
            uid: format!("pod-{pod}"),
        },
        ledger_epoch: epoch.to_owned(),
        ledger: ledger.iter().map(|claim| claim.claim_id.clone()).collect(),
    }
}

pub(super) fn name_of(job: &Job) -> JobRef {
    JobRef {
        namespace: job.metadata.namespace.clone().unwrap(),
        name: job.metadata.name.clone().unwrap(),
        uid: job.metadata.uid.clone().unwrap(),
    }
}

pub(super) fn claim_of(effects: &Effect) -> (&JobRef, &str, &str) {
    match effects {
        Effect::Claim {
            job,
            resource_version,
            choice,
        } => (job, resource_version, &choice.claim_id),
        other => panic!("{other:?} is no claim"),
    }
}
