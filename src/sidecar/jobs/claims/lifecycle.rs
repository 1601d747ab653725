//! The plugin process comes and goes, and claims end.

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{self, Cancel};

use super::entry::{Entry, Kind, ProcessEnd, ProcessGone, State};
use super::event::{CallerId, ClaimId, Effect, Now};
use super::{ClaimMachine, REMEMBERED, requests};

/// Number of row ids that are kept of a settled claim.
const PAST_ROW_IDS: usize = 8;
/// Number of ended processes that are remembered.
const ENDS: usize = 8;

impl ClaimMachine {
    pub(super) fn plugin_started(&mut self, start_id: StartId, effects: &mut Vec<Effect>) {
        if self.current == Some(start_id) {
            return;
        }
        if let Some(other) = self.current {
            self.plugin_ended(other, None, effects);
        }
        self.current = Some(start_id);
        self.stopping = false;
        self.callable = false;
        self.wait_ms = requests::WAITS_MS[0];
    }

    pub(super) fn plugin_ended(
        &mut self,
        start_id: StartId,
        exit: Option<Exit>,
        effects: &mut Vec<Effect>,
    ) {
        if self.current == Some(start_id) {
            self.current = None;
            self.callable = false;
            self.wait_ms = requests::WAITS_MS[0];
            let waiting = std::mem::take(&mut self.waiters);
            effects.extend(waiting.into_keys().map(Effect::AnswerNoWork));
        }
        self.ended.push_back((start_id, ProcessEnd::new(exit)));
        if self.ended.len() > ENDS {
            self.ended.pop_front();
        }
    }

    /// How a process ended; `None` while it may live.
    fn end_of(&self, start_id: StartId) -> Option<ProcessEnd> {
        if self.current == Some(start_id) {
            return None;
        }
        let ends = self.ended.iter().rev();
        let mut seen = ends
            .filter(|(ended, _)| *ended == start_id)
            .map(|(_, ended)| *ended);
        let last = seen.next();
        // One who saw it knows more than one who only missed it.
        let known = last
            .filter(|ended| *ended != ProcessEnd::Unseen)
            .or_else(|| seen.find(|ended| *ended != ProcessEnd::Unseen));
        known
            .or(last)
            .or_else(|| self.current.map(|_| ProcessEnd::Unseen))
    }

    /// What an entry does not say yet about the end of its process.
    pub(super) fn unrecorded_end(&self, entry: &Entry) -> Option<ProcessEnd> {
        let State::Delivered { start_id, gone } = &entry.state else {
            return None;
        };
        let ended = self.end_of(StartId(*start_id))?;
        let news = match gone {
            None => true,
            Some(gone) => gone.ended == ProcessEnd::Unseen && ended != ProcessEnd::Unseen,
        };
        news.then_some(ended)
    }

    /// Writes down which claims have lost their process.
    pub(super) fn record_process_ends(&mut self, now: &Now<'_>, effects: &mut Vec<Effect>) {
        let held: Vec<(ClaimId, Kind, ProcessEnd)> = self
            .entries
            .values()
            .filter_map(|entry| {
                Some((entry.claim, entry.kind.clone(), self.unrecorded_end(entry)?))
            })
            .collect();
        let lost_at_ms = now.mono_ms + self.recover_ms;
        for (claim, kind, ended) in held {
            match kind {
                Kind::Call => {
                    let message =
                        format!("the plugin process {ended} while the call was under way");
                    self.lose(claim, ended, message, effects);
                }
                Kind::Command { .. } => {
                    self.change(claim, effects, |entry| {
                        if let State::Delivered { gone, .. } = &mut entry.state {
                            let lost_at_ms =
                                gone.as_ref().map_or(lost_at_ms, |gone| gone.lost_at_ms);
                            *gone = Some(ProcessGone { ended, lost_at_ms });
                        }
                    });
                }
            }
        }
    }

    /// Nobody will answer.
    pub(super) fn lose(
        &mut self,
        claim: ClaimId,
        ended: ProcessEnd,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        self.stop_call(claim, effects);
        let entry = self.change(claim, effects, |entry| {
            entry.state = State::Lost { ended, message };
        });
        // Its rows go first: what they bring belongs to the job that is lost.
        let said = entry
            .filter(|entry| entry.pending.is_empty())
            .and_then(state_message);
        if let Some(said) = said {
            self.say(said, effects);
        }
    }

    pub(super) fn cancelled(&mut self, cancel: &Cancel, effects: &mut Vec<Effect>) {
        let claim = cancel.claim.as_ref();
        let Some(claim) = claim.and_then(|name| ClaimId::parse(&name.claim_id)) else {
            return;
        };
        self.forget_work_request(claim);
        self.stop_call(claim, effects);
        let Some(entry) = self.entries.get(&claim) else {
            return;
        };
        let phase = "Failed".to_owned();
        if entry.pending.is_empty() {
            self.settle(claim, phase, effects);
        } else {
            self.change(claim, effects, |entry| entry.state = State::Over { phase });
        }
    }

    /// Forgets a work request that will not be answered by a job; another one is sent for its waiter.
    pub(super) fn forget_work_request(&mut self, claim: ClaimId) {
        if self.work_requests.remove(&claim).is_some() {
            for waiter in self.waiters.values_mut() {
                if waiter.work_request == Some(claim) {
                    waiter.work_request = None;
                }
            }
        }
    }

    /// The operator knows the claim's end; only what comes late can follow.
    pub(super) fn settle(&mut self, claim: ClaimId, phase: String, effects: &mut Vec<Effect>) {
        let Some(mut entry) = self.entries.remove(&claim) else {
            return;
        };
        effects.push(Effect::RemoveEntry(claim));
        self.kept.remove(&claim);
        self.deliveries.remove(&claim);
        entry.state = State::Over { phase };
        entry.spec = None;
        entry.pending = Vec::new();
        let spare = entry.known_rows.len().saturating_sub(PAST_ROW_IDS);
        entry.known_rows.drain(..spare);
        entry.known_rows.shrink_to_fit();
        self.past.push_back(entry);
        if self.past.len() > REMEMBERED {
            self.past.pop_front();
        }
    }

    pub(super) fn active(&mut self, caller: CallerId, job_uid: &str, effects: &mut Vec<Effect>) {
        let found = self
            .of_job(job_uid)
            .map(|entry| (entry.claim, entry.holder()));
        if let Some((claim, Some(_))) = found {
            self.start(claim, effects);
        }
        let word = self.of_job(job_uid).and_then(Entry::pcp_status);
        effects.push(Effect::AnswerStatus(caller, word));
    }

    pub(super) fn call_sent(&mut self, claim: ClaimId, effects: &mut Vec<Effect>) {
        if self.entries.get(&claim).and_then(Entry::holder).is_some() {
            self.start(claim, effects);
        }
    }

    /// Somebody is at work on it.
    fn start(&mut self, claim: ClaimId, effects: &mut Vec<Effect>) {
        let current = self.current;
        let known = self.entries.get(&claim).is_some_and(|entry| {
            entry.started
                && entry.spec.is_none()
                && (current.is_none() || entry.holder() == current)
        });
        if known {
            return;
        }
        let entry = self.change(claim, effects, |entry| {
            entry.started = true;
            entry.spec = None;
            mark_alive(entry, current);
        });
        if let Some(said) = entry.and_then(state_message) {
            self.say(said, effects);
        }
    }
}

/// A claim as it stands when the sidecar's process begins.
pub(super) fn wake(entry: &mut Entry) {
    if entry.kind == Kind::Call && entry.holder().is_some() {
        entry.state = State::Lost {
            ended: ProcessEnd::Unseen,
            message: "the sidecar ended while the call was under way".to_owned(),
        };
    }
}

/// What every new session has to hear again of a claim.
pub(super) fn state_message(entry: &Entry) -> Option<Up> {
    match &entry.state {
        State::Lost { ended, message } => Some(Up::Lost(session::Lost {
            claim: Some(entry.name()),
            job: entry.job.clone(),
            exit: ended.to_exit(),
            message: message.clone(),
        })),
        State::Delivered { .. } if entry.started => Some(Up::Started(session::Started {
            claim: Some(entry.name()),
            job: entry.job.clone(),
        })),
        _ => None,
    }
}

/// A sign of life of a claim: whichever process runs now has it.
pub(super) fn mark_alive(entry: &mut Entry, current: Option<StartId>) {
    if let (State::Delivered { start_id, gone }, Some(current), Kind::Command { .. }) =
        (&mut entry.state, current, &entry.kind)
    {
        *start_id = current.0;
        *gone = None;
    }
}
