//! The hand-out of Jobs and everything that their holders say.
//!
//! Who gets what is decided in `patchbay-reconcile`, by the desk; here it is carried out. The API
//! object is the lock: a claim is one replace of a status with the resource version that was read.
//! Only the term's leader runs any of this, and all of it ends with the term.

pub mod answer;
pub mod cancel;
pub mod claim;
pub mod desk;
pub mod doors;
pub mod feed;
mod grant;
pub mod held;
pub mod letters;
pub mod output;
pub mod rows;
pub mod settle;
pub mod write;

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;

use crate::client::ServerClock;
use crate::clock::WallClock;
use crate::events::{Events, Subject, Words};
use crate::key::JobKey;
use crate::metrics::jobs::JobMetrics;
use crate::queue::WorkQueue;
use crate::watch::{Stores, trim};
use doors::Doors;
use feed::{Feed, Seen};
use kube::Client;
use patchbay_api::{Job, Reason};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// Writes of statuses at a time that nobody waits for with an ask: releases, losses.
const SETTLING: usize = 32;
/// Rows that are larger than a message, taken in at a time: each holds a chunk in memory, and its
/// JSON while it is written.
const LARGE_ROWS: usize = 6;

/// What the installation sets about Jobs.
#[derive(Clone, Copy, Debug)]
pub struct JobSettings {
    /// Bytes of output that the Jobs of one namespace may have outside of themselves.
    pub namespace_output: u64,
}

/// What everybody who works on Jobs shares.
pub struct Jobs {
    /// For writes, and for reads where a write's outcome is unknown.
    pub client: Client,
    /// What was seen.
    pub stores: Arc<Stores>,
    /// Jobs that are due for a pass.
    pub queue: Arc<WorkQueue<JobKey>>,
    /// To the hand-out.
    pub feed: Feed,
    /// From and to sessions.
    pub doors: Arc<Doors>,
    /// For people.
    pub events: Events,
    /// Counts.
    pub metrics: Arc<JobMetrics>,
    /// The time of day.
    pub wall: WallClock,
    /// Says whether that is right.
    pub clock: Arc<ServerClock>,
    /// The installation.
    pub settings: JobSettings,
    /// What one does after another.
    pub turns: Turns,
}

/// Who waits for whom; nothing has been handed out yet.
pub struct Turns {
    /// Whether claims are being written; what can wait for them looks here.
    pub claiming: AtomicBool,
    settling: Semaphore,
    large_rows: Arc<Semaphore>,
    digests: rows::Digests,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            claiming: AtomicBool::default(),
            settling: Semaphore::new(SETTLING),
            large_rows: Arc::new(Semaphore::new(LARGE_ROWS)),
            digests: rows::Digests::default(),
        }
    }
}

impl Jobs {
    /// Puts the answer of a write, or of a read, where it is needed: the store, the hand-out, and
    /// a pass that sees to what follows from it.
    pub async fn saw(&self, job: Job) {
        if let Some(job) = self.keep(job) {
            self.feed.tell(Seen::Answer(Box::new(job))).await;
        }
    }

    /// [`Self::saw`] by a pass, which needs no other one after its own write.
    pub async fn passed(&self, mut job: Job) {
        trim::job(&mut job);
        if self.stores.jobs.record_write(&job) {
            self.feed.tell(Seen::Answer(Box::new(job))).await;
        }
    }

    /// [`Self::saw`], but for the hand-out, which is told otherwise. Answers what is news, trimmed.
    fn keep(&self, mut job: Job) -> Option<Job> {
        trim::job(&mut job);
        if !self.stores.jobs.record_write(&job) {
            return None;
        }
        // One that has ended and is kept needs no pass.
        if !write::has_ended(&job) || job.spec.ttl_seconds_after_finished.is_some() {
            self.queue.wake(crate::watch::jobs::key(&job));
        }
        Some(job)
    }

    /// Says something about a Job to people.
    pub fn tell(&self, job: &Job, warning: bool, action: &str, reason: Reason, note: String) {
        let subject = Subject::new(&crate::watch::jobs::key(job), job);
        let words = Words {
            warning,
            action: action.to_owned(),
            reason: reason.as_str().to_owned(),
            note,
            pod: None,
        };
        self.events.say(&subject, words);
    }
}
