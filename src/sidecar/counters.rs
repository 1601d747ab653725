//! The sidecar's numbers, as the session tells them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use patchbay_protocol::session;

use crate::proxy::ProxyCounters;
use crate::workers::WorkerCounters;

/// Totals since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Counted by the proxy.
    pub proxy: Arc<ProxyCounters>,
    /// Counted where workers are let in.
    pub workers: Arc<WorkerCounters>,
    /// Lines of plugin output that were logged.
    pub log_lines: AtomicU64,
    /// Lines that were not: too many at once, or nobody read them.
    pub log_lines_dropped: AtomicU64,
    /// Running plugins that were taken over from an earlier sidecar process.
    pub reattachments: AtomicU64,
}

impl Counters {
    /// All of them.
    pub fn read(&self) -> session::Counters {
        let proxy = self.proxy.read();
        session::Counters {
            calls: proxy.calls,
            calls_failed: proxy.failed,
            calls_in_flight: proxy.in_flight,
            // A pod has clients of one kind only.
            connections: proxy.connections + self.workers.read().open,
            shutdowns_answered: proxy.shutdowns_answered,
            log_lines: self.log_lines.load(Relaxed),
            log_lines_dropped: self.log_lines_dropped.load(Relaxed),
            reattachments: self.reattachments.load(Relaxed),
            resident_bytes: resident_bytes(),
        }
    }
}

/// As the kernel counts; 0 when it does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_use_is_measured() {
        assert!(resident_bytes() > 100_000);
    }
}
