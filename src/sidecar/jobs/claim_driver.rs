//! Feeds the claim machine with what happens, and does what it says: files, answers, messages, calls.
//!
//! Everything here is immediate. What takes time (a body, a call, a slow operator) is a task of its
//! own that comes back with one thing to hear.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use patchbay_launcher::control::StartId;
use patchbay_protocol::session::LedgerEntry;
use patchbay_protocol::session::from_sidecar::Message as Up;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use super::claims::ClaimMachine;
use super::claims::entry::Entry;
use super::claims::event::{CallerId, ClaimId, Effect, Event, Now, RequestId, RowAnswer, SendRow};
use super::ledger::Ledger;
use super::spool::Spool;
use super::{Jobs, clock};
use crate::error::SystemError;
use crate::family::go_plugin::calls;
use crate::family::pcp::commands::Advertised;
use crate::family::pcp::job::{self as pcp_job, Targets};
use crate::paths::{Root, replace};
use crate::random;
use tracing::Instrument;

/// After a write that failed, time is not looked at for so long, in milliseconds.
const AFTER_FAILURE_MS: u64 = 1_000;
/// Largest file of ours that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What becomes of a request for work.
#[derive(Debug)]
pub(crate) enum Answer {
    Nothing,
    Job(Delivery),
}

/// A job on its way to the plugin. Dropped before [`Delivery::take`], the plugin did not see it.
#[derive(Debug)]
pub(crate) struct Delivery {
    document: String,
    /// Absent for a job that went out before.
    undo: Option<(Jobs, ClaimId)>,
}

impl Delivery {
    /// The job's document. From here on the plugin may have it.
    pub(crate) fn take(mut self) -> String {
        self.undo = None;
        std::mem::take(&mut self.document)
    }

    fn disarm(mut self) {
        self.undo = None;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some((jobs, claim)) = self.undo.take() {
            jobs.handle(Event::NotDelivered(claim, 1));
        }
    }
}

/// Where the messages of a session go.
#[derive(Debug)]
struct Outbox {
    messages: mpsc::UnboundedSender<Up>,
    rows: mpsc::UnboundedSender<SendRow>,
}

/// What a session gets.
#[derive(Debug)]
pub struct OpenedSession {
    /// Names the ledger.
    pub ledger_epoch: String,
    /// Every claim that is not settled.
    pub ledger: Vec<LedgerEntry>,
    /// Go before rows.
    pub messages: mpsc::UnboundedReceiver<Up>,
    /// To be sent in pieces, each whole before the next.
    pub rows: mpsc::UnboundedReceiver<SendRow>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ClaimDriver {
    root: Root,
    machine: ClaimMachine,
    ledger: Ledger,
    spool: Spool,
    requests: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    /// Answers to the event that is being handled.
    rows: BTreeMap<CallerId, RowAnswer>,
    statuses: BTreeMap<CallerId, Option<&'static str>>,
    callers: CallerId,
    outbox: Option<(u64, Outbox)>,
    calls: BTreeMap<ClaimId, AbortHandle>,
    channel: Option<(StartId, Channel)>,
    current: Option<StartId>,
    advertised: Option<Advertised>,
    pub(crate) targets: Targets,
    quiet_until_ms: u64,
}

impl ClaimDriver {
    pub(crate) fn open(root: &Root) -> Result<ClaimDriver, SystemError> {
        let spool = Spool::open(root)?;
        let opened = Ledger::open(root, &spool)?;
        for failure in &opened.troubles {
            tracing::error!(
                failure,
                "a file of the ledger cannot be used; its job counts as handed over"
            );
        }
        let advertised = read_small(&root.jobs().join("advertised.json"))
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(ClaimDriver {
            root: root.clone(),
            machine: ClaimMachine::new(opened.entries),
            ledger: opened.ledger,
            spool,
            requests: BTreeMap::new(),
            rows: BTreeMap::new(),
            statuses: BTreeMap::new(),
            callers: 0,
            outbox: None,
            calls: BTreeMap::new(),
            channel: None,
            current: None,
            advertised,
            targets: Targets::default(),
            quiet_until_ms: 0,
        })
    }

    pub(crate) fn machine(&self) -> &ClaimMachine {
        &self.machine
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(crate) fn advertised(&self) -> Option<&Advertised> {
        self.advertised.as_ref()
    }

    pub(crate) fn current(&self) -> Option<StartId> {
        self.current
    }

    /// When time has to be looked at, in milliseconds since boot.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.machine.wake_at().map(|at| at.max(self.quiet_until_ms))
    }

    pub(crate) fn caller(&mut self) -> CallerId {
        self.callers += 1;
        self.callers
    }

    pub(crate) fn row_answer(&mut self, caller: CallerId) -> Option<RowAnswer> {
        self.rows.remove(&caller)
    }

    pub(crate) fn status_answer(&mut self, caller: CallerId) -> Option<Option<&'static str>> {
        self.statuses.remove(&caller)
    }

    pub(crate) fn wait_for(&mut self, request: RequestId) -> oneshot::Receiver<Answer> {
        let (answer, waiting) = oneshot::channel();
        self.requests.insert(request, answer);
        waiting
    }

    /// Whether a connection waits for the answer to this request.
    #[cfg(test)]
    pub(crate) fn waits_for(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request)
    }

    /// The request's connection is gone; another one may have taken its place.
    pub(crate) fn give_up(&mut self, jobs: &Jobs, request: RequestId) {
        if self
            .requests
            .get(&request)
            .is_some_and(oneshot::Sender::is_closed)
        {
            self.requests.remove(&request);
            self.handle(jobs, Event::RequestGone(request));
        }
    }

    pub(crate) fn open_session(
        &mut self,
        jobs: &Jobs,
        session: u64,
        knows_jobs: bool,
    ) -> OpenedSession {
        let (messages, up) = mpsc::unbounded_channel();
        let (rows, out) = mpsc::unbounded_channel();
        // With the old outbox goes whatever it had not sent.
        self.outbox = Some((session, Outbox { messages, rows }));
        let ledger = self.machine.ledger();
        self.handle(
            jobs,
            Event::SessionOpened {
                session,
                jobs: knows_jobs,
            },
        );
        OpenedSession {
            ledger_epoch: if knows_jobs {
                self.ledger.epoch()
            } else {
                String::new()
            },
            ledger: if knows_jobs { ledger } else { Vec::new() },
            messages: up,
            rows: out,
        }
    }

    pub(crate) fn close_session(&mut self, jobs: &Jobs, session: u64) {
        if self
            .outbox
            .as_ref()
            .is_some_and(|(open, _)| *open == session)
        {
            self.outbox = None;
        }
        self.handle(jobs, Event::SessionClosed(session));
    }

    /// The process of the plugin; what an earlier one said of itself is over.
    pub(crate) fn plugin_started(&mut self, jobs: &Jobs, start_id: StartId) {
        self.current = Some(start_id);
        if self
            .advertised
            .as_ref()
            .is_some_and(|said| said.start_id != start_id.0)
        {
            self.advertised = None;
            self.targets = Targets::default();
        }
        self.handle(jobs, Event::PluginStarted(start_id));
    }

    pub(crate) fn plugin_ended(
        &mut self,
        jobs: &Jobs,
        start_id: StartId,
        exit: Option<patchbay_launcher::control::Exit>,
    ) {
        if self.current == Some(start_id) {
            self.current = None;
            self.advertised = None;
            self.targets = Targets::default();
        }
        self.handle(jobs, Event::PluginEnded(start_id, exit));
    }

    pub(crate) fn serves(&mut self, jobs: &Jobs, start_id: StartId, channel: Option<Channel>) {
        let callable = channel.is_some();
        self.channel = channel.map(|channel| (start_id, channel));
        self.handle(jobs, Event::Callable(start_id, callable));
    }

    /// The plugin introduced itself.
    pub(crate) fn introduce(&mut self, advertised: Advertised) {
        let written = serde_json::to_vec(&advertised)
            .map_err(|error| SystemError::new("write the advertised commands", error))
            .and_then(|json| replace(&self.root.jobs().join("advertised.json"), &json, 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, "a next sidecar will not know what the plugin advertises");
        }
        self.advertised = Some(advertised);
    }

    fn tracker(&self) -> std::path::PathBuf {
        self.root.jobs().join("tracker.json")
    }

    pub(crate) fn keep_tracker(&self, document: &[u8]) -> Result<(), SystemError> {
        replace(&self.tracker(), document, 0o600)
    }

    pub(crate) fn read_tracker(&self) -> Option<Vec<u8>> {
        read_small(&self.tracker())
    }

    /// Hears one thing and carries out what follows, and what follows from that.
    pub(crate) fn handle(&mut self, jobs: &Jobs, event: Event) {
        let mut queue = VecDeque::from([event]);
        let mut effects = Vec::new();
        while let Some(event) = queue.pop_front() {
            let mut fresh = || ClaimId(random::wide());
            let now = Now {
                mono_ms: clock::since_boot(),
                fresh: &mut fresh,
            };
            self.machine.handle(now, event, &mut effects);
            let mut failed: Vec<ClaimId> = Vec::new();
            for effect in effects.drain(..) {
                // Callers who get no answer now are told to come again.
                if !failed.iter().any(|claim| effect.needs(*claim))
                    && let Err(claim) = self.carry_out(jobs, effect, &mut queue)
                {
                    failed.push(claim);
                    self.quiet_until_ms = clock::since_boot() + AFTER_FAILURE_MS;
                }
            }
            for claim in failed {
                queue.push_front(Event::NotWritten(claim));
            }
        }
    }

    fn carry_out(
        &mut self,
        jobs: &Jobs,
        effect: Effect,
        queue: &mut VecDeque<Event>,
    ) -> Result<(), ClaimId> {
        match effect {
            Effect::WriteEntry(entry) => {
                if let Err(error) = self.ledger.write(&entry) {
                    tracing::error!(%error, job = entry.job, "the ledger could not be written");
                    return Err(entry.claim);
                }
            }
            Effect::RemoveEntry(claim) => {
                if let Err(error) = self.ledger.remove(claim) {
                    tracing::error!(%error, "a claim could not be removed from the ledger");
                }
            }
            Effect::RemoveSpool(token) => {
                self.spool.remove(token);
                jobs.freed();
            }
            Effect::AnswerNoWork(request) => self.answer(request, Answer::Nothing),
            Effect::Deliver {
                request,
                before_ms,
                count,
                entry,
            } => self.deliver(jobs, request, before_ms, count, &entry, queue),
            Effect::Call { before_ms, entry } => self.call(jobs, before_ms, *entry, queue),
            Effect::CancelCall(claim) => {
                if let Some(call) = self.calls.remove(&claim) {
                    call.abort();
                }
            }
            Effect::AnswerRow(caller, answer) => {
                self.rows.insert(caller, answer);
            }
            Effect::AnswerStatus(caller, word) => {
                self.statuses.insert(caller, word);
            }
            Effect::Send(message) => {
                log(&message);
                if let Some((_, outbox)) = &self.outbox {
                    let _ = outbox.messages.send(message);
                }
            }
            Effect::SendRow(row) => {
                if let Some((_, outbox)) = &self.outbox {
                    let _ = outbox.rows.send(*row);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(waiting) = self.requests.remove(&request) {
            let _ = waiting.send(answer);
        }
    }

    fn deliver(
        &mut self,
        jobs: &Jobs,
        request: RequestId,
        before_ms: Option<u64>,
        count: u32,
        entry: &Entry,
        queue: &mut VecDeque<Event>,
    ) {
        let _span = claim_span(entry).entered();
        let first = count == 1;
        let Some(advertised) = &self.advertised else {
            // Its process is gone, and with it the request.
            self.answer(request, Answer::Nothing);
            queue.push_back(Event::NotDelivered(entry.claim, count));
            return;
        };
        let document = match pcp_job::job(entry, advertised, &mut self.targets) {
            Ok(document) => document,
            Err(unfit) => {
                tracing::warn!(
                    unfit.reason,
                    unfit.message,
                    "the job does not fit the plugin"
                );
                self.answer(request, Answer::Nothing);
                queue.push_back(unfit_event(entry.claim, unfit));
                return;
            }
        };
        let waiting = self.requests.remove(&request);
        let in_time = before_ms.is_none_or(|at| clock::since_boot() < at);
        let delivery = Delivery {
            document,
            undo: first.then(|| (jobs.clone(), entry.claim)),
        };
        let sent = match waiting {
            Some(waiting) if in_time => waiting.send(Answer::Job(delivery)),
            Some(waiting) => {
                let _ = waiting.send(Answer::Nothing);
                Err(Answer::Job(delivery))
            }
            None => Err(Answer::Job(delivery)),
        };
        match sent {
            Ok(()) => tracing::info!("the job is delivered"),
            Err(Answer::Job(delivery)) => {
                // The claim machine handles an event right now: this one is next.
                delivery.disarm();
                queue.push_back(Event::NotDelivered(entry.claim, count));
            }
            Err(Answer::Nothing) => {}
        }
    }

    fn call(
        &mut self,
        jobs: &Jobs,
        before_ms: Option<u64>,
        entry: Entry,
        queue: &mut VecDeque<Event>,
    ) {
        let claim = entry.claim;
        let in_time = before_ms.is_none_or(|at| clock::since_boot() < at);
        let channel = self
            .channel
            .as_ref()
            .filter(|(start_id, _)| Some(*start_id) == self.current && in_time)
            .map(|(_, channel)| channel.clone());
        let Some(channel) = channel else {
            queue.push_back(Event::NotDelivered(claim, 1));
            return;
        };
        let span = claim_span(&entry);
        span.in_scope(|| tracing::info!("a call begins"));
        let jobs = jobs.clone();
        let call = async move {
            calls::run(&jobs, channel, entry).await;
            jobs.call_ended(claim);
        };
        let task = tokio::spawn(call.instrument(span));
        self.calls.insert(claim, task.abort_handle());
    }

    pub(crate) fn call_ended(&mut self, claim: ClaimId) {
        self.calls.remove(&claim);
    }
}

/// What is logged about a claim names its job.
fn claim_span(entry: &Entry) -> tracing::Span {
    tracing::info_span!(
        "claim",
        job = entry.job,
        uid = entry.job_uid,
        claim = %entry.claim,
        attempt = entry.attempt
    )
}

pub(crate) fn unfit_event(claim: ClaimId, unfit: pcp_job::Unfit) -> Event {
    Event::Unfit {
        claim,
        reason: unfit.reason,
        message: patchbay_protocol::escape::printable(unfit.message.as_bytes(), 1024),
        at_ms: clock::unix_millis(),
    }
}

fn log(message: &Up) {
    match message {
        Up::ClaimReturned(claim_returned) => {
            tracing::info!(
                job = claim_returned.job,
                why = claim_returned.why,
                "a job is given back"
            );
        }
        Up::Lost(lost) => tracing::warn!(job = lost.job, text = lost.message, "a job is lost"),
        Up::ClaimQueryReply(answer) => tracing::info!(
            job = answer.job,
            known = answer.known,
            delivered = answer.delivered,
            "a doubt is answered"
        ),
        _ => {}
    }
}

/// A file of ours; `None` when it does not exist.
fn read_small(path: &std::path::Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The clerk is shared.
pub(crate) type Shared = Arc<std::sync::Mutex<ClaimDriver>>;
