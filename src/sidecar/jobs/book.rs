//! The book: what the sidecar knows of its asks and claims, as a state machine. Something is heard
//! at a time, and out comes what has to be done.
//!
//! Nothing here reads a clock, draws a random number or touches a file; [`crate::jobs`] does that,
//! and so can a simulation. `words.rs` holds what is heard and done, `entry.rs` a claim, `asks.rs`
//! the way from a request to a job, `time.rs` what time brings about, `rows.rs` the way of output,
//! `life.rs` how claims end.
//!
//! What it promises: a claim is handed over at most once (the same request may be answered again),
//! never without an entry that is durable, never at or after its deadline, and only for an ask of
//! the session that stands. A claim that is given back was never handed over.

mod asks;
pub mod entry;
mod life;
mod rows;
mod time;
pub mod words;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use patchbay_launcher::control::StartId;
use patchbay_protocol::session::LedgerEntry;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;

use asks::{Ask, Waiter};
use entry::{Ended, Entry, State};
use words::{ClaimId, Filter, Heard, Now, RequestId, Todo};

/// So many settled claims are remembered, for output that comes late.
pub const REMEMBERED: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Book {
    per_pod: u32,
    recover_ms: u64,
    /// The plugin process.
    current: Option<StartId>,
    /// Processes that are gone, the last ones.
    ended: VecDeque<(StartId, Ended)>,
    /// It takes calls.
    callable: bool,
    leaving: bool,
    /// The plugin process is on its way out.
    stopping: bool,
    /// The session, if it knows Jobs.
    session: Option<u64>,
    /// The newest session, whether or not it knows Jobs, also when it is over.
    newest: u64,
    /// Requests that wait for their answer.
    waiters: BTreeMap<RequestId, Waiter>,
    /// What was asked of the operator in this session.
    asks: BTreeMap<ClaimId, Ask>,
    /// How long the next ask is held, in milliseconds.
    hold_ms: u64,
    /// No ask for a call goes out before.
    call_asks_from: u64,
    /// The ledger.
    entries: BTreeMap<ClaimId, Entry>,
    /// What was asked for the jobs that wait here for the next request of their kind.
    kept: BTreeMap<ClaimId, Filter>,
    /// How often each claim went out towards the plugin in the life of this process.
    handed: BTreeMap<ClaimId, u32>,
    /// Settled claims, the oldest first.
    past: VecDeque<Entry>,
    /// Rows that this session has not been sent yet.
    unsent: VecDeque<(ClaimId, u32)>,
    /// Rows that were sent and are not acknowledged.
    flying: BTreeSet<(ClaimId, u32)>,
    /// Entries as they were before this call changed them.
    undo: Vec<(ClaimId, Option<Entry>)>,
}

impl Book {
    /// With what the ledger held. Calls that were under way ended with the process that made them.
    pub fn new(entries: Vec<Entry>) -> Book {
        let mut entries: BTreeMap<ClaimId, Entry> = entries
            .into_iter()
            .map(|entry| (entry.claim, entry))
            .collect();
        entries.values_mut().for_each(life::wake);
        Book {
            per_pod: 0,
            recover_ms: 30_000,
            current: None,
            ended: VecDeque::new(),
            callable: false,
            leaving: false,
            stopping: false,
            session: None,
            newest: 0,
            waiters: BTreeMap::new(),
            asks: BTreeMap::new(),
            hold_ms: asks::HOLDS[0],
            call_asks_from: 0,
            entries,
            kept: BTreeMap::new(),
            handed: BTreeMap::new(),
            past: VecDeque::new(),
            unsent: VecDeque::new(),
            flying: BTreeSet::new(),
            undo: Vec::new(),
        }
    }

    /// Hears one thing and appends what is to be done.
    pub fn hear(&mut self, mut now: Now<'_>, heard: Heard, todo: &mut Vec<Todo>) {
        let now = &mut now;
        if let Heard::NotWritten(claim) = heard {
            return self.not_written(now, claim, todo);
        }
        self.undo.clear();
        match heard {
            Heard::Tick | Heard::NotWritten(_) => {}
            Heard::Configured {
                per_pod,
                recover_ms,
            } => (self.per_pod, self.recover_ms) = (per_pod, recover_ms),
            Heard::PluginStarted(start_id) => self.plugin_started(start_id, todo),
            Heard::PluginEnded(start_id, exit) => self.plugin_ended(start_id, exit, todo),
            Heard::Callable(start_id, callable) => {
                if self.current == Some(start_id) {
                    self.callable = callable;
                }
            }
            Heard::SessionOpened { session, jobs } => self.open(session, jobs, todo),
            Heard::SessionClosed(session) => {
                if self.newest == session {
                    self.end_session();
                }
            }
            Heard::Down(session, message) => {
                if self.session == Some(session) {
                    self.down(now, message, todo);
                }
            }
            Heard::Request(request, filter) => self.request(now, request, filter, todo),
            Heard::RequestGone(request) => self.request_gone(now, request),
            Heard::NotHanded(claim, count) => self.not_handed(now, claim, count, todo),
            Heard::Unfit {
                claim,
                reason,
                message,
                at_ms,
            } => self.unfit(claim, reason, message, at_ms, todo),
            Heard::RowGiven(given) => self.row_given(*given, todo),
            Heard::Active(caller, job_uid) => self.active(caller, &job_uid, todo),
            Heard::CallSent(claim) => self.call_sent(claim, todo),
            Heard::Stopping(start_id) => self.stopping |= self.current == Some(start_id),
            Heard::Leaving => self.leaving = true,
        }
        self.notice_ends(now, todo);
        self.settle_time(now, todo);
        self.keep_asking(now, todo);
        self.send_rows(todo);
    }

    /// When [`Heard::Tick`] is due, on the book's clock.
    pub fn wake_at(&self) -> Option<u64> {
        let claims = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                // Could not be written down so far.
                _ if self.unnoticed(entry).is_some() => Some(0),
                State::Granted { keep_until_ms } => {
                    Some(entry.deadline_ms.unwrap_or(u64::MAX).min(*keep_until_ms))
                }
                State::Delivered {
                    gone: Some(gone), ..
                } => Some(gone.lost_at_ms),
                _ => None,
            });
        let waiters = self.waiters.values().map(|waiter| waiter.answer_at_ms);
        let asks = self.asks.values().filter_map(|ask| ask.wake_at());
        let calls = self.wants_call().then_some(self.call_asks_from);
        claims.chain(waiters).chain(asks).chain(calls).min()
    }

    /// Every claim that is not settled, for the greeting.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.entries
            .values()
            .filter(|entry| !entry.is_over())
            .map(Entry::told)
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
        self.leaving || self.stopping
    }

    /// Jobs that the plugin process has and has not answered.
    pub fn held(&self) -> usize {
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
    fn open(&mut self, session: u64, jobs: bool, todo: &mut Vec<Todo>) {
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
                todo,
            );
        }
        for entry in self.entries.values() {
            self.unsent
                .extend(entry.pending.iter().map(|row| (entry.claim, row.number)));
            if entry.pending.is_empty() {
                todo.extend(life::repeated(entry).map(Todo::Send));
            }
        }
    }

    fn end_session(&mut self) {
        self.session = None;
        self.unsent.clear();
        self.flying.clear();
        self.asks.clear();
        for waiter in self.waiters.values_mut() {
            waiter.ask = None;
        }
        self.call_asks_from = 0;
    }

    fn down(&mut self, now: &mut Now<'_>, message: Down, todo: &mut Vec<Todo>) {
        match message {
            Down::Grant(grant) => self.granted(now, grant, todo),
            Down::Nothing(nothing) => {
                if let Some(claim) = ClaimId::parse(&nothing.claim_id) {
                    self.nothing(now, claim, todo);
                }
            }
            Down::Doubt(doubt) => self.doubted(doubt, todo),
            Down::RowStored(stored) => self.row_stored(stored, todo),
            Down::Cancel(cancel) => self.cancelled(&cancel, todo),
            Down::Hello(_) | Down::Configure(_) | Down::Release(_) | Down::Ping(_) => {}
        }
    }

    fn say(&self, message: Up, todo: &mut Vec<Todo>) {
        if self.session.is_some() {
            todo.push(Todo::Send(message));
        }
    }

    /// Changes an entry, durably, and returns it as it is then.
    fn change(
        &mut self,
        claim: ClaimId,
        todo: &mut Vec<Todo>,
        change: impl FnOnce(&mut Entry),
    ) -> Option<&Entry> {
        let entry = self.entries.get_mut(&claim)?;
        self.undo.push((claim, Some(entry.clone())));
        change(entry);
        todo.push(Todo::WriteEntry(Box::new(entry.clone())));
        Some(entry)
    }

    /// The disk would not take what [`Book::change`] wrote: it did not happen.
    fn not_written(&mut self, now: &mut Now<'_>, claim: ClaimId, todo: &mut Vec<Todo>) {
        let Some(first) = self.undo.iter().position(|(changed, _)| *changed == claim) else {
            return;
        };
        let (_, before) = self.undo.swap_remove(first);
        match before {
            Some(entry) => {
                // What was on its way may not have gone, and an acknowledgement that could not be
                // noted has to come again.
                self.unsent.retain(|(of, _)| *of != claim);
                self.flying.retain(|(of, _)| *of != claim);
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
                self.release(claim, "the ledger could not be written", todo);
                if let Some(request) = request {
                    todo.push(Todo::AnswerNothing(request));
                }
                self.call_asks_from = now.mono_ms + asks::REST_MS;
            }
        }
    }

    /// Gives a claim back that was never handed over.
    fn release(&mut self, claim: ClaimId, why: &str, todo: &mut Vec<Todo>) {
        if let Some(entry) = self.entries.remove(&claim) {
            self.kept.remove(&claim);
            self.handed.remove(&claim);
            todo.push(Todo::RemoveEntry(claim));
            let released = patchbay_protocol::session::Released {
                claim: Some(entry.name()),
                job: entry.job,
                why: why.to_owned(),
            };
            self.say(Up::Released(released), todo);
        }
    }
}
