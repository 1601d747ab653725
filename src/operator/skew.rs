//! How far this machine's clock is from the API server's. Pure: samples in, verdict out.
//!
//! The leader alone judges time (certificates, deadlines), so a leader with a wrong clock is worse
//! than none. The API server's `Date` header is the one clock that every operator sees. It has
//! whole seconds, cut off, so one answer tells an interval of more than a second and never a
//! number: a verdict is only spoken when the whole interval lies beyond the bound.

use jiff::{SignedDuration, Timestamp};

/// The leader gives up when its clock differs by more than this.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// Number of consecutive samples that have to agree before the verdict turns, in either direction: one
/// frozen process or one step of a clock that is being set is not yet a wrong clock.
const AGREEING: u32 = 3;
/// An answer that took longer tells too little.
const SLOWEST: SignedDuration = SignedDuration::from_secs(2);

/// One answer of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// Own clock before the request.
    pub sent: Timestamp,
    /// Own clock after the answer's head.
    pub received: Timestamp,
    /// The answer's `Date`, a whole second.
    pub date: Timestamp,
}

/// Bounds of (server's clock minus own clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// At least this much.
    pub least: SignedDuration,
    /// At most this much.
    pub most: SignedDuration,
}

impl ClockSample {
    /// What the sample tells; nothing when the answer was slow or the own clock was set meanwhile.
    pub fn offset(&self) -> Option<ClockOffset> {
        let took = self.received.duration_since(self.sent);
        if took.is_negative() || took > SLOWEST {
            return None;
        }
        Some(ClockOffset {
            least: self.date.duration_since(self.received),
            most: self.date.duration_since(self.sent) + SignedDuration::from_secs(1),
        })
    }
}

impl ClockOffset {
    /// The middle of the interval, in seconds, for a gauge.
    pub fn middle_seconds(&self) -> f64 {
        (self.least.as_secs_f64() + self.most.as_secs_f64()) / 2.0
    }

    /// Certain to be outside: the whole interval is.
    pub fn is_beyond(&self) -> bool {
        self.least > TOLERANCE || self.most < -TOLERANCE
    }

    /// Certain to be within: the whole interval is.
    fn within(&self) -> bool {
        self.least >= -TOLERANCE && self.most <= TOLERANCE
    }
}

/// What is known about the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkewVerdict {
    /// Not enough samples yet.
    Unknown,
    /// Within the tolerance.
    Right,
    Wrong,
}

/// Collects samples.
#[derive(Clone, Copy, Debug)]
pub struct SkewEstimator {
    verdict: SkewVerdict,
    against: u32,
    last: Option<ClockOffset>,
}

impl Default for SkewEstimator {
    fn default() -> Self {
        Self {
            verdict: SkewVerdict::Unknown,
            against: 0,
            last: None,
        }
    }
}

impl SkewEstimator {
    /// Adds a sample and answers the verdict.
    pub fn add_sample(&mut self, sample: &ClockSample) -> SkewVerdict {
        let Some(offset) = sample.offset() else {
            return self.verdict;
        };
        self.last = Some(offset);
        let contradicts = match self.verdict {
            SkewVerdict::Unknown => {
                // The first sample decides, unless it says that something is wrong: nobody takes
                // a Lease on one lucky answer of a wrong clock, nor is refused for an unlucky one.
                if offset.within() {
                    self.turn(SkewVerdict::Right);
                    return self.verdict;
                }
                offset.is_beyond()
            }
            SkewVerdict::Right => offset.is_beyond(),
            SkewVerdict::Wrong => offset.within(),
        };
        self.against = if contradicts { self.against + 1 } else { 0 };
        if self.against >= AGREEING {
            self.turn(match self.verdict {
                SkewVerdict::Right | SkewVerdict::Unknown => SkewVerdict::Wrong,
                SkewVerdict::Wrong => SkewVerdict::Right,
            });
        }
        self.verdict
    }

    /// The verdict so far.
    pub fn verdict(&self) -> SkewVerdict {
        self.verdict
    }

    pub fn offset(&self) -> Option<ClockOffset> {
        self.last
    }

    fn turn(&mut self, verdict: SkewVerdict) {
        self.verdict = verdict;
        self.against = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + millis).unwrap()
    }

    /// A request sent at `sent` that takes 10 ms, answered by a server `ahead` of us.
    fn sample(sent: i64, ahead: i64) -> ClockSample {
        ClockSample {
            sent: at(sent),
            received: at(sent + 10),
            date: Timestamp::from_second((at(sent + 5 + ahead)).as_second()).unwrap(),
        }
    }

    #[test]
    fn the_true_offset_always_lies_in_the_interval() {
        for ahead in [-5_000, -1_500, 0, 700, 3_300] {
            for sent in (0..3_000).step_by(7) {
                let offset = sample(sent, ahead).offset().unwrap();
                let truth = SignedDuration::from_millis(ahead);
                assert!(offset.least <= truth && truth <= offset.most);
            }
        }
    }

    #[test]
    fn a_right_clock_is_never_called_wrong_whatever_the_fraction_of_the_second() {
        for ahead in [-1_900, -900, 0, 900, 1_900] {
            let mut clock = SkewEstimator::default();
            for sent in (0..20_000).step_by(13) {
                assert_ne!(
                    clock.add_sample(&sample(sent, ahead)),
                    SkewVerdict::Wrong,
                    "{ahead}"
                );
            }
        }
    }

    #[test]
    fn a_clock_that_is_three_seconds_and_more_off_is_wrong_after_three_samples() {
        for ahead in [-3_100, 3_100, 90_000, -90_000] {
            let mut clock = SkewEstimator::default();
            clock.add_sample(&sample(0, 0));
            let verdicts: Vec<SkewVerdict> = (1..4)
                .map(|n| clock.add_sample(&sample(n * 5_000, ahead)))
                .collect();
            assert_eq!(
                verdicts,
                [SkewVerdict::Right, SkewVerdict::Right, SkewVerdict::Wrong],
                "{ahead}"
            );
        }
    }

    #[test]
    fn a_clock_that_was_never_right_is_wrong_too() {
        let mut clock = SkewEstimator::default();
        assert_eq!(clock.add_sample(&sample(0, 60_000)), SkewVerdict::Unknown);
        clock.add_sample(&sample(1, 60_000));
        assert_eq!(clock.add_sample(&sample(2, 60_000)), SkewVerdict::Wrong);
    }

    #[test]
    fn one_odd_answer_turns_nothing() {
        let mut clock = SkewEstimator::default();
        clock.add_sample(&sample(0, 0));
        for n in 1..20 {
            clock.add_sample(&sample(n * 100, 60_000));
            clock.add_sample(&sample(n * 100 + 50, 60_000));
            assert_eq!(
                clock.add_sample(&sample(n * 100 + 60, 0)),
                SkewVerdict::Right
            );
        }
    }

    #[test]
    fn a_wrong_clock_that_was_set_is_right_again() {
        let mut clock = SkewEstimator::default();
        for n in 0..3 {
            clock.add_sample(&sample(n, 60_000));
        }
        assert_eq!(clock.verdict(), SkewVerdict::Wrong);
        for n in 10..13 {
            clock.add_sample(&sample(n, 0));
        }
        assert_eq!(clock.verdict(), SkewVerdict::Right);
    }

    #[test]
    fn slow_answers_and_a_clock_that_jumps_back_tell_nothing() {
        let slow = ClockSample {
            sent: at(0),
            received: at(2_500),
            date: at(60_000),
        };
        let jumped = ClockSample {
            sent: at(1_000),
            received: at(0),
            date: at(60_000),
        };
        assert_eq!(slow.offset(), None);
        assert_eq!(jumped.offset(), None);
    }
}
