//! The dispatcher: where requests of plugins and jobs that can be dispatched meet. One per leader, for all
//! Plugins.
//!
//! A state machine without input and output: [`Dispatcher::handle`] takes one thing that happened and says
//! what to do. It decides nothing for good — a claim counts when the API server has taken it, with
//! the resource version on which the choice was made. What it promises:
//!
//! - never two claims under way for one job, and none for a job that is not accepted, suspended,
//!   held, before its time, or past it;
//! - a request gets the first job in order that it can have and that is neither held nor under way;
//!   while that one is not accepted yet the request waits for the verdict, but not for ever;
//! - a grant is said after the claim was written, after another look at the clock, and at most once
//!   per claim;
//! - a claim that was written and not granted is given back.
//!
//! Nothing here costs anything while nothing happens, and no event makes it look at all jobs or all
//! requests.

mod entry;
mod event;
mod jobs;
mod matching;
mod pending_acceptance;
mod plugin_queue;
mod requests;
mod sessions;
mod slab;
mod snapshot;
#[cfg(test)]
mod tests;
mod timers;
mod write_results;

pub use event::{
    ClaimRef, DialedPod, DispatchLimits, Effect, Event, JobRef, LossCause, PluginRefKey,
    WriteOutcome,
};
pub use snapshot::{ClaimSnapshot, DispatchSnapshot, QueueSnapshot, SessionSnapshot, WaitingJobs};

use entry::{JobIndex, PendingClaim, micros};
use jiff::Timestamp;
use plugin_queue::PluginQueue;
use requests::WorkRequest;
use sessions::PodSession;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// The dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    limits: DispatchLimits,
    paused: bool,
    /// The leader's wall clock at the last event, in microseconds.
    now: i64,
    /// Its monotonic clock then, in milliseconds.
    mono: u64,
    sequence: i64,
    /// The newest resource version that the watch has shown.
    observed: u64,
    jobs: JobIndex,
    queues: Slab<PluginQueue>,
    queue_ids: HashMap<PluginRefKey, u32>,
    /// Queues with something that was not compared yet.
    listed: VecDeque<u32>,
    requests: HashMap<u64, WorkRequest>,
    last_request: u64,
    /// Ends of requests that are held for a time.
    request_deadlines: BTreeSet<(u64, u64)>,
    /// Claims that are being written.
    claiming: usize,
    /// Claims that are being written for Jobs that are gone: uid and claim id.
    orphaned_claims: HashMap<(Box<str>, Arc<str>), (u32, PendingClaim)>,
    sessions: HashMap<u64, PodSession>,
    /// The open session of each pod, by its uid.
    pods: HashMap<Arc<str>, u64>,
    /// Jobs that each pod has, by its uid.
    holders: HashMap<Arc<str>, BTreeSet<u32>>,
}

/// What waits at the dispatcher for one Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats<'a> {
    pub plugin: &'a PluginRefKey,
    /// Jobs that could be dispatched.
    pub ready: usize,
    /// Jobs claimed by its pods, those whose claim is being written included.
    pub running: u32,
    /// The earliest start time of those that could be dispatched and have nothing before them.
    pub oldest: Option<Timestamp>,
}

impl Dispatcher {
    pub fn new(limits: DispatchLimits) -> Self {
        Self {
            limits,
            paused: false,
            now: 0,
            mono: 0,
            sequence: 0,
            observed: 0,
            jobs: JobIndex::default(),
            queues: Slab::default(),
            queue_ids: HashMap::new(),
            listed: VecDeque::new(),
            requests: HashMap::new(),
            last_request: 0,
            request_deadlines: BTreeSet::new(),
            claiming: 0,
            orphaned_claims: HashMap::new(),
            sessions: HashMap::new(),
            pods: HashMap::new(),
            holders: HashMap::new(),
        }
    }

    /// One thing happened; what to do is appended to `effects`, in order. `now` is the leader's wall
    /// clock and decides about start and expiry; `mono_ms` is its monotonic clock and measures how
    /// long a request has waited.
    pub fn handle(
        &mut self,
        now: Timestamp,
        mono_ms: u64,
        event: Event<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let before = std::mem::replace(&mut self.now, micros(now));
        self.mono = self.mono.max(mono_ms);
        if self.now < before {
            self.clock_set_back();
        }
        self.run_timers(effects);
        match event {
            Event::Job(job) => self.handle_job(job, true, effects),
            Event::Answer(job) => self.handle_job(job, false, effects),
            Event::JobGone {
                namespace,
                name,
                uid,
            } => self.job_gone(namespace, name, uid),
            Event::Plugin {
                key,
                max_running,
                max_running_per_client,
            } => self.handle_plugin(key, max_running, max_running_per_client),
            Event::Attached {
                session,
                pod,
                ledger_epoch,
                ledger,
            } => self.attached(session, pod, ledger_epoch, ledger, effects),
            Event::Detached { session } => self.detached(session),
            Event::WorkRequest {
                session,
                claim_id,
                client,
                port,
                wait_ms,
            } => self.request(session, claim_id, client, port, wait_ms, effects),
            Event::CancelRequest { session, claim_id } => self.cancel_request(session, &claim_id),
            Event::ClaimReturned { session, claim } => {
                self.claim_returned(session, &claim, effects)
            }
            Event::ClaimQueryReply {
                session,
                claim,
                known,
            } => self.claim_query_reply(session, &claim, known, effects),
            Event::WriteFinished {
                job,
                claim_id,
                outcome,
            } => self.handle_write_result(&job, &claim_id, outcome, effects),
            Event::Pause => self.paused = true,
            Event::Resume => self.paused = false,
            Event::Tick => {}
        }
        self.match_queues(effects);
        self.expire_requests(effects);
    }

    /// Jobs that could be dispatched now, as far as the last event has shown.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.ready).sum()
    }

    /// Requests that have no answer yet.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Claims that are being written.
    pub fn in_flight(&self) -> usize {
        self.claiming
    }

    /// The earliest start time of the jobs that could be dispatched.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.queue_stats().filter_map(|queue| queue.oldest).min()
    }

    /// What waits, Plugin by Plugin. Looks at every client that has as many jobs as it may have;
    /// for metrics.
    pub fn queue_stats(&self) -> impl Iterator<Item = QueueStats<'_>> {
        self.queues.iter().map(|queue| {
            let first_jobs = queue.first_jobs().map(|id| &self.jobs.entries[id]);
            let accepted = first_jobs.filter(|entry| entry.accepted);
            let oldest = accepted.map(|entry| entry.start).min();
            QueueStats {
                plugin: &queue.key,
                ready: queue.ready,
                running: queue.running,
                oldest: oldest.and_then(|start| Timestamp::from_microsecond(start).ok()),
            }
        })
    }

    /// The queue of a Plugin, made when it is new. Queues stay: there are few Plugins.
    fn queue(&mut self, key: &PluginRefKey) -> u32 {
        if let Some(id) = self.queue_ids.get(key) {
            return *id;
        }
        let id = self.queues.insert(PluginQueue::new(key.clone()));
        self.queue_ids.insert(key.clone(), id);
        id
    }

    /// Puts a queue with something dirty into the list.
    fn schedule_matching(&mut self, id: u32) {
        let queue = &mut self.queues[id];
        if !queue.listed && !queue.dirty.is_empty() {
            queue.listed = true;
            self.listed.push_back(id);
        }
    }

    fn job_name(&self, id: u32) -> JobRef {
        let entry = &self.jobs.entries[id];
        JobRef {
            namespace: self.queues[entry.queue].key.namespace.clone(),
            name: entry.name.as_ref().to_owned(),
            uid: entry.uid.as_ref().to_owned(),
        }
    }

    /// The Job of this name and uid.
    fn find(&self, job: &JobRef) -> Option<u32> {
        let id = self.jobs.find(&job.namespace, &job.name)?;
        (*self.jobs.entries[id].uid == *job.uid).then_some(id)
    }
}
