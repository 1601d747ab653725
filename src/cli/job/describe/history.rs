//! The history of a Job, from its status, its JobOutputs and its events.
//!
//! Times in a Job have different precision: conditions and objects have whole seconds, claims and
//! ends have microseconds. So entries are sorted by the second, then by the attempt and the place
//! of the step in a Job's life, and only then by the exact time. An entry whose time is not
//! recorded is placed where it must have happened.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};
use serde::Serialize;

use super::JobObjects;
use super::rows::{self, OutputEntry};
use crate::reason_text::without_next_move;
use crate::status::event_time;

/// An event this many seconds after a step with the same reason reports that step.
const SAME_SECONDS: i64 = 5;
/// Reason of the conditions Claimed or Started once the plugin is known to have the job.
const DELIVERED: &str = "Delivered";

/// What happened, in the order of a Job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum HistoryStep {
    Created,
    Accepted,
    /// The plugin does not accept the Job as it is written.
    Refused,
    Suspended,
    Resumed,
    /// It may run from now on.
    Eligible,
    Claimed,
    /// The plugin is known to have received the job.
    Delivered,
    Started,
    /// spec.suspend came too late.
    SuspendRefused,
    Output,
    AttemptEnded,
    Invalid,
    Succeeded,
    Failed,
    LateOutput,
    /// Reported by the operator, and not one of the above.
    Event,
    Warning,
    /// Deletion was requested.
    Deleting,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryEntry {
    /// Absent if it is not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Timestamp>,
    pub(super) step: HistoryStep,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<OutputEntry>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    /// For the order of entries without a time.
    #[serde(skip)]
    pub(super) not_before: Option<Timestamp>,
}

impl HistoryEntry {
    pub(super) fn new(time: Option<Timestamp>, step: HistoryStep) -> Self {
        Self {
            time,
            step,
            attempt: None,
            claim_id: None,
            pod: None,
            output: None,
            reason: String::new(),
            message: String::new(),
            not_before: time,
        }
    }

    pub(super) fn attempt(mut self, attempt: i32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    fn because(mut self, reason: &str, message: &str) -> Self {
        reason.clone_into(&mut self.reason);
        without_next_move(message).clone_into(&mut self.message);
        self
    }

    fn not_before(mut self, time: Option<Timestamp>) -> Self {
        self.not_before = time;
        self
    }
}

/// All steps, oldest first.
pub(super) fn history(job: &Job, objects: &JobObjects) -> Vec<HistoryEntry> {
    let status = job.status.clone().unwrap_or_default();
    let mut entries = Vec::new();
    let meta = &job.metadata;
    entries.push(HistoryEntry::new(
        meta.creation_timestamp.as_ref().map(|time| time.0),
        HistoryStep::Created,
    ));
    entries.extend(before_claim(&status));
    entries.extend(attempts(&status));
    entries.extend(claim(&status));
    entries.extend(rows::rows(&status, objects));
    entries.extend(end(&status));
    entries.extend(
        meta.deletion_timestamp
            .as_ref()
            .map(|time| HistoryEntry::new(Some(time.0), HistoryStep::Deleting).attempt(i32::MAX)),
    );
    entries.extend(events(&entries, objects));
    sort(&mut entries);
    for entry in &mut entries {
        // Only for the order.
        entry.attempt = entry
            .attempt
            .filter(|attempt| (1..i32::MAX).contains(attempt));
    }
    entries
}

fn sort(entries: &mut [HistoryEntry]) {
    entries.sort_by_key(|entry| {
        let time = entry.time.or(entry.not_before);
        (
            time.map(Timestamp::as_second),
            entry.attempt.unwrap_or(0),
            entry.step,
            entry.output.as_ref().map(|output| output.row),
            time,
        )
    });
}

pub(super) fn find(status: &JobStatus, type_: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

pub(super) fn since(condition: &Condition) -> Option<Timestamp> {
    Some(condition.last_transition_time.0)
}

/// Accepted, Suspended and Eligible. A condition remembers only its last change.
fn before_claim(status: &JobStatus) -> Vec<HistoryEntry> {
    let mut entries = Vec::new();
    let mut push = |condition: &Condition, step, attempt| {
        entries.push(
            HistoryEntry::new(since(condition), step)
                .attempt(attempt)
                .because(&condition.reason, &condition.message),
        );
    };
    if let Some(accepted) = find(status, ConditionType::Accepted) {
        match accepted.status.as_str() {
            "True" => push(accepted, HistoryStep::Accepted, 0),
            "False" => push(accepted, HistoryStep::Refused, 0),
            _ => {}
        }
    }
    // The attempt that it is, or was last, eligible for.
    let attempt = match &status.claim {
        Some(_) => status.attempt,
        None => status.attempts.last().map_or(0, |last| last.attempt + 1),
    };
    if let Some(suspended) = find(status, ConditionType::Suspended) {
        match (suspended.status.as_str(), Reason::parse(&suspended.reason)) {
            ("True", _) => push(suspended, HistoryStep::Suspended, attempt),
            (_, Some(Reason::Resumed)) => push(suspended, HistoryStep::Resumed, attempt),
            (_, Some(Reason::AlreadyClaimed)) => {
                push(suspended, HistoryStep::SuspendRefused, attempt)
            }
            _ => {}
        }
    }
    if let Some(eligible) = find(status, ConditionType::Eligible).filter(|c| c.status == "True") {
        push(eligible, HistoryStep::Eligible, attempt);
    }
    entries
}

/// Earlier attempts: claim and end of each.
fn attempts(status: &JobStatus) -> Vec<HistoryEntry> {
    let mut entries = Vec::new();
    for earlier in &status.attempts {
        let mut claimed = HistoryEntry::new(Some(earlier.claimed_at.0), HistoryStep::Claimed);
        claimed.claim_id = Some(earlier.claim_id.clone());
        claimed.pod = Some(earlier.holder_pod.clone());
        let ended = HistoryEntry::new(Some(earlier.ended_at.0), HistoryStep::AttemptEnded)
            .because(&earlier.reason, &earlier.message);
        entries.push(claimed.attempt(earlier.attempt));
        entries.push(ended.attempt(earlier.attempt));
    }
    entries
}

/// The current or last attempt: claim, delivery and start.
fn claim(status: &JobStatus) -> Vec<HistoryEntry> {
    let Some(claim) = &status.claim else {
        return Vec::new();
    };
    let claimed_at = Some(claim.claimed_at.0);
    let mut claimed = HistoryEntry::new(claimed_at, HistoryStep::Claimed).attempt(status.attempt);
    claimed.claim_id = Some(claim.claim_id.clone());
    claimed.pod = Some(claim.holder_pod.clone());
    let mut entries = vec![claimed];
    if let Some(delivered) = delivered(status) {
        entries.push(
            HistoryEntry::new(None, HistoryStep::Delivered)
                .attempt(status.attempt)
                .because("", &delivered.message)
                .not_before(claimed_at),
        );
    }
    if let Some(started) = find(status, ConditionType::Started).filter(|c| c.status == "True") {
        entries.push(
            HistoryEntry::new(since(started), HistoryStep::Started)
                .attempt(status.attempt)
                .because("", &started.message),
        );
    }
    entries
}

/// The condition that says that the plugin has received the job.
pub(super) fn delivered(status: &JobStatus) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.reason == DELIVERED)
}

fn end(status: &JobStatus) -> Option<HistoryEntry> {
    let (step, type_) = match status.phase? {
        Phase::Invalid => (HistoryStep::Invalid, ConditionType::Accepted),
        Phase::Succeeded => (HistoryStep::Succeeded, ConditionType::Complete),
        Phase::Failed => (HistoryStep::Failed, ConditionType::Failed),
        _ => return None,
    };
    let time = status.completion_time.as_ref().map(|time| time.0);
    let message = find(status, type_).map_or("", |condition| condition.message.as_str());
    let entry = HistoryEntry::new(time, step).because(&status.reason, message);
    // Only a claimed Job ends in an attempt.
    Some(match status.claim {
        Some(_) => entry.attempt(status.attempt),
        None => entry,
    })
}

/// Events that do not repeat a step. They keep what conditions have forgotten.
fn events(entries: &[HistoryEntry], objects: &JobObjects) -> Vec<HistoryEntry> {
    let repeats = |reason: &str, time: Option<Timestamp>| {
        entries.iter().any(|entry| {
            let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
            let near = match (seconds(time), seconds(entry.time)) {
                (Some(event), Some(step)) => (0..=SAME_SECONDS).contains(&(event - step)),
                _ => false,
            };
            near && (entry.reason == reason || format!("{:?}", entry.step) == reason)
        })
    };
    objects
        .events
        .iter()
        .filter_map(|event| {
            let (reason, time) = (event.reason.as_deref()?, event_time(event));
            if repeats(reason, time) {
                return None;
            }
            let step = match event.type_.as_deref() {
                Some("Warning") => HistoryStep::Warning,
                _ => HistoryStep::Event,
            };
            // Within the same second it comes after the claim that it is about.
            let attempt = entries
                .iter()
                .filter(|entry| entry.step == HistoryStep::Claimed && entry.time <= time)
                .filter_map(|entry| entry.attempt)
                .max();
            let note = event.note.as_deref().unwrap_or_default();
            let mut entry = HistoryEntry::new(time, step).because(reason, note);
            entry.attempt = attempt;
            Some(entry)
        })
        .collect()
}
