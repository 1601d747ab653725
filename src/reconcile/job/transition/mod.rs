//! Every change of a Job's status, pure: from the Job as it was read to the status to be written
//! with that resource version. The pass, the hand-out, the sessions and the tests use these
//! functions and nothing else, so that a rule stands in one place:
//!
//! - nothing leaves Invalid, Succeeded and Failed;
//! - one claim id never follows another directly;
//! - `attempt` grows only after an attempt that reached a plugin;
//! - Ready never becomes Waiting again, unless a delivered attempt is backed off.
//!
//! A function that finds the Job elsewhere than it expects answers [`NotNow`]; the caller reads
//! again or lets it be. It never writes on a guess.

mod end;
mod hold;
mod open;
mod row;
#[cfg(test)]
mod tests;

pub use end::{cancel, deadline_exceeded, expire};
pub use hold::{Choice, Loss, claim, lose, release, start, unreached};
pub use open::{accept, plugin_missing, ready, refuse, resume, suspend, suspend_refused, wait};
pub use row::{RowFate, RowOutcome, StoredRow, store_row};

pub(crate) use hold::cancelled;

use super::conditions::{Is, Pen, is_true};
use super::times;
use jiff::Timestamp;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};
use patchbay_protocol::escape::printable;

/// Why a change does not apply to the Job as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Another claim holds the job, or none. A message about the old one is too late for good.
    #[error("the job is not held by this claim")]
    Stale,
    /// It has ended.
    #[error("the job has ended as {0}")]
    Ended(Phase),
    /// It is somewhere else on its way.
    #[error("the job is not eligible: {0}")]
    NotEligible(&'static str),
}

/// A status in the making.
struct Draft<'a> {
    job: &'a Job,
    status: JobStatus,
    pen: Pen,
}

/// Phase of a Job; `None` before the first write.
pub(crate) fn phase(job: &Job) -> Option<Phase> {
    job.status.as_ref().and_then(|status| status.phase)
}

/// Phase of a Job that has not ended.
fn open_phase(job: &Job) -> Result<Option<Phase>, NotNow> {
    match phase(job) {
        Some(phase) if phase.is_terminal() => Err(NotNow::Ended(phase)),
        phase => Ok(phase),
    }
}

/// The Job is held, and by this claim.
fn held_by(job: &Job, claim_id: &str) -> Result<Phase, NotNow> {
    let phase = open_phase(job)?;
    let claim = job.status.as_ref().and_then(|status| status.claim.as_ref());
    match (phase, claim) {
        (Some(phase), Some(claim)) if phase.is_held() && claim.claim_id == claim_id => Ok(phase),
        _ => Err(NotNow::Stale),
    }
}

impl<'a> Draft<'a> {
    fn new(job: &'a Job, now: Timestamp) -> Self {
        Self {
            job,
            status: job.status.clone().unwrap_or_default(),
            pen: Pen {
                now,
                generation: job.metadata.generation,
            },
        }
    }

    fn now(&self) -> Timestamp {
        self.pen.now
    }

    fn phase(&mut self, phase: Phase, reason: Reason) {
        self.status.phase = Some(phase);
        if self.status.reason != reason.as_str() {
            reason.as_str().clone_into(&mut self.status.reason);
        }
    }

    fn set(&mut self, type_: ConditionType, is: Is, reason: Reason, message: &str) {
        self.pen.set(&mut self.status, type_, is, reason, message);
    }

    /// To Ready: it can be handed out.
    fn ready(&mut self) {
        self.status.next_attempt_time = None;
        self.phase(Phase::Ready, Reason::Eligible);
        self.set(
            ConditionType::Eligible,
            Is::True,
            Reason::Eligible,
            "it can be handed out",
        );
    }

    /// To Ready or Waiting, by the clock.
    fn by_the_clock(&mut self) {
        let now = self.now();
        let eligible_at = times::eligible_at(self.job);
        if now >= eligible_at {
            return self.ready();
        }
        let (reason, what) = if now < times::start(self.job) {
            (Reason::StartTimeInFuture, "its start time is")
        } else {
            (Reason::BackingOff, "its next attempt is at")
        };
        self.phase(Phase::Waiting, reason);
        let message = format!("{what} {}", times::micro(eligible_at).0);
        self.set(ConditionType::Eligible, Is::False, reason, &message);
    }

    fn fail(&mut self, reason: Reason, message: &str) {
        let now = self.now();
        self.phase(Phase::Failed, reason);
        self.status.next_attempt_time = None;
        self.status.completion_time = Some(times::micro(now));
        if self.status.claim.is_none() {
            self.set(ConditionType::Eligible, Is::False, reason, message);
        }
        if is_true(&self.status, ConditionType::Suspended) {
            self.set(ConditionType::Suspended, Is::False, reason, message);
        }
        self.set(ConditionType::Failed, Is::True, reason, message);
    }

    /// Ends the draft: what is the same in every status.
    fn done(mut self) -> JobStatus {
        self.pen.complete(&mut self.status);
        self.status.observed_generation = self.pen.generation;
        if self.status.command.is_empty() {
            self.status.command = what(self.job);
        }
        self.status
    }
}

/// What is to be done, for the printed table.
fn what(job: &Job) -> String {
    const MOST: usize = 256;
    let word = |text: &str| printable(text.as_bytes(), MOST);
    match (&job.spec.command, &job.spec.call) {
        (Some(command), _) => word(&command.name),
        (None, Some(call)) => format!("{}/{}", word(&call.service), word(&call.method)),
        (None, None) => String::new(),
    }
}
