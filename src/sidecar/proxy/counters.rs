//! What the proxy counts. The numbers only grow, except the two that tell what is there now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The proxy's counters, shared by everything that counts and everyone who reads.
#[derive(Debug, Default)]
pub struct ProxyCounters {
    calls: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
    shutdowns_answered: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyNumbers {
    /// Calls that were to be forwarded. Calls of the package `plugin.` are not among them.
    pub calls: u64,
    /// Calls that ended with a status other than OK, or without one because the plugin was lost or
    /// absent. A call that its client cancelled counts as neither.
    pub failed: u64,
    /// Calls at this moment.
    pub in_flight: u64,
    /// Client connections at this moment.
    pub connections: u64,
    /// Client connections that were closed at once because there were too many.
    pub connections_refused: u64,
    /// Calls of `plugin.GRPCController/Shutdown` that were answered in the plugin's place.
    pub shutdowns_answered: u64,
}

impl ProxyCounters {
    /// All of them.
    pub fn read(&self) -> ProxyNumbers {
        ProxyNumbers {
            calls: self.calls.load(Relaxed),
            failed: self.failed.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            shutdowns_answered: self.shutdowns_answered.load(Relaxed),
        }
    }

    pub(super) fn shutdown_answered(&self) {
        self.shutdowns_answered.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Counts one client connection until the guard is dropped.
    pub(super) fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Relaxed);
        ConnectionGuard(self.clone())
    }

    /// Counts one call until the guard is dropped.
    pub(super) fn call(self: &Arc<Self>) -> CallGuard {
        self.calls.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        CallGuard(self.clone())
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }
}

/// One client connection.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<ProxyCounters>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// One call in flight.
#[derive(Debug)]
pub(super) struct CallGuard(Arc<ProxyCounters>);

impl CallGuard {
    /// The call ended badly. To be said once.
    pub(super) fn failed(&self) {
        self.0.failed.fetch_add(1, Relaxed);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
