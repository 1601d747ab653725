//! Sums of times. Many of them come from others, such as an annotation that anybody with the right to
//! patch pods can write, and `Timestamp + SignedDuration` panics beyond the year 9999.

use jiff::{SignedDuration, Timestamp};

/// `time` and that much more; the end of time when there is no such moment.
pub(crate) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_beyond_the_end_of_time_is_the_end_of_time() {
        assert_eq!(later(Timestamp::MAX, SignedDuration::MAX), Timestamp::MAX);
        assert_eq!(
            later(Timestamp::UNIX_EPOCH, SignedDuration::from_secs(5)).as_second(),
            5
        );
    }
}
