//! Says what to do about a Job: at most one write of its status, or its deletion.

use super::acceptance::Acceptance;
use super::conditions::{is_accepted, is_true};
use super::observe::{HolderView, Observed};
use super::report::{JobEvent, events};
use super::resolve::Resolution;
use super::times;
use super::transition::{self, NotNow, phase};
use crate::moment::later;
use jiff::{SignedDuration, Timestamp};
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job, JobStatus, Reason};

/// So long after its start a Job that nobody has taken becomes Ready. One for which a plugin waits
/// is claimed at its start from Waiting as well as from Ready, and two writes of one version at one
/// moment would only hold each other up.
pub(super) const UNTAKEN: SignedDuration = SignedDuration::from_millis(500);

/// So long after its start, at the latest, a Job that nobody has taken becomes Ready. Before that
/// the write leaves the API server to the claims, while there are any.
pub(super) const PASSED_OVER: SignedDuration = SignedDuration::from_secs(64);

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The status to write, with the resource version that was read; `None` when it is as it
    /// should be. After a conflict everything is looked at again.
    pub status: Option<JobStatus>,
    /// Whether to delete the Job, with its uid and resource version as preconditions.
    pub delete: bool,
    /// Whom to tell that the job is over for a reason of its own. Said again whenever the Job is
    /// looked at, until it is deleted: hearing it twice does no harm.
    pub cancel_holder: Option<Cancel>,
    /// Events to send once the status is written, in order.
    pub events: Vec<JobEvent>,
    /// When to look again although nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// Names a holder and why its job is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    pub claim_id: String,
    pub pod: String,
    pub pod_uid: String,
    /// Cancelled or DeadlineExceeded.
    pub reason: Reason,
}

/// Says what to do.
pub fn desire(observed: &Observed, resolution: &Resolution) -> Plan {
    let (job, now) = (&observed.job, observed.now);
    let status = match resolution {
        Resolution::Deleting => return Plan::default(),
        Resolution::Ended => return ended(observed),
        Resolution::Working => None,
        Resolution::Cancelled => transition::cancel(job, now).ok(),
        Resolution::Lost(loss) => transition::lose(job, None, loss, now, observed.spread).ok(),
        Resolution::Overdue => transition::deadline_exceeded(job, now).ok(),
        Resolution::SuspendTooLate => transition::suspend_refused(job, now).ok(),
        Resolution::Open(acceptance) => open(observed, acceptance),
    };
    let before = job.status.as_ref();
    let status = status.filter(|status| Some(status) != before);
    let after = status.as_ref().or(before);
    Plan {
        delete: false,
        cancel_holder: after.and_then(|status| cancel(status, &observed.holder)),
        events: status
            .as_ref()
            .map(|status| events(before, status))
            .unwrap_or_default(),
        wake_at: wake_at(job, after, now),
        status,
    }
}

fn ended(observed: &Observed) -> Plan {
    let delete_at = times::delete_at(&observed.job);
    let delete = delete_at.is_some_and(|at| observed.now >= at);
    let status = observed.job.status.as_ref();
    Plan {
        delete,
        cancel_holder: status.and_then(|status| cancel(status, &observed.holder)),
        wake_at: delete_at.filter(|_| !delete),
        ..Plan::default()
    }
}

/// One status out of several changes, for a job that nobody has.
fn open(observed: &Observed, acceptance: &Acceptance) -> Option<JobStatus> {
    let (job, now) = (&observed.job, observed.now);
    let mut steps = Steps {
        job: job.clone(),
        now,
    };
    let news = steps.generation_is_new();
    match acceptance {
        Acceptance::Yes if news || !is_accepted(job) => steps.take(transition::accept),
        Acceptance::Yes => {}
        Acceptance::Unknown(Reason::PluginMissing, _) => steps.take(transition::plugin_missing),
        Acceptance::Unknown(reason, message) => {
            steps.take(|job, now| transition::wait(job, *reason, message, now));
        }
        Acceptance::No(reason, message) => {
            steps.take(|job, now| transition::refuse(job, *reason, message, now));
        }
    }
    if job.spec.suspend {
        if phase(&steps.job) != Some(Phase::Suspended) {
            steps.take(transition::suspend);
        }
    } else {
        steps.take(transition::resume);
    }
    steps.take(transition::expire);
    let is_written_anyway = steps.job.status != job.status;
    if is_written_anyway || !observed.rush || now >= later(times::eligible_at(job), PASSED_OVER) {
        steps.take(transition::ready);
    }
    steps.job.status
}

/// A Job on its way through changes that are written as one.
struct Steps {
    job: Job,
    now: Timestamp,
}

impl Steps {
    /// Makes a change, if it applies.
    fn take(&mut self, change: impl FnOnce(&Job, Timestamp) -> Result<JobStatus, NotNow>) {
        if let Ok(status) = change(&self.job, self.now) {
            self.job.status = Some(status);
        }
    }

    fn generation_is_new(&self) -> bool {
        let seen = self
            .job
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        seen != self.job.metadata.generation
    }
}

/// Whom to tell. A holder that is gone hears nothing.
fn cancel(status: &JobStatus, holder: &HolderView) -> Option<Cancel> {
    if *holder != HolderView::Alive || status.phase != Some(Phase::Failed) {
        return None;
    }
    let reason = [Reason::Cancelled, Reason::DeadlineExceeded]
        .into_iter()
        .find(|reason| reason.as_str() == status.reason)?;
    let claim = status.claim.as_ref()?;
    Some(Cancel {
        claim_id: claim.claim_id.clone(),
        pod: claim.holder_pod.clone(),
        pod_uid: claim.holder_pod_uid.clone(),
        reason,
    })
}

/// The next look at a Job that was due then. The looks become rare: there may be thousands of them,
/// and the claims leave them little to do.
fn untaken(due: Timestamp, now: Timestamp) -> Timestamp {
    let mut wait = UNTAKEN;
    while wait < PASSED_OVER && later(due, wait) <= now {
        wait *= 2;
    }
    later(due, wait)
}

/// The next moment at which time alone changes something.
fn wake_at(job: &Job, status: Option<&JobStatus>, now: Timestamp) -> Option<Timestamp> {
    let status = status?;
    let spec = &job.spec;
    let mut moments = [None, None];
    match status.phase? {
        Phase::Waiting => {
            if is_true(status, ConditionType::Accepted) {
                let next = status.next_attempt_time.as_ref().map(|time| time.0);
                let due = next.max(Some(times::start(job)));
                moments[0] = due.map(|due| untaken(due, now));
            }
            moments[1] = times::expire(job);
        }
        Phase::Ready => moments[1] = times::expire(job),
        Phase::Claimed | Phase::Running => moments[0] = times::deadline_of(spec, status),
        Phase::Failed | Phase::Invalid | Phase::Succeeded => {
            // At once when it is past.
            return times::delete_at_of(spec, status).map(|at| at.max(now));
        }
        Phase::Suspended => {}
    }
    moments.into_iter().flatten().filter(|at| *at > now).min()
}
