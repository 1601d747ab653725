//! Numbers of the dispatcher of Jobs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// What the dispatcher counts.
#[derive(Debug)]
pub struct JobMetrics {
    /// Jobs that could be handed out, now or at their time.
    pub waiting: Gauge,
    /// How long the one that waits longest has been due, in seconds.
    pub oldest: Gauge<f64, AtomicU64>,
    /// Requests for work that wait.
    pub asks: Gauge,
    pub claims: Counter,
    /// Claims that somebody else's write came before.
    pub conflicts: Counter,
    /// Writes whose outcome had to be read back.
    pub unknown: Counter,
    /// Writes that the API server refuses for what they are.
    pub refused: Counter,
    /// Jobs given to a sidecar.
    pub grants: Counter,
    /// Claims given back.
    pub releases: Counter,
    /// Jobs whose plugin was lost.
    pub lost: Counter,
    /// Rows of output stored.
    pub rows: Counter,
    /// Those of them that came after the end of their job.
    pub late_rows: Counter,
    /// Bytes of output stored.
    pub output_bytes: Counter,
    /// Answers that no Job was there for any more.
    pub dropped_rows: Counter,
    /// Sessions ended because their sidecar took nothing more.
    pub slow_sessions: Counter,
    /// From the choice of a job to its grant.
    pub dispatch: Histogram,
}

impl Default for JobMetrics {
    fn default() -> Self {
        Self {
            waiting: Gauge::default(),
            oldest: Gauge::default(),
            asks: Gauge::default(),
            claims: Counter::default(),
            conflicts: Counter::default(),
            unknown: Counter::default(),
            refused: Counter::default(),
            grants: Counter::default(),
            releases: Counter::default(),
            lost: Counter::default(),
            rows: Counter::default(),
            late_rows: Counter::default(),
            output_bytes: Counter::default(),
            dropped_rows: Counter::default(),
            slow_sessions: Counter::default(),
            dispatch: Histogram::new(exponential_buckets(0.000_5, 2.0, 15)),
        }
    }
}

impl JobMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let r = r.sub_registry_with_prefix("jobs");
        r.register(
            "waiting",
            "Jobs that could be handed out, now or at their time",
            self.waiting.clone(),
        );
        r.register(
            "oldest_waiting_seconds",
            "How long the job that waits longest has been due",
            self.oldest.clone(),
        );
        r.register("asks", "Requests for work that wait", self.asks.clone());
        r.register("claims", "Claims written", self.claims.clone());
        r.register(
            "claim_conflicts",
            "Claims that another write came before",
            self.conflicts.clone(),
        );
        r.register(
            "unknown_outcomes",
            "Writes whose outcome had to be read back",
            self.unknown.clone(),
        );
        r.register(
            "refused_writes",
            "Writes that the API server refuses for what they are",
            self.refused.clone(),
        );
        r.register("grants", "Jobs given to a sidecar", self.grants.clone());
        r.register("releases", "Claims given back", self.releases.clone());
        r.register("lost", "Jobs whose plugin was lost", self.lost.clone());
        r.register("rows", "Rows of output stored", self.rows.clone());
        r.register(
            "late_rows",
            "Rows stored after the end of their job",
            self.late_rows.clone(),
        );
        r.register(
            "output_bytes",
            "Bytes of output stored",
            self.output_bytes.clone(),
        );
        r.register(
            "dropped_rows",
            "Rows that no job was there for any more",
            self.dropped_rows.clone(),
        );
        r.register(
            "slow_sessions",
            "Sessions ended because their sidecar took nothing more",
            self.slow_sessions.clone(),
        );
        r.register(
            "dispatch_seconds",
            "From the choice of a job to its grant",
            self.dispatch.clone(),
        );
    }
}
