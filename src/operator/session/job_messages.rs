//! The part of a session that is about jobs.

use super::SessionContext;
use super::SessionPeer;
use super::decode::{self, JobMessage};
use super::error::SessionError;
use crate::jobs::messages::{DispatchMessage, Holder};
use crate::jobs::session_registry::SessionGuard;
use crate::jobs::update_queue::UpdateQueue;
use patchbay_protocol::session::{FromOperator, SidecarHello, from_sidecar};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Takes in what a sidecar says about jobs; nothing below version 2.
pub(super) struct JobMessages(Option<(SessionGuard, UpdateQueue)>);

impl JobMessages {
    pub(super) async fn open(
        target: &SessionPeer,
        shared: &SessionContext,
        greeting: &mut SidecarHello,
        sender: &mpsc::Sender<FromOperator>,
    ) -> Result<Self, SessionError> {
        if greeting.version < 2 {
            return Ok(Self(None));
        }
        let (ledger_epoch, ledger) = decode::ledger(greeting).ok_or(SessionError::Ledger)?;
        let holder = Holder {
            plugin: target.plugin.clone(),
            pod: target.pod.clone(),
            uid: target.pod_uid.clone(),
        };
        let guard = shared.jobs.sessions.enter(&target.pod_uid, sender.clone());
        let held = UpdateQueue::new(Arc::clone(&shared.jobs), holder.clone(), guard.session());
        guard
            .write(DispatchMessage::Attached {
                holder,
                ledger_epoch,
                ledger,
            })
            .await;
        Ok(Self(Some((guard, held))))
    }

    /// Whether more may be read from the sidecar; it waits meanwhile.
    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|(_, held)| held.has_room())
    }

    pub(super) async fn handle(
        &mut self,
        target: &SessionPeer,
        message: from_sidecar::Message,
    ) -> Result<(), SessionError> {
        let Some((guard, held)) = self.0.as_mut() else {
            return Ok(());
        };
        match decode::read(message) {
            Some(JobMessage::DispatchMessage(message)) => guard.write(message).await,
            Some(JobMessage::JobUpdate(claim, update)) => {
                held.add(claim, update);
            }
            Some(JobMessage::Nonsense(kind)) => tracing::warn!(
                namespace = target.plugin.namespace,
                pod = target.pod,
                kind,
                "a message about a job names no job and is passed over"
            ),
            None => {}
        }
        Ok(())
    }

    /// Works on what was said until a part of it is done, so that there may be room again.
    pub(super) async fn work(&mut self) -> Result<(), SessionError> {
        match self.0.as_mut() {
            Some((guard, held)) => tokio::select! {
                () = guard.too_slow() => Err(SessionError::Slow),
                worked = held.work() => worked.map_err(SessionError::Output),
            },
            None => std::future::pending().await,
        }
    }
}
