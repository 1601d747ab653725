//! Back-off: how long to wait after the n-th failure in a row, per object.
//!
//! kube's own back-off belongs to a stream, not to an object: with it one broken Plugin would
//! slow down every other one. Success is heard as well as failure, so a recovered object starts
//! from the beginning again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Doubles from `first` to `limit`, then stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Delay after the first failure.
    pub first: Duration,
    /// No delay is longer than this.
    pub limit: Duration,
}

impl Policy {
    /// Delay after `failures` failures in a row (1 is the first). `jitter` lies in 0..1 and takes
    /// away up to a quarter, so that objects which failed together do not return together.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self
            .first
            .checked_mul(1 << doublings)
            .map_or(self.limit, |d| d.min(self.limit));
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// Waits so long.
    pub async fn pause(&self, failures: u32) {
        tokio::time::sleep(self.delay(failures, jitter())).await;
    }
}

/// Failures in a row, per key.
#[derive(Debug)]
pub struct Retries<K> {
    policy: Policy,
    failures: HashMap<K, u32>,
}

impl<K: Eq + Hash + Clone> Retries<K> {
    /// Nothing has failed yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            failures: HashMap::new(),
        }
    }

    /// Notes a failure and answers how long to wait.
    pub fn failed(&mut self, key: &K) -> Duration {
        let count = self.failures.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        self.policy.delay(*count, jitter())
    }

    /// Forgets the failures of `key`.
    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// How often `key` has failed in a row.
    pub fn in_a_row(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// How many objects are failing now.
    pub fn failing(&self) -> usize {
        self.failures.len()
    }
}

/// A number in 0..1 that differs between processes and calls. Not for secrets.
pub fn jitter() -> f64 {
    // The hasher's keys are random per process; that is all the randomness a delay needs.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static SEED: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    let bits = SEED
        .get_or_init(RandomState::new)
        .hash_one(CALLS.fetch_add(1, Ordering::Relaxed));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        first: Duration::from_millis(20),
        limit: Duration::from_secs(5),
    };

    #[test]
    fn delays_double_up_to_the_limit() {
        let delays: Vec<u128> = (1..=10).map(|n| POLICY.delay(n, 0.0).as_millis()).collect();
        assert_eq!(delays, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
        assert_eq!(POLICY.delay(u32::MAX, 0.0), POLICY.limit);
    }

    #[test]
    fn jitter_takes_away_at_most_a_quarter() {
        for _ in 0..1000 {
            let delay = POLICY.delay(4, jitter());
            assert!(delay <= Duration::from_millis(160));
            assert!(delay >= Duration::from_millis(120));
        }
    }

    #[test]
    fn jitter_is_not_constant() {
        let first = jitter();
        assert!((0..100).any(|_| (jitter() - first).abs() > 0.1));
    }

    #[test]
    fn one_object_does_not_slow_another_and_success_forgets() {
        let mut retries = Retries::new(POLICY);
        for _ in 0..8 {
            retries.failed(&"broken");
        }
        assert!(retries.failed(&"other") <= Duration::from_millis(20));
        retries.succeeded(&"broken");
        assert!(retries.failed(&"broken") <= Duration::from_millis(20));
        retries.succeeded(&"broken");
        retries.succeeded(&"other");
        assert_eq!(retries.failing(), 0);
    }
}
