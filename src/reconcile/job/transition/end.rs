//! Ends that come from outside: time and people.

use super::{Draft, NotNow, open_phase};
use crate::job::output::{TIMEOUT, digest, hex};
use crate::job::times;
use crate::text::untrusted_name;
use jiff::Timestamp;
use patchbay_api::job_status::{Encoding, Output, OutputRow, Phase};
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::{Job, JobStatus, Reason};

/// New, Waiting or Ready to Failed/Expired, with the output "Job Timeout". A suspended job does not
/// expire before it is resumed.
///
/// # Errors
/// When its time is not over, it is suspended, or a pod has it.
pub fn expire(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    match open_phase(job)? {
        None | Some(Phase::Waiting | Phase::Ready) => {}
        Some(Phase::Suspended) => return Err(NotNow::NotEligible("it is suspended")),
        Some(_) => return Err(NotNow::NotEligible("a pod has it")),
    }
    if !times::is_expired(job, now) {
        return Err(NotNow::NotEligible("its time is not over"));
    }
    let mut draft = Draft::new(job, now);
    draft.expire();
    Ok(draft.done())
}

/// Claimed or Running to Failed/DeadlineExceeded. The claim stays: the answer will be a late one.
///
/// # Errors
/// When no pod has it, it has no deadline, or the deadline has not come.
pub fn deadline_exceeded(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    match open_phase(job)? {
        Some(phase) if phase.is_held() => {}
        _ => return Err(NotNow::NotEligible("no pod has it")),
    }
    if times::deadline(job).is_none_or(|deadline| now < deadline) {
        return Err(NotNow::NotEligible("its deadline has not come"));
    }
    let message = format!(
        "it was not done within {} s",
        job.spec.active_deadline_seconds.unwrap_or_default()
    );
    let mut draft = Draft::new(job, now);
    draft.fail(Reason::DeadlineExceeded, &message);
    Ok(draft.done())
}

/// Everything that has not ended to Failed/Cancelled. The claim stays: the answer will be a late
/// one.
///
/// # Errors
/// When it has ended.
pub fn cancel(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    open_phase(job)?;
    let who = job
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(CANCEL_ANNOTATION))
        .filter(|who| !who.is_empty());
    let message = match who {
        Some(who) => format!("cancelled: {}", untrusted_name(who)),
        None => "cancelled".to_owned(),
    };
    let mut draft = Draft::new(job, now);
    draft.fail(Reason::Cancelled, &message);
    Ok(draft.done())
}

impl Draft<'_> {
    /// To Failed/Expired.
    pub(super) fn expire(&mut self) {
        let expire = times::expire(self.job).unwrap_or(self.now());
        let message = format!(
            "nobody got it before its expire time {}",
            times::micro(expire).0
        );
        let bytes = i64::try_from(TIMEOUT.len()).unwrap_or_default();
        self.status.output = Some(Output {
            bytes,
            sha256: hex(&digest(TIMEOUT.as_bytes())),
            preview: TIMEOUT.to_owned(),
            rows: vec![OutputRow {
                row: 1,
                bytes,
                encoding: Encoding::Text,
                content: Some(TIMEOUT.to_owned()),
                chunks: 0,
                late: false,
            }],
            row_count: 1,
            ..Output::default()
        });
        self.fail(Reason::Expired, &message);
    }
}
