//! Lets the debug page look at the dispatcher, which one task owns.

use patchbay_reconcile::job::dispatch::DispatchSnapshot;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a page waits for the dispatch task.
const ANSWER: Duration = Duration::from_secs(2);
/// Pages that may wait at a time.
const WAITING: usize = 4;

/// Asks for one snapshot.
pub type SnapshotRequest = oneshot::Sender<DispatchSnapshot>;

/// The way from the debug page to the dispatch task of the current term.
#[derive(Debug, Default)]
pub struct DispatchInspector(Mutex<Option<mpsc::Sender<SnapshotRequest>>>);

impl DispatchInspector {
    /// A term begins: requests go to the receiver that is returned.
    pub fn connect(&self) -> mpsc::Receiver<SnapshotRequest> {
        let (sender, receiver) = mpsc::channel(WAITING);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// The state of the dispatcher; `None` when this operator does not lead, or its task does not
    /// answer within two seconds.
    pub async fn snapshot(&self) -> Option<DispatchSnapshot> {
        let sender = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        let (answer, snapshot) = oneshot::channel();
        sender.try_send(answer).ok()?;
        timeout(ANSWER, snapshot).await.ok()?.ok()
    }
}
