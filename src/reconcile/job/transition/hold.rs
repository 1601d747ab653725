//! Changes around a claim: taken, given back, begun, lost.

use super::{Draft, NotNow, held_by, open_phase, phase};
use crate::job::conditions::{Is, is_accepted};
use crate::job::times;
use crate::moment::later;
use crate::text::{cut, untrusted_text};
use jiff::Timestamp;
use patchbay_api::job::DeliveryPolicy;
use patchbay_api::job_status::{Attempt, Claim, MAX_ATTEMPTS, Phase};
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::plugin_status::MAX_MESSAGE;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};

/// Whom a job is chosen for, and on what grounds: the claim block without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Counts the choices of this leader's term.
    pub sequence: i64,
    /// The newest resource version of Jobs that the leader had seen when it chose.
    pub observed_resource_version: String,
    pub claim_id: String,
    /// The pod that asked, as it was dialled.
    pub pod: String,
    pub pod_uid: String,
    pub ledger_epoch: String,
    /// The client that it asked for, if for one.
    pub client_location: Option<String>,
}

/// How a plugin was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What was seen. Foreign: escaped and bounded here.
    pub message: String,
    /// How its process ended, such as "exit 1" or "signal 9".
    pub exit: Option<String>,
}

/// Ready, or Waiting with its time come, to Claimed. Everything that speaks against a hand-out is
/// judged again, at the time of the write.
///
/// # Errors
/// When the job cannot be handed out now.
pub fn claim(job: &Job, choice: &Choice, now: Timestamp) -> Result<JobStatus, NotNow> {
    use NotNow::NotEligible;
    match open_phase(job)? {
        Some(Phase::Ready | Phase::Waiting) => {}
        Some(Phase::Suspended) => return Err(NotEligible("it is suspended")),
        Some(_) => return Err(NotEligible("a pod has it")),
        None => return Err(NotEligible("it was not accepted")),
    }
    if !is_accepted(job) {
        return Err(NotEligible("it was not accepted"));
    }
    if job.spec.suspend {
        return Err(NotEligible("it is suspended"));
    }
    if cancelled(job) {
        return Err(NotEligible("it is cancelled"));
    }
    if job.metadata.deletion_timestamp.is_some() {
        return Err(NotEligible("it is being deleted"));
    }
    if now < times::eligible_at(job) {
        return Err(NotEligible("its time has not come"));
    }
    if times::is_expired(job, now) {
        return Err(NotEligible("its time is over"));
    }
    let mut draft = Draft::new(job, now);
    let claimed_at = times::micro(now);
    let status = &mut draft.status;
    status.attempt = status
        .attempts
        .last()
        .map_or(1, |last| last.attempt.saturating_add(1));
    if status.start_time.is_none() {
        status.start_time = Some(claimed_at.clone());
    }
    status.next_attempt_time = None;
    status.claim = Some(Claim {
        claim_id: choice.claim_id.clone(),
        sequence: choice.sequence,
        observed_resource_version: choice.observed_resource_version.clone(),
        holder_pod: choice.pod.clone(),
        holder_pod_uid: choice.pod_uid.clone(),
        ledger_epoch: choice.ledger_epoch.clone(),
        claimed_at,
        client_location: choice.client_location.clone(),
    });
    draft.phase(Phase::Claimed, Reason::Claimed);
    draft.set(
        ConditionType::Eligible,
        Is::True,
        Reason::Eligible,
        "it can be handed out",
    );
    let message = format!("pod {} has it", choice.pod);
    draft.set(ConditionType::Claimed, Is::True, Reason::Claimed, &message);
    Ok(draft.done())
}

/// Whether somebody asked for the end of the job.
pub(crate) fn cancelled(job: &Job) -> bool {
    job.metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(CANCEL_ANNOTATION))
}

/// Claimed to Ready: the holder of this claim has not handed the job over and never will. A job
/// whose time is over meanwhile fails with Expired. The attempt does not count.
///
/// # Errors
/// When the job is not held by this claim, or its plugin is known to work on it.
pub fn release(job: &Job, claim_id: &str, now: Timestamp) -> Result<JobStatus, NotNow> {
    if held_by(job, claim_id)? == Phase::Running {
        return Err(NotNow::NotEligible("its plugin works on it"));
    }
    let mut draft = Draft::new(job, now);
    let pod = draft.status.claim.take().map(|claim| claim.holder_pod);
    let message = format!("pod {} gave it back", pod.unwrap_or_default());
    draft.set(
        ConditionType::Claimed,
        Is::False,
        Reason::Released,
        &message,
    );
    if draft.status.attempts.is_empty() {
        // It was never handed out after all.
        draft.status.start_time = None;
    }
    if times::is_expired(job, now) {
        draft.expire();
    } else {
        draft.ready();
    }
    Ok(draft.done())
}

/// A claim that was written and never granted, because its ask or its time was over by then. Only
/// for the leader that made it and has not sent, and will not send, the grant.
///
/// # Errors
/// As [`release`].
pub fn unreached(job: &Job, claim_id: &str, now: Timestamp) -> Result<JobStatus, NotNow> {
    release(job, claim_id, now)
}

/// Claimed to Running: the plugin is known to work on it. Running stays as it is.
///
/// # Errors
/// When the job is not held by this claim.
pub fn start(job: &Job, claim_id: &str, now: Timestamp) -> Result<JobStatus, NotNow> {
    held_by(job, claim_id)?;
    let mut draft = Draft::new(job, now);
    draft.begin();
    Ok(draft.done())
}

/// The plugin that has the job is gone and will not answer: Failed/PluginLost or, for AtLeastOnce
/// with attempts left, Waiting for the next. Every claim counts as handed over here. Without a
/// claim id: whichever claim holds it.
///
/// # Errors
/// When no claim, or another one, holds the job.
pub fn lose(
    job: &Job,
    claim_id: Option<&str>,
    loss: &Loss,
    now: Timestamp,
    spread: f64,
) -> Result<JobStatus, NotNow> {
    match claim_id {
        Some(claim_id) => {
            held_by(job, claim_id)?;
        }
        None => {
            open_phase(job)?;
            if !phase(job).is_some_and(Phase::is_held) {
                return Err(NotNow::Stale);
            }
        }
    }
    let exit = loss.exit.as_deref().map(untrusted_text);
    let mut message = untrusted_text(&loss.message);
    if let Some(exit) = exit.filter(|exit| !message.contains(exit.as_str())) {
        message = format!("{message} ({exit})");
    }
    let mut draft = Draft::new(job, now);
    draft.attempt_over(Reason::PluginLost, &message, spread);
    Ok(draft.done())
}

impl Draft<'_> {
    /// To Running, if it is not there.
    pub(super) fn begin(&mut self) {
        self.phase(Phase::Running, Reason::Started);
        self.set(
            ConditionType::Started,
            Is::True,
            Reason::Started,
            "the plugin works on it",
        );
    }

    /// The attempt has gone wrong: the next one, or the end.
    pub(super) fn attempt_over(&mut self, reason: Reason, message: &str, spread: f64) {
        let spec = &self.job.spec;
        let again = spec.delivery_policy == DeliveryPolicy::AtLeastOnce
            && matches!(
                reason,
                Reason::PluginLost | Reason::PluginError | Reason::CallFailed
            );
        if !again || spec.backoff_limit <= 0 {
            return self.fail(reason, message);
        }
        if self.status.attempt > spec.backoff_limit {
            let message = format!(
                "attempt {} of {} ended with {reason}: {message}",
                self.status.attempt,
                spec.backoff_limit.saturating_add(1)
            );
            return self.fail(Reason::BackoffLimitExceeded, &message);
        }
        self.back_off(reason, message, spread);
    }

    fn back_off(&mut self, reason: Reason, message: &str, spread: f64) {
        let now = self.now();
        let wait = times::backoff(&self.job.spec.backoff, self.status.attempt, spread);
        let next = times::micro(later(now, wait));
        let message = cut(message, MAX_MESSAGE / 2);
        if let Some(claim) = self.status.claim.take() {
            let attempt = Attempt {
                attempt: self.status.attempt,
                claim_id: claim.claim_id,
                holder_pod: claim.holder_pod,
                claimed_at: claim.claimed_at,
                ended_at: times::micro(now),
                reason: reason.as_str().to_owned(),
                message: message.clone(),
            };
            let known = &mut self.status.attempts;
            known.push(attempt);
            if known.len() > MAX_ATTEMPTS {
                known.remove(0);
            }
        }
        // The rows of an attempt end with it; what lies in objects is named after the attempt.
        self.status.output = None;
        self.phase(Phase::Waiting, Reason::BackingOff);
        let waits = format!("the next attempt is at {}; {message}", next.0);
        self.status.next_attempt_time = Some(next);
        self.set(
            ConditionType::Eligible,
            Is::False,
            Reason::BackingOff,
            &waits,
        );
        self.set(ConditionType::Claimed, Is::False, reason, &message);
        self.set(ConditionType::Started, Is::False, reason, &message);
    }
}
