//! The begin of a session: dial, send the greeting, take the sidecar's.

use super::dial::dial;
use super::error::SessionError;
use super::{SessionContext, SessionPeer};
use crate::jobs::session_registry::MESSAGES;
use patchbay_protocol::session::{
    FromOperator, FromSidecar, NEWEST, OLDEST, OperatorHello, SidecarHello, from_operator,
    from_sidecar,
};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Until the sidecar has greeted back.
pub(super) const GREETING: Duration = Duration::from_secs(5);

/// A session that both sides have begun.
pub(super) struct AttachedSession {
    /// To the sidecar.
    pub(super) sender: mpsc::Sender<FromOperator>,
    /// From the sidecar.
    pub(super) messages: Streaming<FromSidecar>,
    /// Its first message. The version is one that we speak.
    pub(super) greeting: SidecarHello,
}

/// Begins a session.
pub(super) async fn attach(
    target: &SessionPeer,
    shared: &SessionContext,
) -> Result<AttachedSession, SessionError> {
    let tls = {
        let tls = shared.tls.read().unwrap_or_else(PoisonError::into_inner);
        tls.towards(shared.expected(target))
            .map_err(super::dial::SessionDialError::from)?
    };
    let mut client = dial(target.address, tls).await?;
    let (sender, receiver) = mpsc::channel(MESSAGES);
    // The channel has room for everything that is said before anybody listens.
    let hello = from_operator::Message::Hello(OperatorHello {
        oldest: OLDEST,
        newest: NEWEST,
        epoch: shared.epoch,
        operator_version: env!("CARGO_PKG_VERSION").into(),
    });
    send(&sender, hello).await?;
    let attach = client.attach(ReceiverStream::new(receiver));
    let mut messages = timeout(GREETING, attach)
        .await
        .map_err(|_| SessionError::Silent)?
        .map_err(|status| SessionError::Attach(Box::new(status)))?
        .into_inner();
    let greeting = timeout(GREETING, greeting(&mut messages))
        .await
        .map_err(|_| SessionError::Silent)??;
    if !(OLDEST..=NEWEST).contains(&greeting.version) {
        return Err(SessionError::Version(greeting.version));
    }
    Ok(AttachedSession {
        sender,
        messages,
        greeting,
    })
}

/// Sends one message; waits while the sidecar takes nothing.
pub(super) async fn send(
    sender: &mpsc::Sender<FromOperator>,
    message: from_operator::Message,
) -> Result<(), SessionError> {
    let message = FromOperator {
        message: Some(message),
    };
    sender.send(message).await.map_err(|_| SessionError::Closed)
}

async fn greeting(messages: &mut Streaming<FromSidecar>) -> Result<SidecarHello, SessionError> {
    let first = messages
        .message()
        .await
        .map_err(|status| SessionError::Attach(Box::new(status)))?
        .ok_or(SessionError::Closed)?;
    match first.message {
        Some(from_sidecar::Message::Hello(hello)) => Ok(hello),
        _ => Err(SessionError::NoHello),
    }
}
