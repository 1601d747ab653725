//! What happens around the dispatcher.

use super::super::world::{attached, key, name_of};
use super::judge::{Asked, Judge, number};
use super::{Action, CLIENTS, NAMES, PORTS};
use crate::job::dispatch::{ClaimRef, Effect, Event, JobRef, WriteOutcome};
use crate::job::location::{Port, named_client};
use crate::job::samples::{at, choice, row};
use crate::job::transition::{
    Choice, Loss, RowOutcome, accept, cancel, claim, expire, lose, ready, refuse, resume, start,
    store_row, suspend, wait,
};
use patchbay_api::job_status::Phase;
use patchbay_api::{Job, Reason};
use serde_json::json;

impl Judge {
    fn show(&mut self, job: &Job, watch: bool) {
        let name = job.metadata.name.clone().unwrap();
        let newer = self
            .shown
            .get(&name)
            .is_none_or(|known| number(known) < number(job));
        if newer {
            self.since.insert(name.clone(), self.world.mono);
            self.in_the_way.remove(&name);
            self.shown.insert(name, job.clone());
        }
        if watch {
            self.handle(Event::Job(job));
        }
    }

    fn stored(&mut self, job: Job) {
        self.watch.push_back(Ok(job));
    }

    pub(super) fn happen(&mut self, action: &Action) {
        match action {
            Action::Make {
                name,
                client,
                port,
                start,
                expire,
                priority,
                again,
                accepted,
            } => self.make(
                NAMES[*name],
                *client,
                *port,
                *start,
                *expire,
                *priority,
                *again,
                *accepted,
            ),
            Action::Delete { name, told } => self.delete(NAMES[*name], *told),
            Action::Change { name, how } => self.change(NAMES[*name], *how),
            Action::Watch { actions } => self.catch_up(*actions),
            Action::Attach { pod, known, epoch } => self.attach(*pod, *known, *epoch),
            Action::Detach { pod } => self.detach(*pod),
            Action::WorkRequest {
                pod,
                client,
                port,
                set_claimed,
            } => self.request(*pod, CLIENTS[*client], PORTS[*port], *set_claimed),
            Action::CancelRequest { pod } => {
                let Some(session) = self.sessions.get(pod).copied() else {
                    return;
                };
                let id = self
                    .asked
                    .iter()
                    .find(|(_, request)| request.session == session)
                    .map(|(id, _)| id.clone());
                if let Some(claim_id) = id {
                    self.asked.remove(&claim_id);
                    self.handle(Event::CancelRequest { session, claim_id });
                }
            }
            Action::Release { pod } => self.release(*pod),
            Action::Do { which, lost_answer } => self.carry_out(*which, *lost_answer),
            Action::DispatchLimits { most, per_client } => {
                self.most = *most;
                self.per_client = *per_client;
                self.handle(Event::Plugin {
                    key: key(),
                    max_running: *most,
                    max_running_per_client: *per_client,
                });
            }
            Action::Time { millis, wall } => {
                self.world.mono += millis;
                let by = jiff::SignedDuration::from_millis(*wall);
                self.world.now = self.world.now.checked_add(by).unwrap();
                self.tick_after_idle();
            }
            Action::Pause { on } => {
                self.paused = *on;
                self.handle(if *on { Event::Pause } else { Event::Resume });
            }
        }
    }

    /// Lets enough time pass that nothing rests any more.
    fn tick_after_idle(&mut self) {
        if !self.resting.is_empty() {
            self.world.mono += 5_000;
            self.resting.clear();
        }
        // Requests end at this tick; the dispatcher says which.
        self.handle(Event::Tick);
    }

    #[allow(clippy::too_many_arguments)]
    fn make(
        &mut self,
        name: &str,
        client: usize,
        port: usize,
        start: i64,
        expire: Option<i64>,
        priority: i32,
        again: bool,
        accepted: bool,
    ) {
        if let Some(old) = self.world.jobs.get(name).cloned() {
            if !again {
                return;
            }
            self.watch.push_back(Err(name_of(&old)));
        }
        let seconds = self.world.now.duration_since(at(0)).as_secs();
        let start_run = at(seconds + start);
        let mut spec = json!({
            "startTime": start_run.to_string(),
            "priority": priority,
            "target": {"client": CLIENTS[client], "port": PORTS[port]},
            "deliveryPolicy": "AtLeastOnce", "backoffLimit": 9,
            "backoff": {"initialSeconds": 1, "maxSeconds": 2},
        });
        if let Some(expire) = expire {
            spec["expireTime"] = json!(at(seconds + start + expire).to_string());
        }
        let mut job = self.world.make(name, spec);
        if !accepted {
            job.status = None;
            job = self.world.store(job);
        }
        self.stored(job);
    }

    fn delete(&mut self, name: &str, told: bool) {
        if let Some(old) = self.world.jobs.remove(name) {
            self.world.version += 1;
            self.watch.push_back(Err(name_of(&old)));
            if told {
                self.catch_up(usize::MAX);
            }
        }
    }

    /// Somebody else writes.
    fn change(&mut self, name: &str, how: u8) {
        let Some(job) = self.world.jobs.get(name).cloned() else {
            return;
        };
        let now = self.world.now;
        let claimed = job
            .status
            .as_ref()
            .and_then(|status| status.claim.clone())
            .map(|claim| claim.claim_id)
            .unwrap_or_default();
        let loss = Loss {
            message: "gone".to_owned(),
            exit: None,
        };
        let done = row(1, "x", RowOutcome::Succeeded);
        self.counter += 1;
        let foreign = Choice {
            pod_uid: format!("pod-{}", self.counter % 3),
            ledger_epoch: "epoch".to_owned(),
            ..choice(&format!("foreign-{}", self.counter))
        };
        let mut changed = job.clone();
        let status = match how {
            0 => suspend(&job, now),
            1 => resume(&job, now),
            2 => cancel(&job, now),
            3 => expire(&job, now),
            4 => ready(&job, now),
            5 => lose(&job, None, &loss, now, 0.0),
            6 => store_row(&job, &claimed, &done, now, 0.0).map(|(status, _)| status),
            // The plugin begins; only what was granted is ever begun.
            7 if self.granted.contains(&claimed) => start(&job, &claimed, now),
            // Another leader.
            8 => claim(&job, &foreign, now),
            9 => accept(&job, now),
            10 => wait(&job, Reason::PluginNotReady, "not known", now),
            11 => refuse(&job, Reason::BadInputs, "no", now),
            _ => {
                changed.spec.priority += 1;
                self.world.store(changed.clone());
                let job = self.world.jobs[name].clone();
                return self.stored(job);
            }
        };
        if let Ok(status) = status {
            changed.status = Some(status);
            let stored = self.world.store(changed);
            self.stored(stored);
        }
    }

    fn catch_up(&mut self, actions: usize) {
        for _ in 0..actions.min(self.watch.len()) {
            match self.watch.pop_front() {
                Some(Ok(job)) => self.show(&job, true),
                Some(Err(gone)) => {
                    let known = self.shown.get(&gone.name);
                    if known.is_some_and(|job| job.metadata.uid.as_ref() == Some(&gone.uid)) {
                        self.shown.remove(&gone.name);
                    }
                    self.handle(Event::JobGone {
                        namespace: &gone.namespace,
                        name: &gone.name,
                        uid: &gone.uid,
                    });
                }
                None => {}
            }
        }
    }

    pub(super) fn attach(&mut self, pod: u64, known: bool, epoch: bool) {
        self.forget_asks(pod);
        self.counter += 1;
        let session = self.counter * 100 + pod;
        self.sessions.insert(pod, session);
        let uid = format!("pod-{pod}");
        let ledger: Vec<ClaimRef> = self
            .shown
            .values()
            .filter_map(|job| {
                let claim = job.status.as_ref()?.claim.as_ref()?;
                // What was begun stands in the ledger, whatever else does.
                let begun = job.status.as_ref()?.phase == Some(Phase::Running);
                (claim.holder_pod_uid == uid && (known || begun)).then(|| ClaimRef {
                    claim_id: claim.claim_id.clone(),
                    job: name_of(job),
                })
            })
            .collect();
        let epoch = if epoch { "epoch" } else { "another" };
        self.handle(attached(session, epoch, &ledger));
    }

    fn detach(&mut self, pod: u64) {
        self.forget_asks(pod);
        if let Some(session) = self.sessions.remove(&pod) {
            self.handle(Event::Detached { session });
        }
    }

    fn forget_asks(&mut self, pod: u64) {
        if let Some(session) = self.sessions.get(&pod) {
            self.asked.retain(|_, request| request.session != *session);
        }
    }

    fn request(&mut self, pod: u64, client: &str, port: &str, wait_ms: u32) {
        let Some(session) = self.sessions.get(&pod).copied() else {
            return;
        };
        self.counter += 1;
        let claim_id = format!("ask-{}", self.counter);
        let open = self
            .asked
            .values()
            .filter(|request| request.session == session)
            .count();
        if open < 4 {
            let request = Asked {
                session,
                client: named_client(client),
                port: Port::new(port),
            };
            self.asked.insert(claim_id.clone(), request);
        }
        self.handle(Event::WorkRequest {
            session,
            claim_id,
            client: Some(client.to_owned()),
            port: Some(port.to_owned()),
            wait_ms,
        });
    }

    fn release(&mut self, pod: u64) {
        let Some(session) = self.sessions.get(&pod).copied() else {
            return;
        };
        let uid = format!("pod-{pod}");
        let claim = self.shown.values().find_map(|job| {
            let status = job.status.as_ref()?;
            let claim = status.claim.as_ref()?;
            let mine = claim.holder_pod_uid == uid && status.phase == Some(Phase::Claimed);
            mine.then(|| ClaimRef {
                claim_id: claim.claim_id.clone(),
                job: name_of(job),
            })
        });
        if let Some(claim) = claim {
            self.handle(Event::ClaimReturned { session, claim });
        }
    }

    fn carry_out(&mut self, which: usize, lost_answer: bool) {
        if self.world.effects.is_empty() {
            return;
        }
        let effects = self.world.effects.remove(which % self.world.effects.len());
        match &effects {
            Effect::Claim { job, choice, .. } => {
                self.write(&effects, job, &choice.claim_id, lost_answer)
            }
            Effect::Release { job, claim_id, .. } => {
                self.write(&effects, job, claim_id, lost_answer)
            }
            Effect::Lose { job, claim_id, .. } => {
                let loss = Loss {
                    message: "lost".to_owned(),
                    exit: None,
                };
                let found = self.world.jobs.get(&job.name).cloned();
                if let Some(mut found) = found.filter(|f| f.metadata.uid.as_ref() == Some(&job.uid))
                    && let Ok(status) = lose(&found, Some(claim_id), &loss, self.world.now, 0.0)
                {
                    found.status = Some(status);
                    let stored = self.world.store(found);
                    self.stored(stored);
                }
            }
            Effect::ClaimQuery { session, claims } => {
                let session = *session;
                if self.sessions.values().all(|open| *open != session) {
                    return;
                }
                for claim in claims.clone() {
                    let known = which.is_multiple_of(2);
                    self.handle(Event::ClaimQueryReply {
                        session,
                        claim,
                        known,
                    });
                }
            }
            Effect::Grant { .. } | Effect::NoWork { .. } => {}
        }
    }

    fn write(&mut self, effects: &Effect, job: &JobRef, claim_id: &str, lost_answer: bool) {
        let mut outcome = self.world.write(effects);
        if let WriteOutcome::Applied(grant_or_release) = &outcome {
            self.stored((**grant_or_release).clone());
        }
        if lost_answer {
            // Read back: the newest view says whose it is.
            let found = self
                .world
                .jobs
                .get(&job.name)
                .filter(|found| found.metadata.uid.as_ref() == Some(&job.uid));
            outcome = WriteOutcome::Conflict(found.cloned().map(Box::new));
        }
        self.claiming
            .retain(|uid, (id, _)| !(*uid == job.uid && *id == claim_id));
        match &outcome {
            WriteOutcome::Applied(view) | WriteOutcome::Conflict(Some(view)) => {
                let name = view.metadata.name.clone().unwrap();
                let known = self
                    .shown
                    .get(&name)
                    .filter(|known| known.metadata.uid == view.metadata.uid)
                    .cloned();
                // A view of a Job that the dispatcher does not know says nothing to it.
                if let Some(known) = known {
                    let view = (**view).clone();
                    self.show(&view, false);
                    let after = self.shown[&name].metadata.resource_version.clone();
                    if let Effect::Claim {
                        resource_version, ..
                    } = effects
                        && known.metadata.resource_version == after
                        && after.as_ref() == Some(resource_version)
                    {
                        self.resting.insert(job.uid.clone(), after);
                    }
                }
            }
            WriteOutcome::Conflict(None) => {
                let known = self.shown.get(&job.name);
                if known.is_some_and(|known| known.metadata.uid.as_ref() == Some(&job.uid)) {
                    self.shown.remove(&job.name);
                }
            }
            WriteOutcome::Refused(_) => {}
        }
        self.tell(job, claim_id, outcome);
    }

    fn tell(&mut self, job: &JobRef, claim_id: &str, outcome: WriteOutcome) {
        self.handle(Event::WriteFinished {
            job: job.clone(),
            claim_id: claim_id.to_owned(),
            outcome,
        });
    }
}

impl Judge {
    /// When everything is over nothing is left.
    pub(super) fn finish_run(&mut self) {
        self.paused = false;
        self.handle(Event::Resume);
        for _ in 0..10_000 {
            if self.world.effects.is_empty() && self.watch.is_empty() {
                break;
            }
            self.carry_out(0, false);
            self.catch_up(1);
        }
        assert_eq!(
            self.world.effects,
            [],
            "the dispatcher does not come to rest"
        );
        for pod in 0..3 {
            self.detach(pod);
        }
        for name in NAMES {
            self.delete(name, true);
        }
        self.carry_out(0, false);
        self.world.dispatcher.is_empty();
    }
}
