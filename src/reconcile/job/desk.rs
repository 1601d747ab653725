//! The desk: where asks of plugins and jobs that can be handed out meet. One per leader, for all
//! Plugins.
//!
//! A state machine without input and output: [`Desk::hear`] takes one thing that happened and says
//! what to do. It decides nothing for good — a claim counts when the API server has taken it, with
//! the resource version on which the choice was made. What it promises:
//!
//! - never two claims under way for one job, and none for a job that is not accepted, suspended,
//!   held, before its time, or past it;
//! - an ask gets the first job in order that it can have and that is neither held nor under way;
//!   while that one is not judged yet the ask waits for the verdict, but not for ever;
//! - a grant is said after the claim was written, after another look at the clock, and at most once
//!   per claim;
//! - a claim that was written and not granted is given back.
//!
//! Nothing here costs anything while nothing happens, and no event makes it look at all jobs or all
//! asks.

mod asks;
mod clock;
mod entry;
mod jobs;
mod lane;
mod matching;
mod sessions;
mod slots;
#[cfg(test)]
mod tests;
mod unjudged;
mod words;
mod written;

pub use words::{
    ClaimName, Heard, JobName, LedgerEntry, Limits, Lost, Outcome, PluginRefKey, PodName, Todo,
};

use asks::Ask;
use entry::{Flight, Jobs, micros};
use jiff::Timestamp;
use lane::Lane;
use sessions::Session;
use slots::Slots;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    limits: Limits,
    paused: bool,
    /// The leader's wall clock at the last event, in microseconds.
    now: i64,
    /// Its monotonic clock then, in milliseconds.
    mono: u64,
    /// Counts choices.
    sequence: i64,
    /// The newest resource version that the watch has shown.
    observed: u64,
    jobs: Jobs,
    lanes: Slots<Lane>,
    lane_names: HashMap<PluginRefKey, u32>,
    /// Lanes with something that was not compared yet.
    listed: VecDeque<u32>,
    asks: HashMap<u64, Ask>,
    last_ask: u64,
    /// Ends of asks that are held for a time.
    holds: BTreeSet<(u64, u64)>,
    /// Claims that are being written.
    flying: usize,
    /// Claims that are being written for Jobs that are gone: uid and claim id.
    ghosts: HashMap<(Box<str>, Arc<str>), (u32, Flight)>,
    sessions: HashMap<u64, Session>,
    /// The open session of each pod, by its uid.
    pods: HashMap<Arc<str>, u64>,
    /// Jobs that each pod has, by its uid.
    holders: HashMap<Arc<str>, BTreeSet<u32>>,
}

/// What waits at the desk for one Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue<'a> {
    /// Which Plugin.
    pub plugin: &'a PluginRefKey,
    /// Jobs that could be handed out.
    pub ready: usize,
    /// Jobs in the hands of its pods, those whose claim is being written included.
    pub running: u32,
    /// The earliest start time of those that could be handed out and have nothing before them.
    pub oldest: Option<Timestamp>,
}

impl Desk {
    /// An empty desk.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            paused: false,
            now: 0,
            mono: 0,
            sequence: 0,
            observed: 0,
            jobs: Jobs::default(),
            lanes: Slots::default(),
            lane_names: HashMap::new(),
            listed: VecDeque::new(),
            asks: HashMap::new(),
            last_ask: 0,
            holds: BTreeSet::new(),
            flying: 0,
            ghosts: HashMap::new(),
            sessions: HashMap::new(),
            pods: HashMap::new(),
            holders: HashMap::new(),
        }
    }

    /// One thing happened; what to do is appended to `todo`, in order. `now` is the leader's wall
    /// clock and decides about start and expiry; `mono_ms` is its monotonic clock and measures how
    /// long an ask has waited.
    pub fn hear(&mut self, now: Timestamp, mono_ms: u64, heard: Heard<'_>, todo: &mut Vec<Todo>) {
        let before = std::mem::replace(&mut self.now, micros(now));
        self.mono = self.mono.max(mono_ms);
        if self.now < before {
            self.clock_set_back();
        }
        self.advance(todo);
        match heard {
            Heard::Job(job) => self.hear_job(job, true, todo),
            Heard::Answer(job) => self.hear_job(job, false, todo),
            Heard::JobGone {
                namespace,
                name,
                uid,
            } => self.job_gone(namespace, name, uid),
            Heard::Plugin {
                key,
                max_running,
                max_running_per_client,
            } => self.hear_plugin(key, max_running, max_running_per_client),
            Heard::Attached {
                session,
                pod,
                ledger_epoch,
                ledger,
            } => self.attached(session, pod, ledger_epoch, ledger, todo),
            Heard::Detached { session } => self.detached(session),
            Heard::Ask {
                session,
                claim_id,
                location,
                port,
                hold_ms,
            } => self.ask(session, claim_id, location, port, hold_ms, todo),
            Heard::Withdraw { session, claim_id } => self.withdraw(session, &claim_id),
            Heard::Released { session, claim } => self.released(session, &claim, todo),
            Heard::LedgerAnswer {
                session,
                claim,
                known,
                ..
            } => self.ledger_answer(session, &claim, known, todo),
            Heard::Written {
                job,
                claim_id,
                outcome,
            } => self.written(&job, &claim_id, outcome, todo),
            Heard::Pause => self.paused = true,
            Heard::Resume => self.paused = false,
            Heard::Tick => {}
        }
        self.compare(todo);
        self.end_holds(todo);
    }

    /// Jobs that could be handed out now, as far as the last event has shown.
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ready).sum()
    }

    /// Jobs that the desk knows.
    pub fn known(&self) -> usize {
        self.jobs.entries.len()
    }

    /// Asks that have no answer yet.
    pub fn asks(&self) -> usize {
        self.asks.len()
    }

    /// Claims that are being written.
    pub fn in_flight(&self) -> usize {
        self.flying
    }

    /// The earliest start time of the jobs that could be handed out.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.queues().filter_map(|queue| queue.oldest).min()
    }

    /// What waits, Plugin by Plugin. Looks at every client that has as many jobs as it may have;
    /// for metrics.
    pub fn queues(&self) -> impl Iterator<Item = Queue<'_>> {
        self.lanes.iter().map(|lane| {
            let firsts = lane.firsts().map(|id| &self.jobs.entries[id]);
            let judged = firsts.filter(|entry| entry.judged);
            let oldest = judged.map(|entry| entry.start).min();
            Queue {
                plugin: &lane.key,
                ready: lane.ready,
                running: lane.running,
                oldest: oldest.and_then(|start| Timestamp::from_microsecond(start).ok()),
            }
        })
    }

    /// The lane of a Plugin, made when it is new. Lanes stay: there are few Plugins.
    fn lane(&mut self, key: &PluginRefKey) -> u32 {
        if let Some(id) = self.lane_names.get(key) {
            return *id;
        }
        let id = self.lanes.insert(Lane::new(key.clone()));
        self.lane_names.insert(key.clone(), id);
        id
    }

    /// Puts a lane with something dirty into the list.
    fn list(&mut self, id: u32) {
        let lane = &mut self.lanes[id];
        if !lane.listed && !lane.dirty.is_empty() {
            lane.listed = true;
            self.listed.push_back(id);
        }
    }

    fn job_name(&self, id: u32) -> JobName {
        let entry = &self.jobs.entries[id];
        JobName {
            namespace: self.lanes[entry.lane].key.namespace.clone(),
            name: entry.name.as_ref().to_owned(),
            uid: entry.uid.as_ref().to_owned(),
        }
    }

    /// The Job of this name and uid.
    fn find(&self, job: &JobName) -> Option<u32> {
        let id = self.jobs.find(&job.namespace, &job.name)?;
        (*self.jobs.entries[id].uid == *job.uid).then_some(id)
    }
}
