//! Sums of what sidecars count, per Plugin, for the metrics page.
//!
//! A sidecar counts since its process began. Sums over processes must not fall when one ends, so
//! what is added here are differences.

use crate::key::PluginKey;
use patchbay_protocol::session::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Plugins beyond this many are summed up under the name `others`, so labels stay bounded.
const PLUGINS: usize = 5_000;

/// What one Plugin's sidecars have counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    calls: u64,
    calls_failed: u64,
    connections: u64,
    shutdowns_answered: u64,
    log_lines: u64,
    log_lines_dropped: u64,
    reattachments: u64,
}

#[derive(Clone, Debug)]
struct PodCounters {
    plugin: PluginKey,
    process: String,
    last: Counters,
}

#[derive(Debug, Default)]
struct TotalsState {
    plugins: BTreeMap<PluginKey, Totals>,
    pods: HashMap<String, PodCounters>,
}

/// The sums.
#[derive(Debug, Default)]
pub struct SidecarTotals(Mutex<TotalsState>);

impl SidecarTotals {
    /// Adds what the sidecar process `process` of pod `pod` counted since the last time.
    pub fn add(&self, plugin: &PluginKey, pod: &str, process: &str, counters: &Counters) {
        let mut state = self.lock();
        let before = match state.pods.get(pod) {
            Some(known) if known.process == process => known.last,
            _ => Counters::default(),
        };
        state.pods.insert(
            pod.to_owned(),
            PodCounters {
                plugin: plugin.clone(),
                process: process.to_owned(),
                last: *counters,
            },
        );
        let key = if state.plugins.contains_key(plugin) || state.plugins.len() < PLUGINS {
            plugin.clone()
        } else {
            PluginKey::new("", "others")
        };
        let totals = state.plugins.entry(key).or_default();
        let grow = |total: &mut u64, before: u64, now: u64| {
            *total = total.saturating_add(now.saturating_sub(before));
        };
        grow(&mut totals.calls, before.calls, counters.calls);
        grow(
            &mut totals.calls_failed,
            before.calls_failed,
            counters.calls_failed,
        );
        grow(
            &mut totals.connections,
            before.connections,
            counters.connections,
        );
        grow(
            &mut totals.shutdowns_answered,
            before.shutdowns_answered,
            counters.shutdowns_answered,
        );
        grow(&mut totals.log_lines, before.log_lines, counters.log_lines);
        grow(
            &mut totals.log_lines_dropped,
            before.log_lines_dropped,
            counters.log_lines_dropped,
        );
        grow(
            &mut totals.reattachments,
            before.reattachments,
            counters.reattachments,
        );
    }

    /// The pod is gone; its Plugin keeps what was counted.
    pub fn forget_pod(&self, pod: &str) {
        self.lock().pods.remove(pod);
    }

    /// The Plugin is gone, and its numbers with it.
    pub fn forget_plugin(&self, plugin: &PluginKey) {
        let mut state = self.lock();
        state.plugins.remove(plugin);
        state.pods.retain(|_, pod| pod.plugin != *plugin);
    }

    fn lock(&self) -> MutexGuard<'_, TotalsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name, help and value of a series.
type Series<T> = (&'static str, &'static str, fn(&T) -> u64);
type Labels<'a> = [(&'a str, &'a str); 2];

fn labels(plugin: &PluginKey) -> Labels<'_> {
    [("namespace", &plugin.namespace), ("plugin", &plugin.name)]
}

impl Collector for SidecarTotals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let state = self.lock();
        let counters: [Series<Totals>; 7] = [
            ("plugin_calls", "Calls forwarded to the plugin", |t| t.calls),
            (
                "plugin_calls_failed",
                "Calls that the proxy had to answer with an error of its own",
                |t| t.calls_failed,
            ),
            (
                "plugin_connections",
                "Connections accepted on the proxy port",
                |t| t.connections,
            ),
            (
                "plugin_shutdowns_answered",
                "Shutdown calls of hosts, answered and not forwarded",
                |t| t.shutdowns_answered,
            ),
            ("plugin_log_lines", "Lines that the plugin wrote", |t| {
                t.log_lines
            }),
            (
                "plugin_log_lines_dropped",
                "Lines dropped because nobody took them in time",
                |t| t.log_lines_dropped,
            ),
            (
                "plugin_reattachments",
                "Times a new sidecar took over a running plugin",
                |t| t.reattachments,
            ),
        ];
        for (name, help, pick) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (plugin, totals) in &state.plugins {
                let labels = labels(plugin);
                ConstCounter::new(pick(totals)).encode(family.encode_family(&labels)?)?;
            }
        }
        // Of processes that live: a sum per Plugin.
        let mut now: BTreeMap<&PluginKey, (u64, u64)> = BTreeMap::new();
        for pod in state.pods.values() {
            if state.plugins.contains_key(&pod.plugin) {
                let sum = now.entry(&pod.plugin).or_default();
                sum.0 = sum.0.saturating_add(pod.last.calls_in_flight);
                sum.1 = sum.1.saturating_add(pod.last.resident_bytes);
            }
        }
        let gauges: [Series<(u64, u64)>; 2] = [
            ("plugin_calls_in_flight", "Calls being forwarded now", |n| {
                n.0
            }),
            (
                "sidecar_resident_bytes",
                "Resident memory of the Plugin's sidecars together",
                |n| n.1,
            ),
        ];
        for (name, help, pick) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (plugin, values) in &now {
                let labels = labels(plugin);
                let value = i64::try_from(pick(values)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::sync::Arc;

    fn calls(calls: u64) -> Counters {
        Counters {
            calls,
            calls_in_flight: 2,
            ..Counters::default()
        }
    }

    #[test]
    fn sums_never_fall_when_a_sidecar_is_replaced() {
        let totals = Arc::new(SidecarTotals::default());
        let metrics = Metrics::new(Arc::clone(&totals));
        let plugin = PluginKey::new("shop", "kv");
        totals.add(&plugin, "pod-1", "first", &calls(10));
        totals.add(&plugin, "pod-1", "first", &calls(15));
        totals.add(&plugin, "pod-1", "second", &calls(4));
        totals.add(&plugin, "pod-2", "other", &calls(100));
        totals.forget_pod("pod-2");
        let text = metrics.render().unwrap();
        let series = "{namespace=\"shop\",plugin=\"kv\"}";
        assert!(
            text.contains(&format!("patchbay_plugin_calls_total{series} 119")),
            "{text}"
        );
        assert!(
            text.contains(&format!("patchbay_plugin_calls_in_flight{series} 2")),
            "{text}"
        );
        totals.forget_plugin(&plugin);
        assert!(!metrics.render().unwrap().contains("shop"));
    }

    #[test]
    fn labels_are_bounded() {
        let totals = SidecarTotals::default();
        for n in 0..PLUGINS + 10 {
            let plugin = PluginKey::new("ns", n.to_string());
            totals.add(&plugin, &n.to_string(), "p", &calls(1));
        }
        assert!(totals.lock().plugins.len() <= PLUGINS + 1);
    }
}
