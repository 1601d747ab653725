//! The conditions of a Job. Both rhythms make theirs here and nowhere else.
//!
//! Accepted, Eligible, Claimed and Started are there from the first write: the milestones of a
//! job's life, in order. Complete, Failed and Suspended are the words of batch/v1, so that
//! `kubectl wait` habits work; they appear when they become true. Suspended stays as False
//! afterwards, as there.

use super::times::second;
use crate::text::with_mover;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    True,
    False,
    Unknown,
}

impl Is {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Is::True => "True",
            Is::False => "False",
            Is::Unknown => "Unknown",
        }
    }
}

/// The order in which conditions stand in status.
const ORDER: [ConditionType; 7] = [
    ConditionType::Accepted,
    ConditionType::Eligible,
    ConditionType::Claimed,
    ConditionType::Started,
    ConditionType::Suspended,
    ConditionType::Complete,
    ConditionType::Failed,
];

fn place(type_: &str) -> usize {
    ORDER
        .iter()
        .position(|known| known.as_str() == type_)
        .unwrap_or(ORDER.len())
}

/// Finds a condition.
pub fn find(status: &JobStatus, type_: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// Whether a condition is True.
pub fn is_true(status: &JobStatus, type_: ConditionType) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == Is::True.as_str())
}

/// Whether the Job was accepted. Only such a Job is ever handed out.
pub fn is_accepted(job: &Job) -> bool {
    job.status
        .as_ref()
        .is_some_and(|status| is_true(status, ConditionType::Accepted))
}

/// Writes conditions into one status, at one moment.
pub(crate) struct Pen {
    pub(crate) now: Timestamp,
    /// Generation of the spec that is spoken of.
    pub(crate) generation: Option<i64>,
}

impl Pen {
    /// Sets a condition. Its transition time moves only when its status does.
    pub(crate) fn set(
        &self,
        status: &mut JobStatus,
        type_: ConditionType,
        is: Is,
        reason: Reason,
        message: &str,
    ) {
        let message = with_mover(message, reason);
        let known = status
            .conditions
            .iter_mut()
            .find(|condition| condition.type_ == type_.as_str());
        if let Some(known) = known {
            if known.status != is.as_str() {
                is.as_str().clone_into(&mut known.status);
                known.last_transition_time = second(self.now);
            }
            if known.reason != reason.as_str() {
                reason.as_str().clone_into(&mut known.reason);
            }
            known.message = message;
            known.observed_generation = self.generation;
            return;
        }
        let before = place(type_.as_str());
        let at = status
            .conditions
            .iter()
            .position(|condition| place(&condition.type_) > before)
            .unwrap_or(status.conditions.len());
        status.conditions.insert(
            at,
            Condition {
                type_: type_.as_str().to_owned(),
                status: is.as_str().to_owned(),
                reason: reason.as_str().to_owned(),
                message,
                observed_generation: self.generation,
                last_transition_time: second(self.now),
            },
        );
    }

    /// Adds the milestones that are not there, and says of every condition which spec it is about.
    pub(crate) fn complete(&self, status: &mut JobStatus) {
        for type_ in ConditionType::JOB {
            if find(status, type_).is_none() {
                let (is, reason, message) = unmet(type_);
                self.set(status, type_, is, reason, message);
            }
        }
        for condition in &mut status.conditions {
            condition.observed_generation = self.generation;
        }
    }
}

/// What a milestone says that nothing is known of.
const fn unmet(type_: ConditionType) -> (Is, Reason, &'static str) {
    match type_ {
        ConditionType::Claimed => (Is::False, Reason::Unclaimed, "no pod has it"),
        ConditionType::Started => (
            Is::False,
            Reason::NotStarted,
            "the plugin has not reported progress yet",
        ),
        _ => (Is::Unknown, Reason::Pending, "nothing is known yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pen(now: &str) -> Pen {
        Pen {
            now: now.parse().unwrap(),
            generation: Some(3),
        }
    }

    #[test]
    fn conditions_are_present_from_the_first_write_and_ordered() {
        let mut status = JobStatus::default();
        let pen = pen("2026-01-01T00:00:00.5Z");
        pen.set(
            &mut status,
            ConditionType::Failed,
            Is::True,
            Reason::Expired,
            "too late",
        );
        pen.complete(&mut status);
        let words: Vec<_> = status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect();
        assert_eq!(
            words,
            [
                ("Accepted", "Unknown"),
                ("Eligible", "Unknown"),
                ("Claimed", "False"),
                ("Started", "False"),
                ("Failed", "True")
            ]
        );
        assert!(
            status
                .conditions
                .iter()
                .all(|c| c.observed_generation == Some(3) && !c.reason.is_empty())
        );
    }

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let mut status = JobStatus::default();
        let set = |status: &mut JobStatus, now: &str, is, reason| {
            pen(now).set(status, ConditionType::Eligible, is, reason, "so");
        };
        set(
            &mut status,
            "2026-01-01T00:00:00Z",
            Is::False,
            Reason::StartTimeInFuture,
        );
        set(
            &mut status,
            "2026-01-01T00:00:09Z",
            Is::False,
            Reason::BackingOff,
        );
        assert_eq!(
            status.conditions[0].last_transition_time.0.to_string(),
            "2026-01-01T00:00:00Z"
        );
        set(
            &mut status,
            "2026-01-01T00:00:10.9Z",
            Is::True,
            Reason::Eligible,
        );
        assert_eq!(
            status.conditions[0].last_transition_time.0.to_string(),
            "2026-01-01T00:00:10Z"
        );
    }
}
