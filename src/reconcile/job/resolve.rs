//! Parses what was seen of a Job: which one thing is to be done about it. The list below is the
//! order in which reasons count.

use super::acceptance::{Acceptance, judge};
use super::conditions::{find, is_accepted};
use super::observe::{HolderView, Observed};
use super::times;
use super::transition::{Loss, cancelled, phase};
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Reason};

/// What is to be done about a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is being deleted: nothing.
    Deleting,
    /// It has ended. It is deleted when its time to live is over.
    Ended,
    /// Somebody asked for its end.
    Cancelled,
    /// Nobody has it; this is what its plugin says.
    Open(Acceptance),
    /// The pod that had it is gone.
    Lost(Loss),
    /// It was not done in time.
    Overdue,
    /// It shall be suspended and a pod has it already; that was not said yet.
    SuspendTooLate,
    /// A pod has it and all is well.
    Working,
}

/// Parses what was seen.
pub fn resolve(observed: &Observed) -> Resolution {
    let job = &observed.job;
    if job.metadata.deletion_timestamp.is_some() {
        return Resolution::Deleting;
    }
    match phase(job) {
        Some(phase) if phase.is_terminal() => Resolution::Ended,
        _ if cancelled(job) => Resolution::Cancelled,
        Some(phase) if phase.is_held() => held(observed),
        phase => Resolution::Open(acceptance(observed, phase)),
    }
}

fn held(observed: &Observed) -> Resolution {
    let job = &observed.job;
    if let HolderView::Gone { why } = &observed.holder {
        return Resolution::Lost(Loss {
            message: why.clone(),
            exit: None,
        });
    }
    if times::deadline(job).is_some_and(|deadline| observed.now >= deadline) {
        return Resolution::Overdue;
    }
    let said = job
        .status
        .as_ref()
        .and_then(|status| find(status, ConditionType::Suspended))
        .is_some_and(|suspended| suspended.reason == Reason::AlreadyClaimed.as_str());
    if job.spec.suspend && !said {
        return Resolution::SuspendTooLate;
    }
    Resolution::Working
}

/// What was accepted stays accepted while its Plugin is there, whatever the Plugin advertises by
/// now: a Job that waits for tomorrow is not judged again with every restart of a plugin.
fn acceptance(observed: &Observed, phase: Option<Phase>) -> Acceptance {
    let plugin = observed.plugin.as_ref();
    let present = plugin.is_some_and(|plugin| !plugin.deleting);
    if phase.is_some() && present && is_accepted(&observed.job) {
        return Acceptance::Yes;
    }
    judge(&observed.job.spec, plugin)
}
