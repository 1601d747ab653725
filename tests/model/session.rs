//! A session at the leader: opening it, what is heard on it, and the doubt about claims that it has
//! not named. Decisions end in a write that `leader.rs` starts.

use crate::Protocol;
use crate::rules::Broken;
use crate::state::{ClaimSet, Down, EntryState, HeldAsk, Session, State, Up, Why};

impl Protocol {
    /// Whether `sidecar` can be dialled. A session that the sidecar has left is found broken
    /// sooner or later; one that works is not dialled again.
    pub(crate) fn can_dial(state: &State, leader: usize, sidecar: usize) -> bool {
        !state.sidecars[sidecar].gone
            && leader as u8 >= state.sidecars[sidecar].seen
            && state.sessions[leader][sidecar]
                .as_ref()
                .is_none_or(|session| !session.heard)
    }

    /// Opens a session: the sidecar stops listening to the old one, then sends its ledger and
    /// everything that was not acknowledged.
    pub(crate) fn dial(&self, state: &mut State, leader: usize, sidecar: usize) {
        let keeps = self.breaks(Broken::FormerSessionHeard);
        for session in state
            .sessions
            .iter_mut()
            .filter_map(|pods| pods[sidecar].as_mut())
        {
            if !keeps {
                session.heard = false;
                session.down.clear();
            }
        }
        let pod = &mut state.sidecars[sidecar];
        pod.seen = leader as u8;
        if !keeps {
            pod.ask = None;
        }
        let mut ledger = ClaimSet::default();
        pod.ledger.iter().for_each(|entry| ledger.add(entry.id));
        let mut up = vec![Up::Hello {
            ledger_epoch: pod.ledger_epoch,
            ledger,
        }];
        up.extend(pod.ledger.iter().filter_map(|entry| match entry.state {
            EntryState::Answered => Some(Up::Row {
                uid: entry.uid,
                id: entry.id,
                attempt: entry.attempt,
            }),
            EntryState::Lost { .. } => Some(Up::Lost {
                uid: entry.uid,
                id: entry.id,
            }),
            _ => None,
        }));
        state.sessions[leader][sidecar] = Some(Session {
            heard: true,
            ledger_epoch: None,
            ask: None,
            known: ClaimSet::default(),
            doubted: ClaimSet::default(),
            up,
            down: Vec::new(),
        });
    }

    /// Takes the next message of a session. False: it has to wait for the work on its Job.
    pub(crate) fn hear(&self, state: &mut State, leader: usize, sidecar: usize) -> bool {
        let now = state.now;
        let Some(session) = &mut state.sessions[leader][sidecar] else {
            return false;
        };
        let Some(message) = session.up.first().cloned() else {
            return false;
        };
        if let Up::Released { uid, .. }
        | Up::Row { uid, .. }
        | Up::Lost { uid, .. }
        | Up::LedgerAnswer { uid, .. } = message
            && state.leaders[leader].work[uid.name()].is_some()
        {
            return false;
        }
        session.up.remove(0);
        let tell = Some(sidecar as u8);
        match message {
            Up::Hello {
                ledger_epoch,
                ledger,
            } => {
                session.ledger_epoch = Some(ledger_epoch);
                session.known = ledger;
                if self.breaks(Broken::HelloBelieved) {
                    self.believe_hello(state, leader, sidecar, ledger_epoch, ledger);
                }
            }
            Up::Ask { id } => {
                session.ask = Some(HeldAsk {
                    id,
                    received_at: now,
                    in_flight: false,
                });
                session.known.add(id);
            }
            Up::Withdraw { id } => {
                session.ask = session.ask.filter(|ask| ask.id != id);
                // A claim that is written for it all the same is doubted.
                session.known.remove(id);
            }
            Up::Released { uid, id } => self.start(state, leader, Why::Release { uid, id }),
            Up::Lost { uid, id } => self.start(state, leader, Why::Lose { uid, id, tell }),
            Up::Row { uid, id, attempt } => {
                let why = Why::Complete {
                    uid,
                    id,
                    attempt,
                    sidecar: sidecar as u8,
                };
                self.start(state, leader, why);
            }
            Up::LedgerAnswer {
                id, known: true, ..
            } => session.known.add(id),
            Up::LedgerAnswer {
                uid,
                id,
                known: false,
            } => {
                // The old leader may claim once more for the same dead ask: doubted anew then.
                session.doubted.remove(id);
                let epoch = session.ledger_epoch;
                self.judge_unknown(state, leader, Why::Release { uid, id }, epoch);
            }
        }
        true
    }

    /// The ledger does not know this claim and never will. If it is the ledger of which the claim
    /// speaks, the job never reached the plugin. If it is another one, nobody knows.
    fn judge_unknown(&self, state: &mut State, leader: usize, why: Why, epoch: Option<u8>) {
        let Why::Release { uid, id } = why else {
            return;
        };
        Self::get(state, leader, uid.name());
        let claimed = state.leaders[leader].cache[uid.name()]
            .job
            .and_then(|job| job.holds());
        let same = claimed.is_some_and(|claim| Some(claim.ledger_epoch) == epoch);
        if same || self.breaks(Broken::LedgerEpochIgnored) {
            self.start(state, leader, why);
        } else {
            self.start(
                state,
                leader,
                Why::Lose {
                    uid,
                    id,
                    tell: None,
                },
            );
        }
    }

    /// The broken rule: decides from a Hello about claims that may be younger than it.
    fn believe_hello(
        &self,
        state: &mut State,
        leader: usize,
        sidecar: usize,
        epoch: u8,
        ledger: ClaimSet,
    ) {
        for name in 0..self.config.jobs.len() {
            let Some(job) = state.leaders[leader].cache[name].job else {
                continue;
            };
            let Some(claim) = job.holds() else { continue };
            let idle = state.leaders[leader].work[name].is_none();
            if !idle || usize::from(claim.holder) != sidecar || ledger.has(claim.id) {
                continue;
            }
            let (uid, id) = (job.uid, claim.id);
            if claim.ledger_epoch == epoch {
                self.start(state, leader, Why::Release { uid, id });
            } else {
                self.start(
                    state,
                    leader,
                    Why::Lose {
                        uid,
                        id,
                        tell: None,
                    },
                );
            }
        }
    }

    /// Whether the leader sees a claim of this pod that the session has not named.
    pub(crate) fn can_doubt(state: &State, leader: usize, sidecar: usize, name: usize) -> bool {
        let Some(session) = &state.sessions[leader][sidecar] else {
            return false;
        };
        let claim = state.leaders[leader].cache[name]
            .job
            .and_then(|job| job.holds());
        session.ledger_epoch.is_some()
            && state.leaders[leader].work[name].is_none()
            && claim.is_some_and(|claim| {
                usize::from(claim.holder) == sidecar
                    && !session.known.has(claim.id)
                    && !session.doubted.has(claim.id)
            })
    }

    /// Asks the holder. Also when the claim is of another ledger: which of the two is the newer,
    /// only the one who answers now can tell.
    pub(crate) fn doubt(&self, state: &mut State, leader: usize, sidecar: usize, name: usize) {
        let Some(job) = state.leaders[leader].cache[name].job else {
            return;
        };
        let Some(claim) = job.claim else { return };
        let (uid, id) = (job.uid, claim.id);
        let Some(session) = &mut state.sessions[leader][sidecar] else {
            return;
        };
        let other_ledger = session.ledger_epoch != Some(claim.ledger_epoch);
        if other_ledger && self.breaks(Broken::SessionEpochBelieved) {
            return self.start(
                state,
                leader,
                Why::Lose {
                    uid,
                    id,
                    tell: None,
                },
            );
        }
        session.doubted.add(id);
        state.send_down(leader, sidecar, Down::Doubt { uid, id });
    }
}
