//! How writes ended.

use super::Dispatcher;
use super::entry::{JobState, NEVER, NO_BUCKET, Observation, PendingClaim, Recovery};
use super::event::{ClaimRef, Effect, JobRef, WriteOutcome};
use super::jobs::version;
use patchbay_api::Job;

/// Milliseconds until a write that was refused, or that fails without any news, is tried again.
const RETRY_DELAY_MS: u64 = 5_000;

impl Dispatcher {
    /// A claim or a release was written, or not.
    pub(super) fn handle_write_result(
        &mut self,
        job: &JobRef,
        claim_id: &str,
        outcome: WriteOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.find(job) else {
            return self.orphaned_claim_written(job, claim_id, &outcome, effects);
        };
        match &self.jobs.entries[id].state {
            JobState::Claiming(pending) if *pending.claim_id == *claim_id => {
                let state =
                    std::mem::replace(&mut self.jobs.entries[id].state, JobState::Ineligible);
                if let JobState::Claiming(pending) = state {
                    self.claim_written(id, *pending, outcome, effects);
                }
            }
            JobState::Claimed(active)
                if *active.claim_id == *claim_id && active.task == Recovery::Releasing =>
            {
                self.release_written(id, outcome, effects);
            }
            // Somebody else has the job by now, or a orphaned claim had the claim.
            _ => {
                self.orphaned_claim_written(job, claim_id, &outcome, effects);
                if let WriteOutcome::Applied(job) | WriteOutcome::Conflict(Some(job)) = outcome {
                    self.handle_job(&job, false, effects);
                }
            }
        }
    }

    /// A claim was written for a Job that is gone.
    fn orphaned_claim_written(
        &mut self,
        job: &JobRef,
        claim_id: &str,
        outcome: &WriteOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let key = (job.uid.as_str().into(), claim_id.into());
        let Some((queue, pending)) = self.orphaned_claims.remove(&key) else {
            return;
        };
        self.finish_claim(queue, &pending);
        if let Some(request) = pending.request {
            match outcome {
                WriteOutcome::Conflict(_) => self.enqueue_request(request),
                // The id of this request stands in a status, or the next write is refused as well.
                WriteOutcome::Applied(_) | WriteOutcome::Refused(_) => {
                    self.answer_no_work(request, effects)
                }
            }
        }
    }

    fn claim_written(
        &mut self,
        id: u32,
        mut pending: PendingClaim,
        outcome: WriteOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let queue = self.jobs.entries[id].queue;
        self.finish_claim(queue, &pending);
        pending.client = NO_BUCKET;
        let (grant_or_release, view) = match outcome {
            WriteOutcome::Applied(job) => (true, job),
            WriteOutcome::Conflict(Some(job)) => (false, job),
            WriteOutcome::Conflict(None) => {
                self.forget(id);
                if let Some(request) = pending.request {
                    self.enqueue_request(request);
                }
                return;
            }
            WriteOutcome::Refused(_) => {
                self.retry_later(id, pending.observation, effects);
                if let Some(request) = pending.request {
                    self.answer_no_work(request, effects);
                }
                return;
            }
        };
        let observation = self.newest(id, &view, pending.observation);
        if observation.is_claimed_by(&pending.claim_id) {
            let attempt = view.status.as_ref().map_or(1, |status| status.attempt);
            return self.grant_or_release(
                id,
                pending.request,
                &pending.claim_id,
                attempt,
                observation,
                effects,
            );
        }
        let news = self.jobs.entries[id].version != pending.version;
        if grant_or_release || news {
            self.apply_observation(id, observation, effects);
        } else {
            // Judged again at once it would be chosen again.
            self.retry_later(id, observation, effects);
        }
        if let Some(request) = pending.request {
            if grant_or_release || !news {
                // The id stands in the Job's history, or may still come to stand in its status by a
                // write that is late: it cannot be used for another Job.
                self.answer_no_work(request, effects);
            } else {
                self.enqueue_request(request);
            }
        }
    }

    /// What the newer says: the view at hand, or what came since.
    fn newest(&mut self, id: u32, view: &Job, known: Observation) -> Observation {
        match version(view) {
            Some(version) if version > self.jobs.entries[id].version => {
                self.jobs.entries[id].read(view, version);
                Observation::of(view)
            }
            _ => known,
        }
    }

    /// The claim stands. It is granted if its request is there and its time is not over, else given
    /// back: nobody has heard of it.
    fn grant_or_release(
        &mut self,
        id: u32,
        request: Option<u64>,
        claim_id: &str,
        attempt: i32,
        mut observation: Observation,
        effects: &mut Vec<Effect>,
    ) {
        let entry = &self.jobs.entries[id];
        let remaining_ms = match entry.expire {
            NEVER => Some(0),
            expire => u64::try_from(expire.saturating_sub(self.now))
                .ok()
                .map(|micros| micros / 1000)
                .filter(|millis| *millis > 0),
        };
        let in_time = self.now >= entry.start;
        let request = request.and_then(|request| self.end_request(request));
        if let (Some(request), Some(remaining_ms), true) = (&request, remaining_ms, in_time) {
            if let Some(session) = self.sessions.get_mut(&request.session) {
                session.known_claims.insert(claim_id.into());
            }
            self.apply_observation(id, observation, effects);
            effects.push(Effect::Grant {
                session: request.session,
                claim: ClaimRef {
                    claim_id: claim_id.to_owned(),
                    job: self.job_name(id),
                },
                remaining_ms,
                // Both ends are cut to whole milliseconds: one less is never too long.
                waited_ms: self
                    .mono
                    .saturating_sub(request.received_at)
                    .saturating_sub(1),
                attempt,
            });
            return;
        }
        if let Observation::Claimed(active) = &mut observation {
            // Nobody need be asked: nobody has heard of it.
            active.task = Recovery::Releasing;
        }
        self.apply_observation(id, observation, effects);
        self.release(id, effects);
        if let Some(request) = request {
            effects.push(Effect::NoWork {
                session: request.session,
                claim_id: claim_id.to_owned(),
            });
        }
    }

    /// Sets a Job aside whose write does not get through.
    fn retry_later(&mut self, id: u32, observation: Observation, effects: &mut Vec<Effect>) {
        if let Observation::Eligible = observation {
            let until = self.mono + RETRY_DELAY_MS;
            self.jobs.entries[id].state = JobState::RetryAt { until };
            self.jobs.retries.insert((until, id));
        } else {
            self.apply_observation(id, observation, effects);
        }
    }

    fn release_written(&mut self, id: u32, outcome: WriteOutcome, effects: &mut Vec<Effect>) {
        let before = self.jobs.entries[id].version;
        match outcome {
            WriteOutcome::Applied(job) | WriteOutcome::Conflict(Some(job)) => {
                self.handle_job(&job, false, effects)
            }
            WriteOutcome::Conflict(None) => return self.forget(id),
            WriteOutcome::Refused(_) => {
                self.jobs.retries.insert((self.mono + RETRY_DELAY_MS, id));
                return;
            }
        }
        let entry = &mut self.jobs.entries[id];
        let version = entry.version;
        let JobState::Claimed(active) = &mut entry.state else {
            return;
        };
        if active.task != Recovery::Releasing {
            return;
        }
        if active.running {
            // It was handed over after all, whatever its holder says.
            active.task = Recovery::None;
        } else if version != before {
            self.release(id, effects);
        } else {
            self.jobs.retries.insert((self.mono + RETRY_DELAY_MS, id));
        }
    }
}
