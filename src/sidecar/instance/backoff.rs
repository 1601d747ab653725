//! Pauses between starts: doubling, capped, forgotten after a quiet time.

use patchbay_protocol::pod_config::Restart;

/// A run that lasted so long, in milliseconds, is quiet whatever the pause was.
const QUIET: u64 = 10_000;
/// Used until a configuration is read.
const DEFAULT: Restart = Restart {
    initial_seconds: 1,
    max_seconds: 300,
};

/// The pause before the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: u64,
    max: u64,
    /// The pause that was used last; 0 before the first.
    current: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::new(&DEFAULT, 0)
    }
}

impl Backoff {
    /// With the pause that was used last, in milliseconds, as an earlier sidecar remembered it.
    pub fn new(limits: &Restart, current: u64) -> Backoff {
        let mut made = Backoff {
            initial: 0,
            max: 0,
            current,
        };
        made.limit(limits);
        made
    }

    /// Takes over other limits.
    pub fn limit(&mut self, limits: &Restart) {
        self.initial = u64::from(limits.initial_seconds) * 1000;
        self.max = (u64::from(limits.max_seconds) * 1000).max(self.initial);
        self.current = self.current.min(self.max);
    }

    /// Forgets earlier failures.
    pub fn reset(&mut self) {
        self.current = 0;
    }

    /// The pause that was used last, in milliseconds.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Milliseconds until the next start, after a run that was ready for `ready_for` milliseconds.
    pub fn after(&mut self, ready_for: u64) -> u64 {
        if ready_for >= QUIET.max(self.current) {
            self.reset();
        }
        self.current = match self.current {
            0 => self.initial,
            // An initial pause of zero would double to zero for ever.
            current => (current * 2).max(1000),
        }
        .min(self.max);
        if self.initial == 0 && self.current == 0 && self.max > 0 {
            // The first restart is immediate; the second is not.
            self.current = 1;
            return 0;
        }
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(initial_seconds: u32, max_seconds: u32) -> Restart {
        Restart {
            initial_seconds,
            max_seconds,
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut backoff = Backoff::new(&limits(1, 5), 0);
        let pauses: Vec<u64> = (0..5).map(|_| backoff.after(0)).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn a_quiet_run_starts_over_and_a_run_shorter_than_the_pause_does_not() {
        let mut backoff = Backoff::new(&limits(1, 300), 0);
        for _ in 0..6 {
            backoff.after(0);
        }
        assert_eq!(backoff.current(), 32_000);
        assert_eq!(backoff.after(20_000), 64_000);
        assert_eq!(backoff.after(64_000), 1000);
        assert_eq!(backoff.after(9_999), 2000);
        assert_eq!(backoff.after(10_000), 1000);
    }

    #[test]
    fn an_initial_pause_of_zero_does_not_spin() {
        let mut backoff = Backoff::new(&limits(0, 4), 0);
        let pauses: Vec<u64> = (0..4).map(|_| backoff.after(0)).collect();
        assert_eq!(pauses, [0, 1000, 2000, 4000]);
    }

    #[test]
    fn narrower_limits_cut_the_pause() {
        let mut backoff = Backoff::new(&limits(1, 300), 128_000);
        backoff.limit(&limits(1, 10));
        assert_eq!(backoff.after(0), 10_000);
    }
}
