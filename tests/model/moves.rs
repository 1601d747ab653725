//! Every move of the model: who can do what in a state, and what follows.

use crate::Protocol;
use crate::rules::{Broken, Fault};
use crate::server::replace_status;
use crate::state::{Job, LEADERS, Phase, Reason, State, Step, Uid, Up, Why};

/// One step of one party. The names are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    // A leader.
    Dial { leader: usize, sidecar: usize },
    Hear { leader: usize, sidecar: usize },
    Watch { leader: usize, name: usize },
    Claim { leader: usize, sidecar: usize, name: usize },
    Grant { leader: usize, name: usize },
    Doubt { leader: usize, sidecar: usize, name: usize },
    Expire { leader: usize, name: usize },
    LoseHolder { leader: usize, name: usize },
    StoreOutput { leader: usize, name: usize },
    ReadBack { leader: usize, name: usize },
    // The API server.
    Commit { leader: usize, name: usize },
    CommitLate,
    DropLate,
    CollectGarbage { name: usize, attempt: usize },
    // A sidecar and its plugin.
    Ask { sidecar: usize },
    Receive { leader: usize, sidecar: usize },
    WriteDelivered { sidecar: usize },
    HandOver { sidecar: usize },
    Release { sidecar: usize },
    Answer { sidecar: usize },
    AnswerRecovered { sidecar: usize },
    EndGrace { sidecar: usize },
    // Time.
    Tick,
    // A user who deleted a Job.
    CreateAgain { name: usize },
    // Misfortunes.
    LoseAnswer { leader: usize, name: usize, committed: bool },
    DelayWrite { leader: usize, name: usize },
    BreakSession { leader: usize, sidecar: usize },
    NewLeader,
    CrashSidecar { sidecar: usize },
    LoseVolume { sidecar: usize },
    CrashPlugin { sidecar: usize },
    DeletePod { sidecar: usize },
    Withdraw { sidecar: usize },
    Cancel { leader: usize, name: usize },
    Delete { name: usize },
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
            moves.extend([Move::CommitLate, Move::DropLate]);
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
        if self.config.expires.is_some_and(|(_, last)| state.now < last) {
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
                    let over =
                        self.config.expires.is_some_and(|(expires, _)| state.now >= expires);
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
                    moves.push(Move::Claim { leader, sidecar, name });
                }
                if Self::can_doubt(state, leader, sidecar, name) {
                    moves.push(Move::Doubt { leader, sidecar, name });
                }
            }
        }
        for sidecar in self.sidecars() {
            if Self::can_dial(state, leader, sidecar) {
                moves.push(Move::Dial { leader, sidecar });
            }
            if state.sessions[leader][sidecar].as_ref().is_some_and(|one| !one.up.is_empty()) {
                moves.push(Move::Hear { leader, sidecar });
            }
        }
    }

    fn sidecar_moves(&self, state: &State, sidecar: usize, moves: &mut Vec<Move>) {
        for leader in 0..LEADERS {
            if state.sessions[leader][sidecar].as_ref().is_some_and(|one| !one.down.is_empty()) {
                moves.push(Move::Receive { leader, sidecar });
            }
        }
        let possible = [
            (Self::can_ask(state, sidecar), Move::Ask { sidecar }),
            (Self::can_write_delivered(state, sidecar), Move::WriteDelivered { sidecar }),
            (self.can_hand_over(state, sidecar), Move::HandOver { sidecar }),
            (Self::can_release(state, sidecar), Move::Release { sidecar }),
            (Self::can_answer(state, sidecar), Move::Answer { sidecar }),
            (Self::can_answer_recovered(state, sidecar), Move::AnswerRecovered { sidecar }),
            (Self::can_end_grace(state, sidecar), Move::EndGrace { sidecar }),
        ];
        moves.extend(possible.into_iter().filter_map(|(can, this)| can.then_some(this)));
    }

    /// Every misfortune that this run allows.
    pub(crate) fn misfortunes(&self, state: &State, moves: &mut Vec<Move>) {
        if state.faults == 0 {
            return;
        }
        for leader in (0..LEADERS).filter(|&leader| state.leaders[leader].active) {
            for name in self.names() {
                let work = state.leaders[leader].work[name];
                if work.is_some_and(|work| matches!(work.step, Step::Sent(_))) {
                    if self.allows(Fault::AnswerLost) {
                        moves.push(Move::LoseAnswer { leader, name, committed: true });
                        moves.push(Move::LoseAnswer { leader, name, committed: false });
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
        for name in self.names() {
            let first = state.jobs[name].is_some_and(|job| job.uid.generation == 0);
            if self.allows(Fault::Recreate) && first {
                moves.push(Move::Delete { name });
            }
        }
    }

    fn pod_misfortunes(&self, state: &State, sidecar: usize, moves: &mut Vec<Move>) {
        let pod = &state.sidecars[sidecar];
        let listens = state.listens_to(sidecar).is_some();
        let possible = [
            (Fault::SidecarCrash, listens || !pod.ledger.is_empty(), Move::CrashSidecar { sidecar }),
            (Fault::VolumeLost, true, Move::LoseVolume { sidecar }),
            (
                Fault::PluginCrash,
                Self::can_crash_plugin(state, sidecar),
                Move::CrashPlugin { sidecar },
            ),
            // One pod stays, so that a job can always end.
            (Fault::PodGone, sidecar == 0 && !pod.gone, Move::DeletePod { sidecar }),
            (Fault::AskWithdrawn, pod.ask.is_some(), Move::Withdraw { sidecar }),
        ];
        moves.extend(
            possible
                .into_iter()
                .filter_map(|(kind, can, this)| (can && self.allows(kind)).then_some(this)),
        );
    }

    /// What follows a move; none when it changes nothing or has to wait.
    pub(crate) fn after(&self, before: &State, this: Move) -> Option<State> {
        let mut state = before.clone();
        let done = self.regular(&mut state, this) || self.misfortune(&mut state, this);
        (done && state != *before).then_some(state)
    }

    fn regular(&self, state: &mut State, this: Move) -> bool {
        match this {
            Move::Dial { leader, sidecar } => self.dial(state, leader, sidecar),
            Move::Hear { leader, sidecar } => return self.hear(state, leader, sidecar),
            Move::Watch { leader, name } => Self::see(state, leader, name),
            Move::Claim { leader, sidecar, name } => self.claim(state, leader, sidecar, name),
            Move::Grant { leader, name } => self.grant(state, leader, name),
            Move::Doubt { leader, sidecar, name } => Self::doubt(state, leader, sidecar, name),
            Move::Expire { leader, name } => {
                let Some(job) = state.leaders[leader].cache[name].job else { return false };
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
            Move::DropLate => {
                state.late.remove(0);
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
                    uid: Uid { name: name as u8, generation: 1 },
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

    fn misfortune(&self, state: &mut State, this: Move) -> bool {
        match this {
            Move::LoseAnswer { leader, name, committed } => {
                let work = state.leaders[leader].work[name];
                let Some(Step::Sent(write)) = work.map(|work| work.step) else { return false };
                self.give_up(state, leader, name);
                if committed {
                    replace_status(state, &write, self.broken);
                }
            }
            Move::DelayWrite { leader, name } => {
                let work = state.leaders[leader].work[name];
                let Some(Step::Sent(write)) = work.map(|work| work.step) else { return false };
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
                let Some(ask) = state.sidecars[sidecar].ask.take() else { return false };
                state.send_up(sidecar, Up::Withdraw { id: ask.id });
            }
            Move::Cancel { leader, name } => {
                let Some(job) = state.leaders[leader].cache[name].job else { return false };
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
            let Some((job, claim)) = job.and_then(|job| Some((job, job.holds()?))) else { continue };
            if usize::from(claim.holder) == sidecar && state.leaders[leader].work[name].is_none() {
                self.start(state, leader, Why::Release { uid: job.uid, id: claim.id });
            }
        }
    }
}

impl Reason {
    /// Of a Job.
    pub(crate) fn of(job: &Job) -> Option<Reason> {
        match job.phase {
            Phase::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}
