//! Clocks. True time is the run's own, in microseconds; everybody else's differs from it.

use crate::server::{BASE, timestamp};
use jiff::Timestamp;

/// A leader's wall clock, which can be set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wall {
    /// How far it is ahead, in microseconds.
    pub ahead: i64,
}

impl Wall {
    pub fn at(self, now: u64) -> Timestamp {
        timestamp(BASE + now as i64 + self.ahead)
    }

    /// The true time at which this clock shows `time`; 0 for all before the run.
    pub fn when(self, time: Timestamp) -> u64 {
        u64::try_from(time.as_microsecond() - BASE - self.ahead).unwrap_or(0)
    }
}

/// A node's clock since boot: never set, but a little too fast or too slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boot {
    /// Parts per million that it is too fast.
    pub drift: i64,
    /// What it showed at the beginning of the run, in milliseconds.
    pub base: u64,
}

impl Boot {
    pub fn millis(self, now: u64) -> u64 {
        let micros = now as i64 + (now as i64 / 1_000_000) * self.drift;
        self.base + (micros.max(0) as u64) / 1000
    }

    /// A true time at which it shows at least `millis`.
    pub fn when(self, millis: u64) -> u64 {
        let micros = millis.saturating_sub(self.base) * 1000;
        // Rounded up; the next tick comes if it was too early.
        let slow = if self.drift < 0 {
            micros / 1_000_000 * self.drift.unsigned_abs()
        } else {
            0
        };
        micros + slow + 100
    }
}
