//! The moments that count for a Job. All of them are the leader's: no clock of a node is ever
//! asked, and none is read here.

use crate::moment::later;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use patchbay_api::job::Backoff;
use patchbay_api::{Job, JobSpec, JobStatus};

/// Not handed out before: `spec.startTime`, or the Job's creation. The order of hand-outs is the
/// order of these.
pub fn start(job: &Job) -> Timestamp {
    let created = || job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let asked = job.spec.start_time.as_ref().map(|time| time.0);
    asked.or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Not handed out before, the wait between two attempts included.
pub fn eligible_at(job: &Job) -> Timestamp {
    let next = job
        .status
        .as_ref()
        .and_then(|status| status.next_attempt_time.as_ref())
        .map(|time| time.0);
    next.map_or(start(job), |next| next.max(start(job)))
}

/// Handed out strictly before or never.
pub fn expire(job: &Job) -> Option<Timestamp> {
    job.spec.expire_time.as_ref().map(|time| time.0)
}

/// Whether the time for a hand-out is over. At the very moment of `expireTime` it is.
pub fn is_expired(job: &Job, now: Timestamp) -> bool {
    expire(job).is_some_and(|expire| now >= expire)
}

/// When a job that a pod has fails with DeadlineExceeded.
pub fn deadline(job: &Job) -> Option<Timestamp> {
    deadline_of(&job.spec, job.status.as_ref()?)
}

pub(crate) fn deadline_of(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    let claimed_at = status.claim.as_ref()?.claimed_at.0;
    let seconds = spec.active_deadline_seconds?;
    Some(later(claimed_at, SignedDuration::from_secs(seconds.into())))
}

/// When the Job is deleted. `None` while it has not ended, and for one that is kept.
pub fn delete_at(job: &Job) -> Option<Timestamp> {
    delete_at_of(&job.spec, job.status.as_ref()?)
}

pub(crate) fn delete_at_of(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    if !status.phase?.is_terminal() {
        return None;
    }
    let seconds = spec.ttl_seconds_after_finished?;
    let ended = status.completion_time.as_ref()?.0;
    Some(later(ended, SignedDuration::from_secs(seconds.into())))
}

/// Wait before the attempt after `attempt`: doubles from `initialSeconds` to `maxSeconds`, less up
/// to a quarter of it. `spread` is the draw, from 0 (the whole wait) to 1.
pub fn backoff(backoff: &Backoff, attempt: i32, spread: f64) -> SignedDuration {
    let doublings = u32::try_from(attempt.saturating_sub(1))
        .unwrap_or_default()
        .min(20);
    let initial = i64::from(backoff.initial_seconds.max(1));
    let most = i64::from(backoff.max_seconds.max(1));
    let whole = initial.saturating_mul(1 << doublings).min(most);
    let spread = if spread.is_finite() {
        spread.clamp(0.0, 1.0)
    } else {
        0.0
    };
    // At most 86 400 s: exact in a float to far below a microsecond.
    SignedDuration::from_secs_f64(whole as f64 * (1.0 - 0.25 * spread))
}

/// As the API stores it: whole microseconds, never later than it was.
pub(crate) fn micro(time: Timestamp) -> MicroTime {
    let micros = time.as_nanosecond().div_euclid(1000);
    let whole = i64::try_from(micros)
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok());
    MicroTime(whole.unwrap_or(time))
}

/// As conditions have it: whole seconds.
pub(crate) fn second(time: Timestamp) -> Time {
    let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
    let whole = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    Time(whole.unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum_and_jitter_shortens_it() {
        let policy = Backoff {
            initial_seconds: 10,
            max_seconds: 60,
        };
        for (attempt, seconds) in [(0, 10), (1, 10), (2, 20), (3, 40), (4, 60), (i32::MAX, 60)] {
            assert_eq!(
                backoff(&policy, attempt, 0.0),
                SignedDuration::from_secs(seconds)
            );
            assert_eq!(
                backoff(&policy, attempt, 1.0),
                SignedDuration::from_secs(seconds) * 3 / 4
            );
        }
        assert_eq!(backoff(&policy, 1, f64::NAN), SignedDuration::from_secs(10));
        assert_eq!(backoff(&policy, 1, 7.0), backoff(&policy, 1, 1.0));
    }

    #[test]
    fn stored_times_are_rounded_down() {
        let time: Timestamp = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        assert_eq!(micro(time).0.to_string(), "2026-01-01T00:00:00.123456Z");
        assert_eq!(second(time).0.to_string(), "2026-01-01T00:00:00Z");
        let before: Timestamp = "1969-12-31T23:59:59.9999999Z".parse().unwrap();
        assert_eq!(micro(before).0.to_string(), "1969-12-31T23:59:59.999999Z");
    }
}
