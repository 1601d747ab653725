//! The claim machine: what the sidecar knows of its work requests and claims, as a state machine that
//! takes one event at a time and answers with effects.
//!
//! Nothing here reads a clock, draws a random number or touches a file; [`crate::jobs`] does that,
//! and so can a simulation. `event.rs` holds events and effects, `entry.rs` a claim, `requests.rs` the way
//! from a request to a job, `timers.rs` what time brings about, `rows.rs` the way of output,
//! `lifecycle.rs` how claims end.
//!
//! What it promises: a claim is delivered at most once (the same request may be answered again),
//! never without an entry that is durable, never at or after its deadline, and only for a work request of
//! the session that stands. A claim that is returned was never delivered.

pub mod entry;
pub mod event;
mod lifecycle;
mod requests;
mod rows;
mod snapshot;
mod timers;

#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use patchbay_launcher::control::StartId;
use patchbay_protocol::session::LedgerEntry;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;

use entry::{Entry, ProcessEnd, State};
use event::{ClaimId, Effect, Event, Filter, Now, RequestId};
use requests::{OpenWorkRequest, Waiter};
pub use snapshot::ClaimsSnapshot;

/// Number of settled claims that are remembered, for output that comes late.
pub const REMEMBERED: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct ClaimMachine {
    per_pod: u32,
    recover_ms: u64,
    current: Option<StartId>,
    /// Processes that are gone, the last ones.
    ended: VecDeque<(StartId, ProcessEnd)>,
    /// It takes calls.
    callable: bool,
    shutting_down: bool,
    /// The plugin process is on its way out.
    stopping: bool,
    /// The session, if it knows Jobs.
    session: Option<u64>,
    /// The newest session, whether or not it knows Jobs, also when it is over.
    newest: u64,
    /// Requests that wait for their answer.
    waiters: BTreeMap<RequestId, Waiter>,
    /// What was asked of the operator in this session.
    work_requests: BTreeMap<ClaimId, OpenWorkRequest>,
    /// How long the next work request is held, in milliseconds.
    wait_ms: u64,
    /// No work request for a call goes out before.
    calls_requested_from: u64,
    entries: BTreeMap<ClaimId, Entry>,
    /// What was asked for the jobs that wait here for the next request of their kind.
    kept: BTreeMap<ClaimId, Filter>,
    /// How often each claim went out towards the plugin in the life of this process.
    deliveries: BTreeMap<ClaimId, u32>,
    /// Settled claims, the oldest first.
    past: VecDeque<Entry>,
    /// Rows that this session has not been sent yet.
    unsent: VecDeque<(ClaimId, u32)>,
    /// Rows that were sent and are not acknowledged.
    unacknowledged: BTreeSet<(ClaimId, u32)>,
    /// Entries as they were before this call changed them.
    undo: Vec<(ClaimId, Option<Entry>)>,
}

impl ClaimMachine {
    /// With what the ledger held. Calls that were under way ended with the process that made them.
    pub fn new(entries: Vec<Entry>) -> ClaimMachine {
        let mut entries: BTreeMap<ClaimId, Entry> = entries
            .into_iter()
            .map(|entry| (entry.claim, entry))
            .collect();
        entries.values_mut().for_each(lifecycle::wake);
        ClaimMachine {
            per_pod: 0,
            recover_ms: 30_000,
            current: None,
            ended: VecDeque::new(),
            callable: false,
            shutting_down: false,
            stopping: false,
            session: None,
            newest: 0,
            waiters: BTreeMap::new(),
            work_requests: BTreeMap::new(),
            wait_ms: requests::WAITS_MS[0],
            calls_requested_from: 0,
            entries,
            kept: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            past: VecDeque::new(),
            unsent: VecDeque::new(),
            unacknowledged: BTreeSet::new(),
            undo: Vec::new(),
        }
    }

    /// Hears one thing and appends what is to be done.
    pub fn handle(&mut self, mut now: Now<'_>, event: Event, effects: &mut Vec<Effect>) {
        let now = &mut now;
        if let Event::NotWritten(claim) = event {
            return self.not_written(now, claim, effects);
        }
        self.undo.clear();
        match event {
            Event::Tick | Event::NotWritten(_) => {}
            Event::Configured {
                per_pod,
                recover_ms,
            } => (self.per_pod, self.recover_ms) = (per_pod, recover_ms),
            Event::PluginStarted(start_id) => self.plugin_started(start_id, effects),
            Event::PluginEnded(start_id, exit) => self.plugin_ended(start_id, exit, effects),
            Event::Callable(start_id, callable) => {
                if self.current == Some(start_id) {
                    self.callable = callable;
                }
            }
            Event::SessionOpened { session, jobs } => self.open(session, jobs, effects),
            Event::SessionClosed(session) => {
                if self.newest == session {
                    self.end_session();
                }
            }
            Event::Down(session, message) => {
                if self.session == Some(session) {
                    self.operator_message(now, message, effects);
                }
            }
            Event::Request(request, filter) => self.request(now, request, filter, effects),
            Event::RequestGone(request) => self.request_gone(now, request),
            Event::NotDelivered(claim, count) => self.not_delivered(now, claim, count, effects),
            Event::Unfit {
                claim,
                reason,
                message,
                at_ms,
            } => self.unfit(claim, reason, message, at_ms, effects),
            Event::RowGiven(given) => self.row_given(*given, effects),
            Event::Active(caller, job_uid) => self.active(caller, &job_uid, effects),
            Event::CallSent(claim) => self.call_sent(claim, effects),
            Event::Stopping(start_id) => self.stopping |= self.current == Some(start_id),
            Event::ShuttingDown => self.shutting_down = true,
        }
        self.record_process_ends(now, effects);
        self.run_timers(now, effects);
        self.send_work_requests(now, effects);
        self.send_rows(effects);
    }

    /// When [`Event::Tick`] is due, on the claim machine's clock.
    pub fn wake_at(&self) -> Option<u64> {
        let claims = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                // Could not be written down so far.
                _ if self.unrecorded_end(entry).is_some() => Some(0),
                State::Granted { keep_until_ms } => {
                    Some(entry.deadline_ms.unwrap_or(u64::MAX).min(*keep_until_ms))
                }
                State::Delivered {
                    gone: Some(gone), ..
                } => Some(gone.lost_at_ms),
                _ => None,
            });
        let waiters = self.waiters.values().map(|waiter| waiter.answer_at_ms);
        let work_requests = self
            .work_requests
            .values()
            .filter_map(|work_request| work_request.wake_at());
        let calls = self.wants_call().then_some(self.calls_requested_from);
        claims
            .chain(waiters)
            .chain(work_requests)
            .chain(calls)
            .min()
    }

    /// Every claim that is not settled, for the greeting.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.entries
            .values()
            .filter(|entry| !entry.is_over())
            .map(Entry::to_ledger_entry)
            .collect()
    }

    /// The claims as they stand.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The newest claim of a Job, also one that is settled.
    pub fn of_job(&self, job_uid: &str) -> Option<&Entry> {
        let living = self
            .entries
            .values()
            .filter(|entry| entry.job_uid == job_uid);
        living.max_by_key(|entry| entry.attempt).or_else(|| {
            let mut past = self.past.iter().rev();
            past.find(|entry| entry.job_uid == job_uid)
        })
    }

    /// Whether no further job may go to the plugin.
    fn is_closed(&self) -> bool {
        self.shutting_down || self.stopping
    }

    /// Jobs that the plugin process has and has not answered.
    pub fn unanswered(&self) -> usize {
        let holders = self.entries.values().filter_map(entry::Entry::holder);
        holders
            .filter(|holder| self.current == Some(*holder))
            .count()
    }

    /// Calls under way.
    pub fn calls(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.kind == entry::Kind::Call && entry.holder().is_some())
            .count()
    }

    /// A new session: nothing of an older one counts from here on.
    fn open(&mut self, session: u64, jobs: bool, effects: &mut Vec<Effect>) {
        self.end_session();
        self.newest = session;
        self.session = jobs.then_some(session);
        if !jobs {
            return;
        }
        let granted: Vec<ClaimId> = self
            .entries
            .values()
            .filter(|entry| !entry.is_delivered())
            .map(|entry| entry.claim)
            .collect();
        for claim in granted {
            self.release(
                claim,
                "the session or the sidecar ended before the hand-over",
                effects,
            );
        }
        for entry in self.entries.values() {
            self.unsent
                .extend(entry.pending.iter().map(|row| (entry.claim, row.number)));
            if entry.pending.is_empty() {
                effects.extend(lifecycle::state_message(entry).map(Effect::Send));
            }
        }
    }

    fn end_session(&mut self) {
        self.session = None;
        self.unsent.clear();
        self.unacknowledged.clear();
        self.work_requests.clear();
        for waiter in self.waiters.values_mut() {
            waiter.work_request = None;
        }
        self.calls_requested_from = 0;
    }

    fn operator_message(&mut self, now: &mut Now<'_>, message: Down, effects: &mut Vec<Effect>) {
        match message {
            Down::Grant(grant) => self.granted(now, grant, effects),
            Down::NoWork(no_work) => {
                if let Some(claim) = ClaimId::parse(&no_work.claim_id) {
                    self.no_work(now, claim, effects);
                }
            }
            Down::ClaimQuery(doubt) => self.claim_queried(doubt, effects),
            Down::RowStored(stored) => self.row_stored(stored, effects),
            Down::Cancel(cancel) => self.cancelled(&cancel, effects),
            Down::Hello(_)
            | Down::Configure(_)
            | Down::LogLevel(_)
            | Down::AllowStart(_)
            | Down::Ping(_) => {}
        }
    }

    fn say(&self, message: Up, effects: &mut Vec<Effect>) {
        if self.session.is_some() {
            effects.push(Effect::Send(message));
        }
    }

    /// Changes an entry, durably, and returns it as it is then.
    fn change(
        &mut self,
        claim: ClaimId,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Entry),
    ) -> Option<&Entry> {
        let entry = self.entries.get_mut(&claim)?;
        self.undo.push((claim, Some(entry.clone())));
        change(entry);
        effects.push(Effect::WriteEntry(Box::new(entry.clone())));
        Some(entry)
    }

    /// The disk would not take what [`ClaimMachine::change`] wrote: it did not happen.
    fn not_written(&mut self, now: &mut Now<'_>, claim: ClaimId, effects: &mut Vec<Effect>) {
        let Some(first) = self.undo.iter().position(|(changed, _)| *changed == claim) else {
            return;
        };
        let (_, before) = self.undo.swap_remove(first);
        match before {
            Some(entry) => {
                // What was on its way may not have gone, and an acknowledgement that could not be
                // noted has to come again.
                self.unsent.retain(|(of, _)| *of != claim);
                self.unacknowledged.retain(|(of, _)| *of != claim);
                if self.session.is_some() {
                    let rows = entry.pending.iter().map(|row| (claim, row.number));
                    self.unsent.extend(rows);
                }
                if entry.is_over() && entry.pending.is_empty() {
                    // Revived for a late row.
                    self.entries.remove(&claim);
                    self.past.push_back(entry);
                } else {
                    self.entries.insert(claim, entry);
                }
            }
            None => {
                let request = self.entries.get(&claim).and_then(Entry::request);
                self.release(claim, "the ledger could not be written", effects);
                if let Some(request) = request {
                    effects.push(Effect::AnswerNoWork(request));
                }
                self.calls_requested_from = now.mono_ms + requests::REST_MS;
            }
        }
    }

    /// Gives a claim back that was never delivered.
    fn release(&mut self, claim: ClaimId, why: &str, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.entries.remove(&claim) {
            self.kept.remove(&claim);
            self.deliveries.remove(&claim);
            effects.push(Effect::RemoveEntry(claim));
            let claim_returned = patchbay_protocol::session::ClaimReturned {
                claim: Some(entry.name()),
                job: entry.job,
                why: why.to_owned(),
            };
            self.say(Up::ClaimReturned(claim_returned), effects);
        }
    }
}
