//! Every regular move of the model: who can do what in a state, and what follows.

use crate::Protocol;
use crate::rules::Broken;
use crate::server::replace_status;
use crate::state::{Job, LEADERS, Phase, State, Step, Uid, Why};

/// One step of one party. The names are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    // A leader.
    Dial {
        leader: usize,
        sidecar: usize,
    },
    Hear {
        leader: usize,
        sidecar: usize,
    },
    Watch {
        leader: usize,
        name: usize,
    },
    Claim {
        leader: usize,
        sidecar: usize,
        name: usize,
    },
    Grant {
        leader: usize,
        name: usize,
    },
    Doubt {
        leader: usize,
        sidecar: usize,
        name: usize,
    },
    Expire {
        leader: usize,
        name: usize,
    },
    LoseHolder {
        leader: usize,
        name: usize,
    },
    StoreOutput {
        leader: usize,
        name: usize,
    },
    ReadBack {
        leader: usize,
        name: usize,
    },
    // The API server.
    Commit {
        leader: usize,
        name: usize,
    },
    CommitLate,
    CollectGarbage {
        name: usize,
        attempt: usize,
    },
    // A sidecar and its plugin.
    Ask {
        sidecar: usize,
    },
    Receive {
        leader: usize,
        sidecar: usize,
    },
    WriteDelivered {
        sidecar: usize,
    },
    HandOver {
        sidecar: usize,
    },
    Release {
        sidecar: usize,
    },
    Answer {
        sidecar: usize,
    },
    AnswerRecovered {
        sidecar: usize,
    },
    EndGrace {
        sidecar: usize,
    },
    // Time.
    Tick,
    // A user who deleted a Job.
    CreateAgain {
        name: usize,
    },
    // Misfortunes.
    LoseAnswer {
        leader: usize,
        name: usize,
        committed: bool,
    },
    DelayWrite {
        leader: usize,
        name: usize,
    },
    BreakSession {
        leader: usize,
        sidecar: usize,
    },
    NewLeader,
    CrashSidecar {
        sidecar: usize,
    },
    LoseVolume {
        sidecar: usize,
    },
    CrashPlugin {
        sidecar: usize,
    },
    DeletePod {
        sidecar: usize,
    },
    Withdraw {
        sidecar: usize,
    },
    Cancel {
        leader: usize,
        name: usize,
    },
    Delete {
        name: usize,
    },
}

impl Protocol {
    /// Everything that can happen without a misfortune.
    pub(crate) fn regular_moves(&self, state: &State, moves: &mut Vec<Move>) {
        for leader in (0..LEADERS).filter(|&leader| state.leaders[leader].active) {
            self.leader_moves(state, leader, moves);
        }
        for sidecar in self.sidecars() {
            self.sidecar_moves(state, sidecar, moves);
        }
        if !state.late.is_empty() {
            moves.push(Move::CommitLate);
        }
        for name in self.names() {
            for (attempt, owner) in state.outputs[name].iter().enumerate() {
                let uid = state.jobs[name].map(|job| job.uid);
                if owner.is_some() && *owner != uid {
                    moves.push(Move::CollectGarbage { name, attempt });
                }
            }
            if state.jobs[name].is_none() {
                moves.push(Move::CreateAgain { name });
            }
        }
        if self
            .config
            .expires
            .is_some_and(|(_, last)| state.now < last)
        {
            moves.push(Move::Tick);
        }
    }

    fn leader_moves(&self, state: &State, leader: usize, moves: &mut Vec<Move>) {
        for name in self.names() {
            let copied = state.leaders[leader].cache[name];
            if !copied.current {
                moves.push(Move::Watch { leader, name });
            }
            match state.leaders[leader].work[name].map(|work| work.step) {
                Some(Step::Storing) => moves.push(Move::StoreOutput { leader, name }),
                Some(Step::Sent(_)) => moves.push(Move::Commit { leader, name }),
                Some(Step::Won(_)) => moves.push(Move::Grant { leader, name }),
                Some(Step::Unknown { .. }) => moves.push(Move::ReadBack { leader, name }),
                None => {
                    let ready = copied.job.is_some_and(|job| job.phase == Phase::Ready);
                    let over = self
                        .config
                        .expires
                        .is_some_and(|(expires, _)| state.now >= expires);
                    if ready && over {
                        moves.push(Move::Expire { leader, name });
                    }
                    if Self::can_lose_holder(state, leader, name) {
                        moves.push(Move::LoseHolder { leader, name });
                    }
                }
            }
            for sidecar in self.sidecars() {
                if self.can_claim(state, leader, sidecar, name) {
                    moves.push(Move::Claim {
                        leader,
                        sidecar,
                        name,
                    });
                }
                if Self::can_doubt(state, leader, sidecar, name) {
                    moves.push(Move::Doubt {
                        leader,
                        sidecar,
                        name,
                    });
                }
            }
        }
        for sidecar in self.sidecars() {
            if Self::can_dial(state, leader, sidecar) {
                moves.push(Move::Dial { leader, sidecar });
            }
            if state.sessions[leader][sidecar]
                .as_ref()
                .is_some_and(|one| !one.up.is_empty())
            {
                moves.push(Move::Hear { leader, sidecar });
            }
        }
    }

    fn sidecar_moves(&self, state: &State, sidecar: usize, moves: &mut Vec<Move>) {
        for leader in 0..LEADERS {
            if state.sessions[leader][sidecar]
                .as_ref()
                .is_some_and(|one| !one.down.is_empty())
            {
                moves.push(Move::Receive { leader, sidecar });
            }
        }
        let possible = [
            (Self::can_ask(state, sidecar), Move::Ask { sidecar }),
            (
                Self::can_write_delivered(state, sidecar),
                Move::WriteDelivered { sidecar },
            ),
            (
                self.can_hand_over(state, sidecar),
                Move::HandOver { sidecar },
            ),
            (Self::can_release(state, sidecar), Move::Release { sidecar }),
            (Self::can_answer(state, sidecar), Move::Answer { sidecar }),
            (
                Self::can_answer_recovered(state, sidecar),
                Move::AnswerRecovered { sidecar },
            ),
            (
                Self::can_end_grace(state, sidecar),
                Move::EndGrace { sidecar },
            ),
        ];
        moves.extend(
            possible
                .into_iter()
                .filter_map(|(can, this)| can.then_some(this)),
        );
    }

    /// What follows a move; none when it changes nothing or has to wait.
    pub(crate) fn after(&self, before: &State, this: Move) -> Option<State> {
        let mut state = before.clone();
        let done = self.regular(&mut state, this) || self.misfortune(&mut state, this);
        if !self.breaks(Broken::ClaimWithoutVersion) {
            // It would meet a newer version and do nothing.
            state.late.retain(|write| write.current);
        }
        state.forget_free_ids();
        (done && state != *before).then_some(state)
    }

    fn regular(&self, state: &mut State, this: Move) -> bool {
        match this {
            Move::Dial { leader, sidecar } => self.dial(state, leader, sidecar),
            Move::Hear { leader, sidecar } => return self.hear(state, leader, sidecar),
            Move::Watch { leader, name } => Self::see(state, leader, name),
            Move::Claim {
                leader,
                sidecar,
                name,
            } => self.claim(state, leader, sidecar, name),
            Move::Grant { leader, name } => self.grant(state, leader, name),
            Move::Doubt {
                leader,
                sidecar,
                name,
            } => self.doubt(state, leader, sidecar, name),
            Move::Expire { leader, name } => {
                let Some(job) = state.leaders[leader].cache[name].job else {
                    return false;
                };
                self.start(state, leader, Why::Expire { uid: job.uid });
            }
            Move::LoseHolder { leader, name } => self.lose_holder(state, leader, name),
            Move::StoreOutput { leader, name } => return self.store_output(state, leader, name),
            Move::ReadBack { leader, name } => self.read_back(state, leader, name),
            Move::Commit { leader, name } => self.commit(state, leader, name),
            Move::CommitLate => {
                let write = state.late.remove(0);
                replace_status(state, &write, self.broken);
            }
            Move::CollectGarbage { name, attempt } => state.outputs[name][attempt] = None,
            Move::Ask { sidecar } => Self::ask(state, sidecar),
            Move::Receive { leader, sidecar } => self.receive(state, leader, sidecar),
            Move::WriteDelivered { sidecar } => self.write_delivered(state, sidecar),
            Move::HandOver { sidecar } => self.hand_over(state, sidecar),
            Move::Release { sidecar } => Self::release(state, sidecar),
            Move::Answer { sidecar } => Self::answer(state, sidecar),
            Move::AnswerRecovered { sidecar } => Self::answer_recovered(state, sidecar),
            Move::EndGrace { sidecar } => Self::end_grace(state, sidecar),
            Move::Tick => state.now += 1,
            Move::CreateAgain { name } => {
                state.jobs[name] = Some(Job {
                    uid: Uid {
                        name: name as u8,
                        generation: 1,
                    },
                    location: self.config.recreated,
                    phase: Phase::Ready,
                    claim: None,
                    attempt: 1,
                });
                state.outdate(name);
            }
            _ => return false,
        }
        true
    }
}
