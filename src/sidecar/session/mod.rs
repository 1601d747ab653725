//! The session: the operator dials, the sidecar serves. One long stream, mutual TLS.
//!
//! `identity.rs` says who may come in, `accept.rs` accepts connections, `attach.rs` talks and
//! `outbox.rs` sends what Jobs have to say.

mod accept;
mod attach;
pub mod identity;
mod outbox;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use patchbay_protocol::session;
use tokio::sync::{mpsc, watch};

use crate::counters::Counters;
use crate::jobs::Jobs;
use crate::paths::Root;

pub use accept::{Port, serve};

/// What the operator wants.
#[derive(Debug, PartialEq, Eq)]
pub enum FromOperator {
    Configure(String),
    /// The plugin may start in this sandbox.
    AllowStart,
}

/// What sessions need of the rest of the sidecar.
#[derive(Clone, Debug)]
pub struct Hub {
    pub root: Root,
    /// The newest picture of the instance.
    pub instance: watch::Receiver<session::Instance>,
    pub counters: Arc<Counters>,
    /// Whether the plugin was released in this sandbox.
    pub released: Arc<AtomicBool>,
    /// What is said of Jobs goes here.
    pub jobs: Jobs,
    /// To the main loop.
    pub operator_messages: mpsc::Sender<FromOperator>,
}
