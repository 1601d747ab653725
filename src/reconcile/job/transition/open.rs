//! Changes of a job that nobody has: accepted or not, waiting, ready, suspended.

use super::{Draft, NotNow, open_phase};
use crate::job::conditions::{Is, find};
use crate::job::times;
use crate::text::cut;
use jiff::Timestamp;
use patchbay_api::job_status::Phase;
use patchbay_api::plugin_status::MAX_MESSAGE;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};

/// The phase of a job that nobody has.
fn unheld(job: &Job) -> Result<Option<Phase>, NotNow> {
    match open_phase(job)? {
        Some(phase) if phase.is_held() => Err(NotNow::NotEligible("a pod has it")),
        phase => Ok(phase),
    }
}

/// The plugin takes the job as it is written. A new or waiting one becomes Ready, Waiting,
/// Suspended or, when its time is over, Failed/Expired.
///
/// # Errors
/// When it has ended or a pod has it.
pub fn accept(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    let phase = unheld(job)?;
    let mut draft = Draft::new(job, now);
    draft.set(
        ConditionType::Accepted,
        Is::True,
        Reason::Accepted,
        "the plugin takes it as it is written",
    );
    match phase {
        None | Some(Phase::Waiting) if job.spec.suspend => draft.hold_back(),
        None | Some(Phase::Waiting) if times::is_expired(job, now) => draft.expire(),
        None | Some(Phase::Waiting) => draft.by_the_clock(),
        Some(Phase::Ready) => draft.ready(),
        _ => {}
    }
    Ok(draft.done())
}

/// Whether the plugin takes the job cannot be said yet. Ready stays Ready and Suspended stays
/// Suspended; without acceptance neither is handed out.
///
/// # Errors
/// When it has ended or a pod has it.
pub fn wait(job: &Job, reason: Reason, message: &str, now: Timestamp) -> Result<JobStatus, NotNow> {
    let phase = unheld(job)?;
    let mut draft = Draft::new(job, now);
    draft.set(ConditionType::Accepted, Is::Unknown, reason, message);
    match phase {
        None | Some(Phase::Waiting) if job.spec.suspend => draft.hold_back(),
        None | Some(Phase::Waiting) => {
            draft.phase(Phase::Waiting, reason);
            draft.set(ConditionType::Eligible, Is::Unknown, reason, message);
        }
        Some(Phase::Ready) => {
            draft.phase(Phase::Ready, reason);
            draft.set(ConditionType::Eligible, Is::Unknown, reason, message);
        }
        _ => {}
    }
    Ok(draft.done())
}

/// The Plugin does not exist. A job that was accepted before is not any more.
///
/// # Errors
/// When it has ended or a pod has it.
pub fn plugin_missing(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    let message = format!(
        "Plugin {} does not exist in this namespace or is being deleted; create it, or delete the Job",
        job.spec.plugin_ref.name
    );
    wait(job, Reason::PluginMissing, &message, now)
}

/// The plugin does not take the job as it is written, and never will: Invalid, or Failed for one
/// that was accepted or held back before.
///
/// # Errors
/// When it has ended or a pod has it.
pub fn refuse(
    job: &Job,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> Result<JobStatus, NotNow> {
    let phase = unheld(job)?;
    let message = cut(message, MAX_MESSAGE);
    let mut draft = Draft::new(job, now);
    draft.set(ConditionType::Accepted, Is::False, reason, &message);
    match phase {
        Some(Phase::Ready | Phase::Suspended) => draft.fail(reason, &message),
        _ => {
            draft.phase(Phase::Invalid, reason);
            draft.set(ConditionType::Eligible, Is::False, reason, &message);
            draft.status.next_attempt_time = None;
            draft.status.completion_time = Some(times::micro(now));
        }
    }
    Ok(draft.done())
}

/// Waiting to Ready: its time has come.
///
/// # Errors
/// When it does not wait, was not accepted, or its time has not come or is over.
pub fn ready(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    if unheld(job)? != Some(Phase::Waiting) {
        return Err(NotNow::NotEligible("it does not wait"));
    }
    if !crate::job::conditions::is_accepted(job) {
        return Err(NotNow::NotEligible("it was not accepted"));
    }
    if now < times::eligible_at(job) {
        return Err(NotNow::NotEligible("its time has not come"));
    }
    if times::is_expired(job, now) {
        return Err(NotNow::NotEligible("its time is over"));
    }
    let mut draft = Draft::new(job, now);
    draft.ready();
    Ok(draft.done())
}

/// To Suspended, as `spec.suspend` asks.
///
/// # Errors
/// When it has ended or a pod has it: what runs is cancelled, not suspended.
pub fn suspend(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    unheld(job)?;
    let mut draft = Draft::new(job, now);
    draft.hold_back();
    Ok(draft.done())
}

/// Says that `spec.suspend` came too late: a pod has the job already.
///
/// # Errors
/// When no pod has it.
pub fn suspend_refused(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    match open_phase(job)? {
        Some(phase) if phase.is_held() => {}
        _ => return Err(NotNow::NotEligible("no pod has it")),
    }
    let mut draft = Draft::new(job, now);
    draft.set(
        ConditionType::Suspended,
        Is::False,
        Reason::AlreadyClaimed,
        "spec.suspend is true and a pod has the job already; a job that runs can be cancelled, not suspended",
    );
    Ok(draft.done())
}

/// Suspended to Ready, Waiting or, when its time is over, Failed/Expired.
///
/// # Errors
/// When it is not suspended.
pub fn resume(job: &Job, now: Timestamp) -> Result<JobStatus, NotNow> {
    if open_phase(job)? != Some(Phase::Suspended) {
        return Err(NotNow::NotEligible("it is not suspended"));
    }
    let mut draft = Draft::new(job, now);
    draft.set(
        ConditionType::Suspended,
        Is::False,
        Reason::Resumed,
        "it is no longer held back",
    );
    let unknown = find(&draft.status, ConditionType::Accepted)
        .filter(|accepted| accepted.status != Is::True.as_str())
        .map(|accepted| Reason::parse(&accepted.reason).unwrap_or(Reason::Pending));
    if times::is_expired(job, now) {
        draft.expire();
    } else if let Some(reason) = unknown {
        draft.phase(Phase::Waiting, reason);
        draft.set(
            ConditionType::Eligible,
            Is::Unknown,
            reason,
            "the plugin has not taken it yet",
        );
    } else {
        draft.by_the_clock();
    }
    Ok(draft.done())
}

impl Draft<'_> {
    fn hold_back(&mut self) {
        const MESSAGE: &str = "spec.suspend is true";
        self.phase(Phase::Suspended, Reason::Suspended);
        self.set(
            ConditionType::Eligible,
            Is::False,
            Reason::Suspended,
            MESSAGE,
        );
        self.set(
            ConditionType::Suspended,
            Is::True,
            Reason::Suspended,
            MESSAGE,
        );
    }
}
