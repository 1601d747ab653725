//! What the watches and the passes tell the hand-out.

use crate::key::{JobKey, PluginKey};
use patchbay_api::Job;
use patchbay_api::plugin::JobOptions;
use tokio::sync::mpsc;

/// Things that wait to be heard; whoever tells more waits.
const WAITING: usize = 128;

/// Something that was seen.
#[derive(Debug)]
pub enum Seen {
    /// A Job as the watch shows it, trimmed; it is in the store already.
    Job(Box<Job>),
    /// A Job as the answer of a write or a read shows it, likewise.
    Answer(Box<Job>),
    /// The Job with this uid is gone.
    JobGone {
        /// Its name.
        key: JobKey,
        /// Its uid.
        uid: String,
    },
    /// A list of all Jobs begins.
    Listing,
    /// It is complete.
    Listed,
    /// A Plugin is new, has other limits, or is gone.
    Plugin {
        /// Which one.
        key: PluginKey,
        /// Nothing when it is gone.
        limits: Option<JobOptions>,
    },
}

/// Tells the hand-out.
#[derive(Clone, Debug)]
pub struct Feed(mpsc::Sender<Seen>);

/// Makes both ends.
pub fn feed() -> (Feed, mpsc::Receiver<Seen>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Feed(sender), receiver)
}

impl Feed {
    /// Tells it, after what was told before.
    pub async fn tell(&self, seen: Seen) {
        // The hand-out ends with the term, and so does whoever tells.
        let _ = self.0.send(seen).await;
    }
}
