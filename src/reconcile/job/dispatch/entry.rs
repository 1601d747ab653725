//! What the dispatcher keeps of one Job: what decides about its dispatch, and nothing else.

use super::super::location::{Port, named_client};
use super::super::transition::cancelled;
use super::super::{conditions, times};
use super::slab::Slab;
use jiff::Timestamp;
use patchbay_api::job_status::{Claim, Phase};
use patchbay_api::{ConditionType, Job};
#[cfg(test)]
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// A time in microseconds, the grain of the API.
pub(super) fn micros(time: Timestamp) -> i64 {
    let micros = time.as_nanosecond().div_euclid(1000);
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Stands for no expire time.
pub(super) const NEVER: i64 = i64::MAX;
/// Stands for no time at which a Job is passed over.
pub(super) const NO_DEADLINE: u64 = u64::MAX;
/// Stands for no place in a [`super::plugin_queue::PluginQueue`].
pub(super) const NO_BUCKET: u32 = u32::MAX;

/// One Job.
#[derive(Debug)]
pub(super) struct JobEntry {
    pub(super) name: Arc<str>,
    pub(super) uid: Box<str>,
    /// Resource version. They are compared as numbers, and numbers they are.
    pub(super) version: u64,
    pub(super) queue: u32,
    pub(super) port: Port,
    pub(super) priority: i32,
    pub(super) client: Option<Arc<str>>,
    pub(super) start: i64,
    /// Not before: its start, or the end of its back-off.
    pub(super) eligible: i64,
    pub(super) expire: i64,
    pub(super) created: i64,
    /// Whether its plugin takes it as it is written. One that is open and not accepted is not handed
    /// out and keeps its place.
    pub(super) accepted: bool,
    pub(super) state: JobState,
}

/// Where a Job stands at the dispatcher.
#[derive(Debug)]
pub(super) enum JobState {
    /// Not to be dispatched.
    Ineligible,
    /// Its time has not come: it is among the timers.
    Scheduled,
    /// It waits at this place of its queue.
    Ready { bucket: u32 },
    /// It stands at this place of its queue since this monotonic time and is not accepted yet. Once it
    /// is in the way of a request it is passed over at the other; before, that is [`NO_DEADLINE`].
    PendingAcceptance { bucket: u32, since: u64, until: u64 },
    /// Its time is over; the status does not say so yet.
    Expired,
    /// A write was refused: again at this monotonic time.
    RetryAt { until: u64 },
    /// Its claim is being written.
    Claiming(Box<PendingClaim>),
    /// A pod has it.
    Claimed(Box<ActiveClaim>),
}

/// A claim that is being written.
#[derive(Debug)]
pub(super) struct PendingClaim {
    pub(super) claim_id: Arc<str>,
    /// The request, while it is alive.
    pub(super) request: Option<u64>,
    /// Where it counts as running for a client, or [`NO_BUCKET`].
    pub(super) client: u32,
    /// Version that the write carries.
    pub(super) version: u64,
    /// What the newest view says.
    pub(super) observation: Observation,
}

/// What a view says about a Job.
#[derive(Debug)]
pub(super) enum Observation {
    Ineligible,
    Eligible,
    Claimed(Box<ActiveClaim>),
}

/// A claim that stands in a status.
#[derive(Debug)]
pub(super) struct ActiveClaim {
    pub(super) claim_id: Box<str>,
    pub(super) pod_uid: Arc<str>,
    pub(super) epoch: Box<str>,
    /// For whom the plugin asked.
    pub(super) requested_client: Option<Arc<str>>,
    /// Whether the plugin is known to work on it.
    pub(super) running: bool,
    /// Where it counts as running for a client, or [`NO_BUCKET`].
    pub(super) client: u32,
    pub(super) task: Recovery,
}

/// What is being done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    None,
    Queried,
    Releasing,
    Losing,
}

impl Observation {
    pub(super) fn of(job: &Job) -> Self {
        let status = job.status.as_ref();
        let phase = status.and_then(|status| status.phase);
        match (phase, status.and_then(|status| status.claim.as_ref())) {
            (Some(phase @ (Phase::Claimed | Phase::Running)), Some(claim)) => {
                Observation::Claimed(Box::new(ActiveClaim::of(claim, phase)))
            }
            (None | Some(Phase::Ready | Phase::Waiting), _)
                if !job.spec.suspend
                    && job.metadata.deletion_timestamp.is_none()
                    && !cancelled(job)
                    && (is_accepted(job) || is_pending_acceptance(job)) =>
            {
                Observation::Eligible
            }
            _ => Observation::Ineligible,
        }
    }

    /// Whether it says that this claim holds the Job.
    pub(super) fn is_claimed_by(&self, claim_id: &str) -> bool {
        matches!(self, Observation::Claimed(active) if *active.claim_id == *claim_id)
    }
}

/// Whether its plugin takes it.
fn is_accepted(job: &Job) -> bool {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    phase.is_some() && conditions::is_accepted(job)
}

/// Whether it is open and whether its plugin takes it is not known: it is new, it waits, or its
/// plugin was made again.
fn is_pending_acceptance(job: &Job) -> bool {
    let Some(status) = &job.status else {
        return true;
    };
    let accepted = conditions::find(status, ConditionType::Accepted);
    matches!(status.phase, None | Some(Phase::Ready | Phase::Waiting))
        && accepted.is_none_or(|accepted| accepted.status == conditions::Is::Unknown.as_str())
}

impl ActiveClaim {
    fn of(claim: &Claim, phase: Phase) -> Self {
        Self {
            claim_id: claim.claim_id.as_str().into(),
            pod_uid: claim.holder_pod_uid.as_str().into(),
            epoch: claim.ledger_epoch.as_str().into(),
            requested_client: claim.client_location.as_deref().map(Arc::from),
            running: phase == Phase::Running,
            client: NO_BUCKET,
            task: Recovery::None,
        }
    }
}

/// The order of dispatches among the Jobs of one namespace: a total one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank<'a> {
    start: i64,
    priority: Reverse<i32>,
    created: i64,
    name: &'a str,
}

impl JobEntry {
    pub(super) fn rank(&self) -> Rank<'_> {
        Rank {
            start: self.start,
            priority: Reverse(self.priority),
            created: self.created,
            name: &self.name,
        }
    }

    /// Whether a request waits for it to be accepted, or has.
    #[cfg(test)]
    pub(super) fn blocks_requests(&self) -> bool {
        matches!(self.state, JobState::PendingAcceptance { until, .. } if until != NO_DEADLINE)
    }

    /// Takes over what may change in a Job. Never while the entry is in an index.
    pub(super) fn read(&mut self, job: &Job, version: u64) {
        self.version = version;
        self.accepted = is_accepted(job);
        self.priority = job.spec.priority;
        self.start = micros(times::start(job));
        self.eligible = micros(times::eligible_at(job));
        self.expire = times::expire(job).map_or(NEVER, micros);
        self.created = job
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| micros(time.0));
    }
}

/// Every Job that the dispatcher knows.
#[derive(Debug, Default)]
pub(super) struct JobIndex {
    pub(super) entries: Slab<JobEntry>,
    names: HashMap<Box<str>, HashMap<Arc<str>, u32>>,
    /// Jobs whose time has not come, by that time; and those that are not accepted yet and in the
    /// way, by the time at which they expire.
    pub(super) timers: BTreeSet<(i64, u32)>,
    /// Jobs whose time is over, by that time.
    pub(super) expired: BTreeSet<(i64, u32)>,
    /// Jobs, and claims, whose write was refused, by the monotonic time of the next attempt; and
    /// Jobs that are not accepted yet and in the way, by that at which they are passed over.
    pub(super) retries: BTreeSet<(u64, u32)>,
    /// Steps so far.
    #[cfg(test)]
    pub(super) looks: Cell<u64>,
}

impl JobIndex {
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<u32> {
        self.names.get(namespace)?.get(name).copied()
    }

    pub(super) fn rank(&self, id: u32) -> Rank<'_> {
        self.look();
        self.entries[id].rank()
    }

    /// Counts a step, for the tests that bound what an event may cost.
    pub(super) fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }

    /// Adds a Job, closed. `queue` is that of its Plugin.
    pub(super) fn add(&mut self, namespace: &str, job: &Job, queue: u32, version: u64) -> u32 {
        let name: Arc<str> = job.metadata.name.as_deref().unwrap_or_default().into();
        let mut entry = JobEntry {
            name: name.clone(),
            uid: job.metadata.uid.as_deref().unwrap_or_default().into(),
            version,
            queue,
            port: Port::new(&job.spec.target.port),
            priority: 0,
            client: named_client(&job.spec.target.client).map(Arc::from),
            start: 0,
            eligible: 0,
            expire: NEVER,
            created: 0,
            accepted: false,
            state: JobState::Ineligible,
        };
        entry.read(job, version);
        let id = self.entries.insert(entry);
        match self.names.get_mut(namespace) {
            Some(names) => names.insert(name, id),
            None => self
                .names
                .entry(namespace.into())
                .or_default()
                .insert(name, id),
        };
        id
    }

    /// Forgets a Job that is in no index.
    pub(super) fn remove(&mut self, namespace: &str, id: u32) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if let Some(names) = self.names.get_mut(namespace) {
            names.remove(&entry.name);
            if names.is_empty() {
                self.names.remove(namespace);
            }
        }
    }
}

/// Ids in the order of some ranks. Compact: four bytes each. Most Jobs come in at the end and go
/// out at the front, and there a deque is as good as a tree.
#[derive(Debug, Default)]
pub(super) struct Sorted(VecDeque<u32>);

impl Sorted {
    pub(super) fn first(&self) -> Option<u32> {
        self.0.front().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn insert<'a>(&mut self, id: u32, rank: impl Fn(u32) -> Rank<'a>) {
        let new = rank(id);
        // The usual case first: it comes last.
        if self.0.back().is_none_or(|last| rank(*last) < new) {
            return self.0.push_back(id);
        }
        let at = self.0.partition_point(|known| rank(*known) < new);
        self.0.insert(at, id);
    }

    /// Takes an id out; its rank must be the one that it came in with.
    pub(super) fn remove<'a>(&mut self, id: u32, rank: impl Fn(u32) -> Rank<'a>) {
        if self.0.front() == Some(&id) {
            self.0.pop_front();
        } else {
            let of = rank(id);
            let at = self.0.partition_point(|known| rank(*known) < of);
            debug_assert_eq!(self.0.get(at), Some(&id), "the order has changed under us");
            if self.0.get(at) == Some(&id) {
                self.0.remove(at);
            }
        }
        // A burst must not hold its memory for good.
        if self.0.capacity() > 64 && self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
    }
}
