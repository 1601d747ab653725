//! What a leader writes: claims, the statuses that some evidence asks for, and how it finds out
//! what became of them.

use crate::Protocol;
use crate::rules::Broken;
use crate::server::{claim, next_status, replace_status};
use crate::state::{Claim, Copied, Down, Job, Phase, State, Step, Why, Work, Write};

impl Protocol {
    /// Reads the object from the API server, past the watch cache.
    pub(crate) fn get(state: &mut State, leader: usize, name: usize) {
        state.leaders[leader].cache[name] = Copied {
            job: state.jobs[name],
            current: true,
        };
    }

    /// A watch event arrives.
    pub(crate) fn see(state: &mut State, leader: usize, name: usize) {
        Self::get(state, leader, name);
    }
    /// Whether a job may be handed out for what this pod asks.
    pub(crate) fn fits(&self, state: &State, job: &Job, sidecar: usize) -> bool {
        let wanted = self.config.asks_for[sidecar];
        job.phase == Phase::Ready
            && self.is_in_time(state)
            && (wanted.is_none() || job.location.is_none() || wanted == job.location)
    }

    fn is_in_time(&self, state: &State) -> bool {
        self.config
            .expires
            .is_none_or(|(expires, _)| state.now < expires)
    }

    pub(crate) fn can_claim(
        &self,
        state: &State,
        leader: usize,
        sidecar: usize,
        name: usize,
    ) -> bool {
        state.leaders[leader].work[name].is_none()
            && state.sessions[leader][sidecar]
                .as_ref()
                .is_some_and(|session| {
                    session.ledger_epoch.is_some() && session.ask.is_some_and(|ask| !ask.in_flight)
                })
            && state.leaders[leader].cache[name]
                .job
                .is_some_and(|job| self.fits(state, &job, sidecar))
    }

    /// Starts the one write of a claim.
    pub(crate) fn claim(&self, state: &mut State, leader: usize, sidecar: usize, name: usize) {
        let listed_at = if self.breaks(Broken::ExpiryAtListing) {
            state.now
        } else {
            0
        };
        let Some(session) = &mut state.sessions[leader][sidecar] else {
            return;
        };
        let Some(ask) = &mut session.ask else { return };
        ask.in_flight = true;
        let why = Why::Claim {
            id: ask.id,
            sidecar: sidecar as u8,
            listed_at,
        };
        self.send_claim(state, leader, name, why);
    }

    fn send_claim(&self, state: &mut State, leader: usize, name: usize, why: Why) {
        let Why::Claim { id, sidecar, .. } = why else {
            return;
        };
        let session = state.sessions[leader][usize::from(sidecar)].as_ref();
        let copied = state.leaders[leader].cache[name];
        let (Some(ledger_epoch), Some(job)) =
            (session.and_then(|session| session.ledger_epoch), copied.job)
        else {
            return;
        };
        let status = claim(
            &job,
            Claim {
                id,
                holder: sidecar,
                ledger_epoch,
            },
        );
        let step = Step::Sent(Write {
            status,
            why,
            current: copied.current,
        });
        state.leaders[leader].work[name] = Some(Work { why, step });
    }

    /// Begins a write that some evidence asks for. When the watch cache does not show what it is
    /// about, the object is read before the evidence is set aside.
    pub(crate) fn start(&self, state: &mut State, leader: usize, why: Why) {
        let Some(name) = name_of(why) else { return };
        if self.plan(state, leader, name, why) {
            return;
        }
        if !self.breaks(Broken::GoneByCache) {
            Self::get(state, leader, name);
            if self.plan(state, leader, name, why) {
                return;
            }
        }
        Self::finish(state, leader, why);
    }

    fn plan(&self, state: &mut State, leader: usize, name: usize, why: Why) -> bool {
        let copied = state.leaders[leader].cache[name];
        let status = copied
            .job
            .and_then(|job| next_status(&job, why, &self.config, self.broken));
        let Some(status) = status else { return false };
        let stored = match why {
            Why::Complete { uid, attempt, .. } => {
                self.breaks(Broken::CompleteBeforeOutput)
                    || state.outputs[name][usize::from(attempt) - 1] == Some(uid)
            }
            _ => true,
        };
        let step = if stored {
            Step::Sent(Write {
                status,
                why,
                current: copied.current,
            })
        } else {
            Step::Storing
        };
        state.leaders[leader].work[name] = Some(Work { why, step });
        true
    }

    /// The evidence is used up, or was about something that is over.
    fn finish(state: &mut State, leader: usize, why: Why) {
        match why {
            Why::Complete {
                uid, id, sidecar, ..
            }
            | Why::Lose {
                uid,
                id,
                tell: Some(sidecar),
            } => {
                state.send_down(leader, usize::from(sidecar), Down::RowStored { uid, id });
            }
            _ => {}
        }
    }

    /// Creates the JobOutput object. False: its name is taken by one that has to go first.
    pub(crate) fn store_output(&self, state: &mut State, leader: usize, name: usize) -> bool {
        let Some(Work {
            why,
            step: Step::Storing,
        }) = state.leaders[leader].work[name]
        else {
            return false;
        };
        let Why::Complete { uid, attempt, .. } = why else {
            return false;
        };
        let exists = state.jobs[name].is_some_and(|job| job.uid == uid);
        let slot = &mut state.outputs[name][usize::from(attempt) - 1];
        match *slot {
            None => *slot = Some(uid),
            Some(owner) if owner == uid || !exists => {}
            Some(_) if self.breaks(Broken::OutputOfAnother) => {
                // The name exists, so the next step is believed to be in order.
                let copied = state.leaders[leader].cache[name];
                let status = copied
                    .job
                    .and_then(|job| next_status(&job, why, &self.config, self.broken));
                state.leaders[leader].work[name] = status.map(|status| Work {
                    why,
                    step: Step::Sent(Write {
                        status,
                        why,
                        current: copied.current,
                    }),
                });
                return true;
            }
            Some(_) => return false,
        }
        state.leaders[leader].work[name] = None;
        if self.breaks(Broken::CompleteBeforeOutput) {
            Self::finish(state, leader, why);
        } else {
            self.start(state, leader, why);
        }
        true
    }

    /// A write reaches the API server, and its answer the leader.
    pub(crate) fn commit(&self, state: &mut State, leader: usize, name: usize) {
        let Some(Work {
            why,
            step: Step::Sent(write),
        }) = state.leaders[leader].work[name]
        else {
            return;
        };
        let done = replace_status(state, &write, self.broken);
        if !done {
            return self.resolve(state, leader, name, why, Outcome::Conflict);
        }
        let copied = Copied {
            job: state.jobs[name],
            current: true,
        };
        if matches!(why, Why::Claim { .. }) {
            // Time may pass before the answer is read.
            state.leaders[leader].work[name] = Some(Work {
                why,
                step: Step::Won(copied),
            });
            return;
        }
        state.leaders[leader].cache[name] = copied;
        if matches!(why, Why::Complete { .. }) && self.breaks(Broken::CompleteBeforeOutput) {
            state.leaders[leader].work[name] = Some(Work {
                why,
                step: Step::Storing,
            });
            return;
        }
        state.leaders[leader].work[name] = None;
        Self::finish(state, leader, why);
    }

    /// A write was sent, and no answer comes.
    pub(crate) fn give_up(&self, state: &mut State, leader: usize, name: usize) {
        let Some(Work {
            why,
            step: Step::Sent(write),
        }) = state.leaders[leader].work[name]
        else {
            return;
        };
        if self.breaks(Broken::UnknownIsLost) {
            state.leaders[leader].work[name] = None;
            Self::free_ask(state, leader, why);
            return;
        }
        let step = Step::Unknown {
            current: write.current,
        };
        state.leaders[leader].work[name] = Some(Work { why, step });
    }

    pub(crate) fn read_back(&self, state: &mut State, leader: usize, name: usize) {
        let Some(Work {
            why,
            step: Step::Unknown { current },
        }) = state.leaders[leader].work[name]
        else {
            return;
        };
        let outcome = if current {
            Outcome::Unchanged
        } else {
            Outcome::Changed
        };
        self.resolve(state, leader, name, why, outcome);
    }

    /// Reads the object and finds out what became of a write.
    fn resolve(&self, state: &mut State, leader: usize, name: usize, why: Why, outcome: Outcome) {
        Self::get(state, leader, name);
        state.leaders[leader].work[name] = None;
        let Why::Claim { id, .. } = why else {
            return self.start(state, leader, why);
        };
        let copied = state.leaders[leader].cache[name];
        let claim = copied.job.and_then(|job| job.holds());
        let blind = outcome == Outcome::Conflict && self.breaks(Broken::ConflictIsLost);
        let again = match outcome {
            // The first write may still arrive. The same one again ends that: one of the two
            // meets another version.
            Outcome::Unchanged => true,
            Outcome::Conflict => {
                self.breaks(Broken::RetryWithoutMatching)
                    && copied.job.is_some_and(|job| job.phase == Phase::Ready)
            }
            // The version read before is no more, so the write can never be carried out.
            Outcome::Changed => false,
        };
        if claim.is_some_and(|claim| claim.id == id) && !blind {
            state.leaders[leader].work[name] = Some(Work {
                why,
                step: Step::Won(copied),
            });
        } else if again {
            self.send_claim(state, leader, name, why);
        } else {
            Self::free_ask(state, leader, why);
        }
    }

    /// The ask waits for the next candidate.
    fn free_ask(state: &mut State, leader: usize, why: Why) {
        let Why::Claim { id, sidecar, .. } = why else {
            return;
        };
        if let Some(session) = &mut state.sessions[leader][usize::from(sidecar)]
            && let Some(ask) = &mut session.ask
            && ask.id == id
        {
            ask.in_flight = false;
        }
    }

    /// Reads that the claim is written, looks at the clock, and grants.
    pub(crate) fn grant(&self, state: &mut State, leader: usize, name: usize) {
        let Some(Work {
            why,
            step: Step::Won(copied),
        }) = state.leaders[leader].work[name]
        else {
            return;
        };
        state.leaders[leader].work[name] = None;
        state.leaders[leader].cache[name] = copied;
        let (
            Why::Claim {
                id,
                sidecar,
                listed_at,
            },
            Some(job),
        ) = (why, copied.job)
        else {
            return;
        };
        let (now, uid) = (state.now, job.uid);
        let at_listing = self.breaks(Broken::ExpiryAtListing);
        if !at_listing && !self.is_in_time(state) {
            // Only this leader could have granted the claim, and it does not.
            Self::free_ask(state, leader, why);
            return self.start(state, leader, Why::Release { uid, id });
        }
        let checked_at = if at_listing { listed_at } else { now };
        let remaining = self.config.expires.map(|(expires, _)| expires - checked_at);
        let Some(session) = &mut state.sessions[leader][usize::from(sidecar)] else {
            return;
        };
        // Without the ask the claim is one that this session has not named, and is doubted.
        let Some(ask) = session.ask.filter(|ask| ask.id == id) else {
            return;
        };
        session.ask = None;
        let held = now - ask.received_at;
        let grant = Down::Grant {
            uid,
            id,
            attempt: job.attempt,
            remaining,
            held,
        };
        state.send_down(leader, usize::from(sidecar), grant);
    }

    /// The holder's pod is gone, read from the API server.
    pub(crate) fn can_lose_holder(state: &State, leader: usize, name: usize) -> bool {
        state.leaders[leader].work[name].is_none()
            && state.leaders[leader].cache[name]
                .job
                .and_then(|job| job.holds())
                .is_some_and(|claim| state.sidecars[usize::from(claim.holder)].gone)
    }

    pub(crate) fn lose_holder(&self, state: &mut State, leader: usize, name: usize) {
        let Some(job) = state.leaders[leader].cache[name].job else {
            return;
        };
        let Some(claim) = job.holds() else { return };
        self.start(
            state,
            leader,
            Why::Lose {
                uid: job.uid,
                id: claim.id,
                tell: None,
            },
        );
    }
}

/// What is known of a claim's write before the object is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Conflict,
    /// No answer; the version is still the one that was read.
    Unchanged,
    /// No answer; the version is another one.
    Changed,
}

fn name_of(why: Why) -> Option<usize> {
    match why {
        Why::Claim { .. } => None,
        Why::Release { uid, .. }
        | Why::Lose { uid, .. }
        | Why::Complete { uid, .. }
        | Why::Expire { uid }
        | Why::Cancel { uid } => Some(uid.name()),
    }
}
