//! Events about a Job: what turned, derived from the difference of two statuses, so that a second
//! look at the same Job sends none. What its conditions say is made with each transition.

use super::conditions::{find, is_true};
use crate::text::cut;
use patchbay_api::job_status::Phase;
use patchbay_api::plugin_status::MAX_MESSAGE;
use patchbay_api::{ConditionType, JobStatus, Reason};

/// An event about a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Normal or Warning.
    pub warning: bool,
    pub reason: Reason,
    /// What was done, one word of events.k8s.io.
    pub action: &'static str,
    /// For people; at most 1024 bytes.
    pub message: String,
}

/// What to say about a change of status.
pub fn events(before: Option<&JobStatus>, after: &JobStatus) -> Vec<JobEvent> {
    let was = before.and_then(|status| status.phase);
    let mut events = Vec::new();
    let mut say = |warning, action, type_: ConditionType| {
        let Some(condition) = find(after, type_) else {
            return;
        };
        events.push(JobEvent {
            warning,
            reason: Reason::parse(&condition.reason).unwrap_or(Reason::UnknownReason),
            action,
            message: cut(&condition.message, MAX_MESSAGE),
        });
    };
    if after.phase != was {
        match after.phase {
            Some(Phase::Invalid) => say(true, "Accept", ConditionType::Accepted),
            Some(Phase::Failed) => {
                let asked = after.reason == Reason::Cancelled.as_str();
                say(!asked, "End", ConditionType::Failed);
            }
            Some(Phase::Succeeded) => say(false, "End", ConditionType::Complete),
            Some(Phase::Suspended) => say(false, "Suspend", ConditionType::Suspended),
            // A lost or failed attempt.
            Some(Phase::Waiting) if was.is_some_and(Phase::is_held) => {
                say(true, "BackOff", ConditionType::Claimed);
            }
            _ if was == Some(Phase::Suspended) => {
                say(false, "Resume", ConditionType::Suspended);
            }
            _ => {}
        }
    }
    let refused = |status: &JobStatus| {
        !is_true(status, ConditionType::Suspended)
            && find(status, ConditionType::Suspended)
                .is_some_and(|suspended| suspended.reason == Reason::AlreadyClaimed.as_str())
    };
    if refused(after) && !before.is_some_and(refused) {
        say(true, "Suspend", ConditionType::Suspended);
    }
    events
}
