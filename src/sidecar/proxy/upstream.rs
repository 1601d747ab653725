//! The one connection to the plugin that belongs to one client connection. It is opened by the
//! first call, and again by a later one when it has died or another endpoint was announced.

use super::{Upstream, settings};
use crate::family::go_plugin::endpoint::{DialError, Endpoint};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use patchbay_protocol::reason::Reason;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Opens and keeps the connection.
pub(super) struct Link {
    upstream: watch::Receiver<Upstream>,
    state: Mutex<State>,
    /// Held by the one call that opens a connection.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// How many attempts have ended, and the trouble of the last one. Calls that waited for an
    /// attempt share its end instead of repeating it one after the other.
    attempts: u64,
    failure: Option<NoLink>,
}

struct Open {
    endpoint: Endpoint,
    sender: SendRequest<Incoming>,
}

/// Why a call cannot be forwarded.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NoLink {
    /// No plugin can be called.
    #[error("patchbay: the plugin cannot be called now ({0})")]
    Absent(Reason),
    /// It is announced and does not answer.
    #[error("patchbay: {0}")]
    Dial(#[from] DialError),
    /// It answered, but not in HTTP/2.
    #[error("patchbay: opening HTTP/2 to the plugin failed: {0}")]
    Http2(String),
}

impl Link {
    pub(super) fn new(upstream: watch::Receiver<Upstream>) -> Link {
        Link {
            upstream,
            state: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// A handle for one request on a connection that was alive a moment ago.
    pub(super) async fn sender(&self) -> Result<SendRequest<Incoming>, NoLink> {
        let (attempts, found) = self.look(&self.announced()?);
        if let Some(sender) = found {
            return Ok(sender);
        }
        let _only_one = self.opening.lock().await;
        // The wait may have been long: everything is looked at again.
        let endpoint = self.announced()?;
        let (now, found) = self.look(&endpoint);
        if let Some(sender) = found {
            return Ok(sender);
        }
        if now != attempts
            && let Some(failure) = self.state().failure.clone()
        {
            return Err(failure);
        }
        let opened = open(&endpoint).await;
        let mut state = self.state();
        state.attempts += 1;
        match opened {
            Ok(sender) => {
                state.failure = None;
                state.open = Some(Open {
                    endpoint,
                    sender: sender.clone(),
                });
                Ok(sender)
            }
            Err(failure) => {
                state.failure = Some(failure.clone());
                state.open = None;
                Err(failure)
            }
        }
    }

    fn announced(&self) -> Result<Endpoint, NoLink> {
        match &*self.upstream.borrow() {
            Upstream::Absent(reason) => Err(NoLink::Absent(*reason)),
            Upstream::Present(endpoint) => Ok(endpoint.clone()),
        }
    }

    /// The open connection, if it leads to `endpoint` and lives. One that leads elsewhere is let
    /// go; its calls in flight keep it open until they end.
    fn look(&self, endpoint: &Endpoint) -> (u64, Option<SendRequest<Incoming>>) {
        let mut state = self.state();
        let attempts = state.attempts;
        match &state.open {
            Some(open) if open.endpoint.is_same(endpoint) && !open.sender.is_closed() => {
                (attempts, Some(open.sender.clone()))
            }
            _ => {
                state.open = None;
                (attempts, None)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(endpoint: &Endpoint) -> Result<SendRequest<Incoming>, NoLink> {
    let io = endpoint.connect().await?;
    let (sender, connection) = settings::client()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| NoLink::Http2(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection of the proxy ended");
        }
    });
    Ok(sender)
}
