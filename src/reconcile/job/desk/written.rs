//! How writes ended.

use super::Desk;
use super::entry::{Flight, NEVER, NOWHERE, Standing, State, Task};
use super::jobs::version;
use super::words::{ClaimName, JobName, Outcome, Todo};
use patchbay_api::Job;

/// Milliseconds until a write that was refused, or that fails without any news, is tried again.
const COOL: u64 = 5_000;

impl Desk {
    /// A claim or a release was written, or not.
    pub(super) fn written(
        &mut self,
        job: &JobName,
        claim_id: &str,
        outcome: Outcome,
        todo: &mut Vec<Todo>,
    ) {
        let Some(id) = self.find(job) else {
            return self.ghost_landed(job, claim_id, &outcome, todo);
        };
        match &self.jobs.entries[id].state {
            State::Flying(flight) if *flight.claim_id == *claim_id => {
                let state = std::mem::replace(&mut self.jobs.entries[id].state, State::Closed);
                if let State::Flying(flight) = state {
                    self.landed(id, *flight, outcome, todo);
                }
            }
            State::Held(holding)
                if *holding.claim_id == *claim_id && holding.task == Task::Releasing =>
            {
                self.release_written(id, outcome, todo);
            }
            // Somebody else has the job by now, or a ghost had the claim.
            _ => {
                self.ghost_landed(job, claim_id, &outcome, todo);
                if let Outcome::Won(job) | Outcome::Lost(Some(job)) = outcome {
                    self.hear_job(&job, false, todo);
                }
            }
        }
    }

    /// A claim was written for a Job that is gone.
    fn ghost_landed(
        &mut self,
        job: &JobName,
        claim_id: &str,
        outcome: &Outcome,
        todo: &mut Vec<Todo>,
    ) {
        let key = (job.uid.as_str().into(), claim_id.into());
        let Some((lane, flight)) = self.ghosts.remove(&key) else {
            return;
        };
        self.land(lane, &flight);
        if let Some(ask) = flight.ask {
            match outcome {
                Outcome::Lost(_) => self.let_wait(ask),
                // The id of this ask stands in a status, or the next write is refused as well.
                Outcome::Won(_) | Outcome::Refused(_) => self.nothing(ask, todo),
            }
        }
    }

    fn landed(&mut self, id: u32, mut flight: Flight, outcome: Outcome, todo: &mut Vec<Todo>) {
        let lane = self.jobs.entries[id].lane;
        self.land(lane, &flight);
        flight.client = NOWHERE;
        let (won, view) = match outcome {
            Outcome::Won(job) => (true, job),
            Outcome::Lost(Some(job)) => (false, job),
            Outcome::Lost(None) => {
                self.forget(id);
                if let Some(ask) = flight.ask {
                    self.let_wait(ask);
                }
                return;
            }
            Outcome::Refused(_) => {
                self.cool(id, flight.standing, todo);
                if let Some(ask) = flight.ask {
                    self.nothing(ask, todo);
                }
                return;
            }
        };
        let standing = self.newest(id, &view, flight.standing);
        if standing.is_held_by(&flight.claim_id) {
            let attempt = view.status.as_ref().map_or(1, |status| status.attempt);
            return self.won(id, flight.ask, &flight.claim_id, attempt, standing, todo);
        }
        let news = self.jobs.entries[id].version != flight.version;
        if won || news {
            self.settle(id, standing, todo);
        } else {
            // Judged again at once it would be chosen again.
            self.cool(id, standing, todo);
        }
        if let Some(ask) = flight.ask {
            if won || !news {
                // The id stands in the Job's history, or may still come to stand in its status by a
                // write that is late: it cannot be used for another Job.
                self.nothing(ask, todo);
            } else {
                self.let_wait(ask);
            }
        }
    }

    /// What the newer says: the view at hand, or what came since.
    fn newest(&mut self, id: u32, view: &Job, known: Standing) -> Standing {
        match version(view) {
            Some(version) if version > self.jobs.entries[id].version => {
                self.jobs.entries[id].read(view, version);
                Standing::of(view)
            }
            _ => known,
        }
    }

    /// The claim stands. It is granted if its ask is there and its time is not over, else given
    /// back: nobody has heard of it.
    fn won(
        &mut self,
        id: u32,
        ask: Option<u64>,
        claim_id: &str,
        attempt: i32,
        mut standing: Standing,
        todo: &mut Vec<Todo>,
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
        let ask = ask.and_then(|ask| self.end_ask(ask));
        if let (Some(ask), Some(remaining_ms), true) = (&ask, remaining_ms, in_time) {
            if let Some(session) = self.sessions.get_mut(&ask.session) {
                session.known.insert(claim_id.into());
            }
            self.settle(id, standing, todo);
            todo.push(Todo::Grant {
                session: ask.session,
                claim: ClaimName {
                    claim_id: claim_id.to_owned(),
                    job: self.job_name(id),
                },
                remaining_ms,
                // Both ends are cut to whole milliseconds: one less is never too long.
                held_ms: self.mono.saturating_sub(ask.came).saturating_sub(1),
                attempt,
            });
            return;
        }
        if let Standing::Held(holding) = &mut standing {
            // Nobody need be asked: nobody has heard of it.
            holding.task = Task::Releasing;
        }
        self.settle(id, standing, todo);
        self.release(id, todo);
        if let Some(ask) = ask {
            todo.push(Todo::Nothing {
                session: ask.session,
                claim_id: claim_id.to_owned(),
            });
        }
    }

    /// Sets a Job aside whose write does not get through.
    fn cool(&mut self, id: u32, standing: Standing, todo: &mut Vec<Todo>) {
        if let Standing::Open = standing {
            let until = self.mono + COOL;
            self.jobs.entries[id].state = State::Cooling { until };
            self.jobs.cooling.insert((until, id));
        } else {
            self.settle(id, standing, todo);
        }
    }

    fn release_written(&mut self, id: u32, outcome: Outcome, todo: &mut Vec<Todo>) {
        let before = self.jobs.entries[id].version;
        match outcome {
            Outcome::Won(job) | Outcome::Lost(Some(job)) => self.hear_job(&job, false, todo),
            Outcome::Lost(None) => return self.forget(id),
            Outcome::Refused(_) => {
                self.jobs.cooling.insert((self.mono + COOL, id));
                return;
            }
        }
        let entry = &mut self.jobs.entries[id];
        let version = entry.version;
        let State::Held(holding) = &mut entry.state else {
            return;
        };
        if holding.task != Task::Releasing {
            return;
        }
        if holding.running {
            // It was handed over after all, whatever its holder says.
            holding.task = Task::Nothing;
        } else if version != before {
            self.release(id, todo);
        } else {
            self.jobs.cooling.insert((self.mono + COOL, id));
        }
    }
}
