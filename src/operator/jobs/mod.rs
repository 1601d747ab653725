//! The dispatcher of Jobs and everything that their holders say.
//!
//! Who gets what is decided in `patchbay-reconcile`, by the dispatcher; here it is carried out. The API
//! object is the lock: a claim is one replace of a status with the resource version that was read.
//! Only the term's leader runs any of this, and all of it ends with the term.

pub mod cancel;
pub mod claim;
pub mod dispatch_task;
mod grant;
pub mod inspector;
pub mod messages;
pub mod output;
pub mod output_ingest;
pub mod progress;
pub mod row_buffer;
pub mod session_registry;
pub mod status_writer;
pub mod update_queue;

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

use crate::client::ServerClock;
use crate::clock::WallClock;
use crate::events::{EventContent, Events, Subject};
use crate::key::JobKey;
use crate::metrics::jobs::JobMetrics;
use crate::queue::WorkQueue;
use crate::watch::job_feed::{JobFeed, WatchEvent};
use crate::watch::{Stores, trim};
use kube::Client;
use patchbay_api::{Job, Reason};
use session_registry::SessionRegistry;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// Writes of statuses at a time that nobody waits for with a work request: releases, losses.
const STATUS_WRITES: usize = 32;
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
pub struct JobContext {
    /// For writes, and for reads where a write's outcome is unknown.
    pub client: Client,
    pub stores: Arc<Stores>,
    /// Jobs that are due for a pass.
    pub queue: Arc<WorkQueue<JobKey>>,
    /// To the dispatcher.
    pub feed: JobFeed,
    /// From and to sessions.
    pub sessions: Arc<SessionRegistry>,
    pub events: Events,
    pub metrics: Arc<JobMetrics>,
    /// The time of day.
    pub wall: WallClock,
    /// Says whether that is right.
    pub clock: Arc<ServerClock>,
    pub settings: JobSettings,
    /// Lets the debug page look at the dispatcher.
    pub inspector: Arc<inspector::DispatchInspector>,
    /// What one does after another.
    pub concurrency: Concurrency,
}

/// Who waits for whom; nothing has been handed out yet.
pub struct Concurrency {
    /// Whether claims are being written; what can wait for them looks here.
    pub claiming: AtomicBool,
    status_writes: Semaphore,
    large_rows: Arc<Semaphore>,
    digests: row_buffer::Digests,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            claiming: AtomicBool::default(),
            status_writes: Semaphore::new(STATUS_WRITES),
            large_rows: Arc::new(Semaphore::new(LARGE_ROWS)),
            digests: row_buffer::Digests::default(),
        }
    }
}

impl JobContext {
    /// Puts the answer of a write, or of a read, where it is needed: the store, the dispatcher, and
    /// a pass that sees to what follows from it.
    pub async fn observed(&self, job: Job) {
        if let Some(job) = self.keep(job) {
            self.feed.tell(WatchEvent::Answer(Box::new(job))).await;
        }
    }

    /// [`Self::observed`] by a pass, which needs no other one after its own write.
    pub async fn passed(&self, mut job: Job) {
        trim::job(&mut job);
        if self.stores.jobs.record_write(&job) {
            self.feed.tell(WatchEvent::Answer(Box::new(job))).await;
        }
    }

    /// [`Self::observed`], but for the dispatcher, which is told otherwise. Answers what is news, trimmed.
    fn keep(&self, mut job: Job) -> Option<Job> {
        trim::job(&mut job);
        if !self.stores.jobs.record_write(&job) {
            return None;
        }
        // One that has ended and is kept needs no pass.
        if !status_writer::has_ended(&job) || job.spec.ttl_seconds_after_finished.is_some() {
            self.queue.wake(crate::watch::jobs::key(&job));
        }
        Some(job)
    }

    /// Says something about a Job to people.
    pub fn tell(&self, job: &Job, warning: bool, action: &str, reason: Reason, note: String) {
        let subject = Subject::new(&crate::watch::jobs::key(job), job);
        let updates = EventContent {
            warning,
            action: action.to_owned(),
            reason: reason.as_str().to_owned(),
            note,
            pod: None,
        };
        self.events.publish(&subject, updates);
    }
}
