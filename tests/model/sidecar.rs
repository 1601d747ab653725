//! A sidecar with its ledger, and the one plugin process that it serves.

use crate::Protocol;
use crate::rules::Broken;
use crate::state::{Ask, Down, Entry, EntryState, State, Up};

/// No deadline: the job never expires.
const NEVER: u8 = u8::MAX;

impl Protocol {
    /// Whether the plugin is idle, and its request can go up as an ask.
    pub(crate) fn can_ask(state: &State, sidecar: usize) -> bool {
        let pod = &state.sidecars[sidecar];
        pod.ask.is_none()
            && pod.plugin.is_none()
            && pod.ledger.len() < 2
            && pod
                .ledger
                .iter()
                .all(|entry| matches!(entry.state, EntryState::Answered | EntryState::Lost { .. }))
            && state.listens_to(sidecar).is_some()
            // Nothing can happen any more where everything is over.
            && state.jobs.iter().flatten().any(|job| !job.phase.is_terminal())
    }

    pub(crate) fn ask(state: &mut State, sidecar: usize) {
        let id = state.mint();
        state.sidecars[sidecar].ask = Some(Ask {
            id,
            sent_at: state.now,
        });
        state.send_up(sidecar, Up::Ask { id });
    }

    /// Takes the next message of a session.
    pub(crate) fn receive(&self, state: &mut State, leader: usize, sidecar: usize) {
        let Some(session) = &mut state.sessions[leader][sidecar] else {
            return;
        };
        let message = session.down.remove(0);
        let now = state.now;
        let pod = &mut state.sidecars[sidecar];
        match message {
            Down::Grant {
                uid,
                id,
                attempt,
                remaining,
                held,
            } => {
                let known = pod
                    .ledger
                    .iter()
                    .any(|entry| entry.id == id && entry.uid == uid);
                let Some(ask) = pod.ask.filter(|ask| ask.id == id) else {
                    if !known {
                        state.send_up(sidecar, Up::Released { uid, id });
                    }
                    return;
                };
                let counted_from = if self.breaks(Broken::DeadlineFromArrival) {
                    now
                } else {
                    ask.sent_at + held
                };
                let deadline = remaining.map_or(NEVER, |remaining| counted_from + remaining);
                pod.ask = None;
                let state = EntryState::Granted { own: true };
                pod.ledger.push(Entry {
                    uid,
                    id,
                    attempt,
                    deadline,
                    state,
                });
            }
            Down::Doubt { uid, id } => {
                let known = pod
                    .ledger
                    .iter()
                    .any(|entry| entry.id == id && entry.uid == uid);
                // The promise: what is answered unknown is never handed over.
                if !self.breaks(Broken::FormerSessionHeard) {
                    pod.ask = pod.ask.filter(|ask| ask.id != id);
                }
                state.send_up(sidecar, Up::LedgerAnswer { uid, id, known });
            }
            Down::RowStored { uid, id } => pod.ledger.retain(|entry| {
                entry.id != id
                    || entry.uid != uid
                    || !matches!(entry.state, EntryState::Answered | EntryState::Lost { .. })
            }),
        }
    }

    fn find(state: &State, sidecar: usize, wanted: fn(EntryState) -> bool) -> Option<usize> {
        state.sidecars[sidecar]
            .ledger
            .iter()
            .position(|entry| wanted(entry.state))
    }

    fn is_too_late(&self, state: &State, entry: &Entry) -> bool {
        state.now >= entry.deadline && !self.breaks(Broken::HandOverPastDeadline)
    }

    /// Takes a claim out of the ledger that the plugin does not have and never will.
    fn give_back(state: &mut State, sidecar: usize, at: usize) {
        let entry = state.sidecars[sidecar].ledger.remove(at);
        state.send_up(
            sidecar,
            Up::Released {
                uid: entry.uid,
                id: entry.id,
            },
        );
    }

    /// A grant that a former process took.
    pub(crate) fn can_release(state: &State, sidecar: usize) -> bool {
        state.listens_to(sidecar).is_some() && Self::granted(state, sidecar, false).is_some()
    }

    pub(crate) fn release(state: &mut State, sidecar: usize) {
        if let Some(at) = Self::granted(state, sidecar, false) {
            Self::give_back(state, sidecar, at);
        }
    }

    fn granted(state: &State, sidecar: usize, by_this_process: bool) -> Option<usize> {
        state.sidecars[sidecar].ledger.iter().position(|entry| {
            entry.state
                == EntryState::Granted {
                    own: by_this_process,
                }
        })
    }

    pub(crate) fn can_write_delivered(state: &State, sidecar: usize) -> bool {
        Self::granted(state, sidecar, true).is_some()
    }

    /// The write-ahead: from now on the job counts as delivered.
    pub(crate) fn write_delivered(&self, state: &mut State, sidecar: usize) {
        let Some(at) = Self::granted(state, sidecar, true) else {
            return;
        };
        let entry = state.sidecars[sidecar].ledger[at];
        if self.is_too_late(state, &entry) {
            return Self::give_back(state, sidecar, at);
        }
        let collected = self.breaks(Broken::LedgerAfterHandOver)
            && state.sidecars[sidecar].plugin == Some((entry.uid, entry.attempt));
        state.sidecars[sidecar].ledger[at].state = EntryState::Delivered {
            collected,
            own: true,
        };
    }

    /// A plugin waits for the answer to its request. After a restart of the sidecar it repeats the
    /// request with the same id.
    pub(crate) fn can_hand_over(&self, state: &State, sidecar: usize) -> bool {
        let unanswered = |entry: &Entry| match entry.state {
            EntryState::Granted { own } => own && self.breaks(Broken::LedgerAfterHandOver),
            EntryState::Delivered {
                collected: false,
                own,
            } => own || !self.breaks(Broken::ClientForgets),
            _ => false,
        };
        state.sidecars[sidecar].plugin.is_none()
            && state.sidecars[sidecar].ledger.iter().any(unanswered)
    }

    /// The plugin gets the job, or, after the deadline, nothing.
    pub(crate) fn hand_over(&self, state: &mut State, sidecar: usize) {
        let waiting = Self::find(state, sidecar, |state| {
            matches!(
                state,
                EntryState::Delivered {
                    collected: false,
                    ..
                } | EntryState::Granted { own: true }
            )
        });
        let Some(at) = waiting else { return };
        let entry = state.sidecars[sidecar].ledger[at];
        let repeated = matches!(entry.state, EntryState::Delivered { own: false, .. });
        let unchecked = repeated && self.breaks(Broken::RepeatWithoutDeadline);
        if self.is_too_late(state, &entry) && !unchecked {
            // It still waits for the answer, so it does not have the job.
            return Self::give_back(state, sidecar, at);
        }
        if let EntryState::Delivered { collected, .. } =
            &mut state.sidecars[sidecar].ledger[at].state
        {
            *collected = true;
        }
        state.sidecars[sidecar].plugin = Some((entry.uid, entry.attempt));
        self.note_hand_over(state, sidecar, &entry);
    }

    fn note_hand_over(&self, state: &mut State, sidecar: usize, entry: &Entry) {
        let location = if entry.uid.generation == 0 {
            self.config.jobs[entry.uid.name()]
        } else {
            self.config.recreated
        };
        let wanted = self.config.asks_for[sidecar];
        let expired = self
            .config
            .expires
            .is_some_and(|(expires, _)| state.now >= expires);
        let diary = &mut state.diary;
        let count = &mut diary.handed[entry.uid.index()][usize::from(entry.attempt) - 1];
        *count = (*count + 1).min(2);
        diary.after_expiry |= expired;
        diary.wrong_client |= location.is_some() && wanted.is_some() && location != wanted;
    }

    /// Whether the plugin works on a job.
    pub(crate) fn can_answer(state: &State, sidecar: usize) -> bool {
        let pod = &state.sidecars[sidecar];
        // Only where the ledger is written last can it still say Granted.
        pod.plugin.is_some() && Self::granted(state, sidecar, true).is_none()
    }

    /// The plugin answers. The ledger keeps the answer until it is acknowledged.
    pub(crate) fn answer(state: &mut State, sidecar: usize) {
        let Some((uid, attempt)) = state.sidecars[sidecar].plugin.take() else {
            return;
        };
        state.diary.answered[uid.index()] = true;
        let at = state.sidecars[sidecar].ledger.iter().position(|entry| {
            entry.uid == uid
                && entry.attempt == attempt
                && matches!(entry.state, EntryState::Delivered { .. })
        });
        if let Some(at) = at {
            Self::send_row(state, sidecar, at);
        }
    }

    fn send_row(state: &mut State, sidecar: usize, at: usize) {
        let entry = &mut state.sidecars[sidecar].ledger[at];
        entry.state = EntryState::Answered;
        let row = Up::Row {
            uid: entry.uid,
            id: entry.id,
            attempt: entry.attempt,
        };
        state.send_up(sidecar, row);
    }

    /// A restarted plugin process recovers its jobs; also after the grace, as a late answer.
    pub(crate) fn can_answer_recovered(state: &State, sidecar: usize) -> bool {
        Self::recoverable(state, sidecar).is_some()
    }

    fn recoverable(state: &State, sidecar: usize) -> Option<usize> {
        Self::find(state, sidecar, |state| {
            matches!(state, EntryState::Orphaned | EntryState::Lost { had: true })
        })
    }

    pub(crate) fn answer_recovered(state: &mut State, sidecar: usize) {
        let Some(at) = Self::recoverable(state, sidecar) else {
            return;
        };
        let uid = state.sidecars[sidecar].ledger[at].uid;
        state.diary.answered[uid.index()] = true;
        Self::send_row(state, sidecar, at);
    }

    pub(crate) fn can_end_grace(state: &State, sidecar: usize) -> bool {
        Self::orphaned(state, sidecar).is_some()
    }

    fn orphaned(state: &State, sidecar: usize) -> Option<usize> {
        Self::find(state, sidecar, |state| state == EntryState::Orphaned)
    }

    pub(crate) fn end_grace(state: &mut State, sidecar: usize) {
        if let Some(at) = Self::orphaned(state, sidecar) {
            Self::send_lost(state, sidecar, at, EntryState::Lost { had: true });
        }
    }

    fn send_lost(state: &mut State, sidecar: usize, at: usize, lost: EntryState) {
        let entry = &mut state.sidecars[sidecar].ledger[at];
        entry.state = lost;
        let lost = Up::Lost {
            uid: entry.uid,
            id: entry.id,
        };
        state.send_up(sidecar, lost);
    }

    /// The sidecar process ends and starts again with the same ledger.
    pub(crate) fn crash_sidecar(state: &mut State, sidecar: usize) {
        for session in state
            .sessions
            .iter_mut()
            .filter_map(|pods| pods[sidecar].as_mut())
        {
            session.heard = false;
            session.down.clear();
        }
        let pod = &mut state.sidecars[sidecar];
        pod.ask = None;
        pod.seen = 0;
        for entry in &mut pod.ledger {
            match &mut entry.state {
                EntryState::Granted { own } | EntryState::Delivered { own, .. } => *own = false,
                _ => {}
            }
        }
    }

    /// The node has rebooted: same pod, no process, an empty volume.
    pub(crate) fn lose_volume(state: &mut State, sidecar: usize) {
        Self::crash_sidecar(state, sidecar);
        let pod = &mut state.sidecars[sidecar];
        pod.ledger_epoch += 1;
        pod.ledger.clear();
        pod.plugin = None;
    }

    pub(crate) fn can_crash_plugin(state: &State, sidecar: usize) -> bool {
        let pod = &state.sidecars[sidecar];
        pod.plugin.is_some()
            || pod.ledger.iter().any(|entry| {
                matches!(
                    entry.state,
                    EntryState::Granted { own: true } | EntryState::Delivered { .. }
                )
            })
    }

    /// The plugin process ends. What it had may be recovered by its successor; a request without
    /// an answer ends with it.
    pub(crate) fn crash_plugin(state: &mut State, sidecar: usize) {
        let pod = &mut state.sidecars[sidecar];
        pod.plugin = None;
        let mut uncollected = None;
        for (at, entry) in pod.ledger.iter_mut().enumerate() {
            match entry.state {
                EntryState::Granted { .. } => entry.state = EntryState::Granted { own: false },
                EntryState::Delivered {
                    collected: true, ..
                } => {
                    entry.state = EntryState::Orphaned;
                }
                EntryState::Delivered {
                    collected: false, ..
                } => uncollected = Some(at),
                _ => {}
            }
        }
        if let Some(at) = uncollected {
            Self::send_lost(state, sidecar, at, EntryState::Lost { had: false });
        }
    }
}
