//! What can go wrong in a state, and what follows.

use crate::Protocol;
use crate::moves::Move;
use crate::properties::is_over;
use crate::rules::{Broken, Fault};
use crate::server::replace_status;
use crate::state::{LEADERS, State, Step, Up, Why};

impl Protocol {
    /// Every misfortune that this run allows.
    pub(crate) fn misfortunes(&self, state: &State, moves: &mut Vec<Move>) {
        if state.faults == 0 {
            return;
        }
        for name in self.names() {
            let first = state.jobs[name].is_some_and(|job| job.uid.generation == 0);
            if self.allows(Fault::Recreate) && first {
                moves.push(Move::Delete { name });
            }
        }
        // Misfortune that comes when everything is over finds nothing to harm but a terminal phase,
        // and for that what is on its way already suffices.
        if is_over(state) {
            return;
        }
        for leader in (0..LEADERS).filter(|&leader| state.leaders[leader].active) {
            for name in self.names() {
                let work = state.leaders[leader].work[name];
                if work.is_some_and(|work| matches!(work.step, Step::Sent(_))) {
                    if self.allows(Fault::AnswerLost) {
                        moves.push(Move::LoseAnswer {
                            leader,
                            name,
                            committed: true,
                        });
                        moves.push(Move::LoseAnswer {
                            leader,
                            name,
                            committed: false,
                        });
                    }
                    if self.allows(Fault::WriteDelayed) {
                        moves.push(Move::DelayWrite { leader, name });
                    }
                }
                let job = state.leaders[leader].cache[name].job;
                let open = job.is_some_and(|job| !job.phase.is_terminal());
                if self.allows(Fault::Cancel) && work.is_none() && open {
                    moves.push(Move::Cancel { leader, name });
                }
            }
            for sidecar in self.sidecars() {
                if self.allows(Fault::SessionBreaks) && state.sessions[leader][sidecar].is_some() {
                    moves.push(Move::BreakSession { leader, sidecar });
                }
            }
        }
        if self.allows(Fault::NewLeader) && !state.leaders[1].active {
            moves.push(Move::NewLeader);
        }
        for sidecar in self.sidecars() {
            self.pod_misfortunes(state, sidecar, moves);
        }
    }

    fn pod_misfortunes(&self, state: &State, sidecar: usize, moves: &mut Vec<Move>) {
        let pod = &state.sidecars[sidecar];
        let listens = state.listens_to(sidecar).is_some();
        let possible = [
            (
                Fault::SidecarCrash,
                listens || !pod.ledger.is_empty(),
                Move::CrashSidecar { sidecar },
            ),
            (Fault::VolumeLost, true, Move::LoseVolume { sidecar }),
            (
                Fault::PluginCrash,
                Self::can_crash_plugin(state, sidecar),
                Move::CrashPlugin { sidecar },
            ),
            // One pod stays, so that a job can always end.
            (
                Fault::PodGone,
                sidecar == 0 && !pod.gone,
                Move::DeletePod { sidecar },
            ),
            (
                Fault::AskWithdrawn,
                pod.ask.is_some(),
                Move::Withdraw { sidecar },
            ),
        ];
        moves.extend(
            possible
                .into_iter()
                .filter_map(|(kind, can, this)| (can && self.allows(kind)).then_some(this)),
        );
    }

    /// Carries out a misfortune. False: this move is none.
    pub(crate) fn misfortune(&self, state: &mut State, this: Move) -> bool {
        match this {
            Move::LoseAnswer {
                leader,
                name,
                committed,
            } => {
                let work = state.leaders[leader].work[name];
                let Some(Step::Sent(write)) = work.map(|work| work.step) else {
                    return false;
                };
                self.give_up(state, leader, name);
                if committed {
                    replace_status(state, &write, self.broken);
                }
            }
            Move::DelayWrite { leader, name } => {
                let work = state.leaders[leader].work[name];
                let Some(Step::Sent(write)) = work.map(|work| work.step) else {
                    return false;
                };
                self.give_up(state, leader, name);
                state.late.push(write);
            }
            Move::BreakSession { leader, sidecar } => self.break_session(state, leader, sidecar),
            Move::NewLeader => {
                state.leaders[1].active = true;
                for name in self.names() {
                    Self::see(state, 1, name);
                }
            }
            Move::CrashSidecar { sidecar } => Self::crash_sidecar(state, sidecar),
            Move::LoseVolume { sidecar } => Self::lose_volume(state, sidecar),
            Move::CrashPlugin { sidecar } => Self::crash_plugin(state, sidecar),
            Move::DeletePod { sidecar } => state.sidecars[sidecar].gone = true,
            Move::Withdraw { sidecar } => {
                let Some(ask) = state.sidecars[sidecar].ask.take() else {
                    return false;
                };
                state.send_up(sidecar, Up::Withdraw { id: ask.id });
            }
            Move::Cancel { leader, name } => {
                let Some(job) = state.leaders[leader].cache[name].job else {
                    return false;
                };
                self.start(state, leader, Why::Cancel { uid: job.uid });
            }
            Move::Delete { name } => {
                state.jobs[name] = None;
                state.outdate(name);
            }
            _ => return false,
        }
        state.faults -= 1;
        true
    }

    fn break_session(&self, state: &mut State, leader: usize, sidecar: usize) {
        if state.listens_to(sidecar) == Some(leader) {
            state.sidecars[sidecar].ask = None;
        }
        state.sessions[leader][sidecar] = None;
        if !self.breaks(Broken::ReleaseOnBreak) {
            return;
        }
        for name in self.names() {
            let job = state.leaders[leader].cache[name].job;
            let Some((job, claim)) = job.and_then(|job| Some((job, job.holds()?))) else {
                continue;
            };
            if usize::from(claim.holder) == sidecar && state.leaders[leader].work[name].is_none() {
                self.start(
                    state,
                    leader,
                    Why::Release {
                        uid: job.uid,
                        id: claim.id,
                    },
                );
            }
        }
    }
}
