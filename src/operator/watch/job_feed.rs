//! What the watches and the passes tell the dispatcher.

use crate::key::{JobKey, PluginKey};
use patchbay_api::Job;
use patchbay_api::plugin::JobOptions;
use tokio::sync::mpsc;

/// Events that wait; a sender of more waits.
const WAITING: usize = 128;

/// Something that was seen.
#[derive(Debug)]
pub enum WatchEvent {
    /// A Job as the watch shows it, trimmed; it is in the store already.
    Job(Box<Job>),
    /// A Job as the answer of a write or a read shows it, likewise.
    Answer(Box<Job>),
    /// The Job with this uid is gone.
    JobGone { key: JobKey, uid: String },
    /// A list of all Jobs begins.
    Listing,
    /// It is complete.
    Listed,
    /// A Plugin is new, has other limits, or is gone.
    Plugin {
        key: PluginKey,
        /// Nothing when it is gone.
        limits: Option<JobOptions>,
    },
}

/// Tells the dispatcher.
#[derive(Clone, Debug)]
pub struct JobFeed(mpsc::Sender<WatchEvent>);

/// Makes both ends.
pub fn feed() -> (JobFeed, mpsc::Receiver<WatchEvent>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (JobFeed(sender), receiver)
}

impl JobFeed {
    /// Tells it, after what was told before.
    pub async fn tell(&self, seen: WatchEvent) {
        // The dispatcher ends with the term, and so do the senders.
        let _ = self.0.send(seen).await;
    }
}
