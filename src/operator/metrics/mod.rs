//! Numbers of the operator itself, and those of the sidecars, re-exported with bounded labels.

pub mod jobs;
pub mod sidecar_totals;

use jobs::JobMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sidecar_totals::SidecarTotals;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A write to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Resource, from a closed list.
    pub kind: &'static str,
    /// `create`, `replace`, `patch` or `delete`.
    pub verb: &'static str,
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// The kind of object.
    pub kind: &'static str,
    /// `applied`, `waiting`, `refused` or `failed`.
    pub outcome: &'static str,
}

/// One step of a pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    /// The kind of object.
    pub kind: &'static str,
    /// `observe`, `resolve`, `desire`, `apply`, `report`.
    pub step: &'static str,
}

/// One watch, or one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    /// The kind of object.
    pub kind: &'static str,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Writes sent, whatever came of them.
    pub api_writes: Family<WriteLabels, Counter>,
    /// Reads, lists and opened watches.
    pub api_reads: Family<WatchLabels, Counter>,
    /// Passes by outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// Seconds per step.
    pub steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    /// Objects that are due and wait for a free place.
    pub queue_depth: Family<WatchLabels, Gauge>,
    /// Objects whose last pass failed.
    pub failing: Family<WatchLabels, Gauge>,
    /// Objects in a store.
    pub stored: Family<WatchLabels, Gauge>,
    /// Errors of a watch, each followed by a back-off.
    pub watch_errors: Family<WatchLabels, Counter>,
    /// Objects that could not be decoded and were passed over.
    pub undecodable: Family<WatchLabels, Counter>,
    /// 1 while this process leads.
    pub leader: Gauge,
    /// API server's clock minus ours.
    pub clock_offset: Gauge<f64, AtomicU64>,
    /// Sidecars with an open session.
    pub sessions: Gauge,
    /// Dials of sidecars that failed.
    pub dial_failures: Counter,
    pub leaves_issued: Counter,
    /// The dispatcher of Jobs.
    pub jobs: Arc<JobMetrics>,
}

fn step_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 4.0, 8))
}

impl Metrics {
    /// Registers everything. `totals` are the sidecars' numbers.
    pub fn new(totals: Arc<SidecarTotals>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("patchbay"),
            api_writes: Family::default(),
            api_reads: Family::default(),
            reconciles: Family::default(),
            steps: Family::new_with_constructor(step_histogram),
            queue_depth: Family::default(),
            failing: Family::default(),
            stored: Family::default(),
            watch_errors: Family::default(),
            undecodable: Family::default(),
            leader: Gauge::default(),
            clock_offset: Gauge::default(),
            sessions: Gauge::default(),
            dial_failures: Counter::default(),
            leaves_issued: Counter::default(),
            jobs: Arc::default(),
        };
        let r = &mut metrics.registry;
        r.register(
            "api_writes",
            "Writes sent to the API server",
            metrics.api_writes.clone(),
        );
        r.register(
            "api_reads",
            "Reads, lists and watches asked of the API server",
            metrics.api_reads.clone(),
        );
        r.register(
            "reconciles",
            "Passes over an object, by outcome",
            metrics.reconciles.clone(),
        );
        r.register(
            "reconcile_step_seconds",
            "Time spent in one step of a pass",
            metrics.steps.clone(),
        );
        r.register(
            "queue_depth",
            "Objects that are due and not in work",
            metrics.queue_depth.clone(),
        );
        r.register(
            "failing_objects",
            "Objects whose last pass failed",
            metrics.failing.clone(),
        );
        r.register(
            "stored_objects",
            "Objects in the stores",
            metrics.stored.clone(),
        );
        r.register(
            "watch_errors",
            "Errors of watches",
            metrics.watch_errors.clone(),
        );
        r.register(
            "undecodable_objects",
            "Objects passed over because they could not be decoded",
            metrics.undecodable.clone(),
        );
        r.register(
            "leader",
            "Whether this process leads",
            metrics.leader.clone(),
        );
        r.register(
            "clock_offset_seconds",
            "Clock of the API server minus own clock, to about half a second",
            metrics.clock_offset.clone(),
        );
        r.register(
            "sessions",
            "Sidecars with an open session",
            metrics.sessions.clone(),
        );
        r.register(
            "session_dial_failures",
            "Dials of sidecars that failed",
            metrics.dial_failures.clone(),
        );
        r.register(
            "leaves_issued",
            "Certificates issued",
            metrics.leaves_issued.clone(),
        );
        metrics.jobs.register(r);
        r.register_collector(Box::new(totals));
        metrics
    }

    /// The exposition in text form.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_show_up_by_kind_and_verb() {
        let metrics = Metrics::new(Arc::default());
        let labels = WriteLabels {
            kind: "pods",
            verb: "create",
        };
        metrics.api_writes.get_or_create(&labels).inc();
        let text = metrics.render().unwrap();
        assert!(
            text.contains("patchbay_api_writes_total{kind=\"pods\",verb=\"create\"} 1"),
            "{text}"
        );
    }
}
