//! The wall clock by which the leader judges times.
//!
//! There is one for leadership, the hand-out and the passes, so that a test can set it wrong as a
//! whole: what a wrong clock leads to must not depend on which part of the process read it.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// No clock is slewed by anything that counts within this.
const NEAR: Duration = Duration::from_secs(60);

/// Reads the time of day. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    /// Seconds by which it is wrong.
    shift: Arc<AtomicI64>,
}

impl WallClock {
    pub fn right() -> Self {
        Self::default()
    }

    /// Shifts it by this number of seconds.
    pub fn shift(&self, seconds: i64) {
        self.shift.store(seconds, Ordering::Relaxed);
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        let shift = SignedDuration::from_secs(self.shift.load(Ordering::Relaxed));
        now.saturating_add(shift).unwrap_or(now)
    }

    /// The monotonic moment at which to look whether a time of day has come; the past is now.
    /// Clocks are set while one waits for long, so a far moment is looked at a little before.
    pub fn instant(&self, when: Timestamp) -> Instant {
        let left = Duration::try_from(when.duration_since(self.now())).unwrap_or_default();
        let early = if left > NEAR {
            left / 500
        } else {
            Duration::ZERO
        };
        Instant::now() + (left - early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_clock_is_shifted_for_every_clone() {
        let wall = WallClock::default();
        let other = wall.clone();
        let ahead = || other.now().duration_since(Timestamp::now()).as_secs_f64();
        assert!(ahead().abs() < 1.0);
        wall.shift(600);
        assert!((ahead() - 600.0).abs() < 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn far_wake_up_comes_early_and_a_near_one_on_time() {
        let wall = WallClock::default();
        let wait = |seconds| {
            let when = wall.now() + SignedDuration::from_secs(seconds);
            let wait = wall.instant(when).duration_since(Instant::now());
            wait.as_secs_f64()
        };
        assert!((wait(50) - 50.0).abs() < 0.1);
        assert!((wait(5_000) - 4_990.0).abs() < 0.1);
        assert_eq!(wait(-5), 0.0);
        let never = wall.instant(Timestamp::MAX);
        assert!(never > Instant::now() + Duration::from_secs(1 << 32));
    }
}
