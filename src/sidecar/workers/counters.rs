//! Counting workers' connections, and the limits on them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at the same time. Each takes two descriptors and 16 KiB.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// Of them, of one client: many workers may share an address.
pub(super) const MAX_PER_CLIENT: usize = 256;

/// Totals since the sidecar process started, except what is open.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    open: Mutex<Open>,
    accepted: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkersRead {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were let in.
    pub accepted: u64,
    /// Connections that were closed at once: too many, or their client could not be remembered.
    pub refused: u64,
    /// Connections that were closed because the plugin did not take them in time.
    pub unanswered: u64,
}

impl WorkerCounters {
    /// All of them.
    pub fn read(&self) -> WorkersRead {
        WorkersRead {
            open: self.open.lock().unwrap_or_else(PoisonError::into_inner).all as u64,
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
        }
    }

    /// Counts one connection until the guard is dropped; `None` beyond a limit.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admitted> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.all >= MAX_CONNECTIONS || of_client >= MAX_PER_CLIENT {
            return None;
        }
        open.all += 1;
        open.by_client.insert(client, of_client + 1);
        self.accepted.fetch_add(1, Relaxed);
        Some(Admitted {
            counters: self.clone(),
            client,
        })
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn leave_unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Admitted {
    counters: Arc<WorkerCounters>,
    client: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let counters = self.counters.clone();
        let mut open = counters.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_client_cannot_take_all_and_all_are_bounded() {
        let counters = Arc::new(WorkerCounters::default());
        let client = |number: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, number));
        let mut held: Vec<Admitted> = Vec::new();
        for number in 0..4 {
            held.extend((0..MAX_PER_CLIENT).filter_map(|_| counters.admit(client(number))));
            assert!(counters.admit(client(number)).is_none());
        }
        assert_eq!(held.len(), MAX_CONNECTIONS);
        assert!(counters.admit(client(9)).is_none());
        held.pop();
        assert!(counters.admit(client(9)).is_some());
        drop(held);
        assert_eq!(counters.read().open, 0);
        assert!(counters.open.lock().unwrap().by_client.is_empty());
    }
}
