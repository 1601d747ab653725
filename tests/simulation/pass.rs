//! The pass over a Job, as short as it can be: everything but the hand-out, by the functions of
//! `transition`.

use crate::server::uid_of;
use crate::world::World;
use crate::writes::Kind;
use jiff::Timestamp;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job, JobStatus};
use patchbay_reconcile::job::conditions::is_true;
use patchbay_reconcile::job::times;
use patchbay_reconcile::job::transition::{self, Loss, NotNow};

/// When a Job needs a pass.
#[derive(Debug)]
pub enum Due {
    Never,
    Now,
    At(Timestamp),
}

fn is_accepted(job: &Job) -> bool {
    job.status
        .as_ref()
        .is_some_and(|status| is_true(status, ConditionType::Accepted))
}

fn is_cancelled(job: &Job) -> bool {
    job.metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| !annotations.is_empty())
}

pub fn due(job: &Job, now: Timestamp, holder_gone: bool) -> Due {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    let by = |time: Option<Timestamp>| match time {
        None => Due::Never,
        Some(time) if time <= now => Due::Now,
        Some(time) => Due::At(time),
    };
    match phase {
        Some(phase) if phase.is_terminal() => Due::Never,
        _ if is_cancelled(job) => Due::Now,
        Some(phase) if phase.is_held() => {
            if holder_gone {
                return Due::Now;
            }
            by(times::deadline(job))
        }
        Some(Phase::Suspended) if job.spec.suspend => Due::Never,
        Some(Phase::Suspended) => Due::Now,
        _ if job.spec.suspend || !is_accepted(job) => Due::Now,
        Some(Phase::Waiting) => {
            let eligible = times::eligible_at(job);
            by(Some(
                times::expire(job).map_or(eligible, |expire| expire.min(eligible)),
            ))
        }
        _ => by(times::expire(job)),
    }
}

/// What a pass writes.
pub fn change(
    job: &Job,
    now: Timestamp,
    holder_gone: bool,
    draw: f64,
) -> Result<JobStatus, NotNow> {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    if let Some(phase) = phase.filter(|phase| phase.is_terminal()) {
        return Err(NotNow::Ended(phase));
    }
    if is_cancelled(job) {
        return transition::cancel(job, now);
    }
    if phase.is_some_and(Phase::is_held) {
        if holder_gone {
            let loss = Loss {
                message: "its pod is gone".to_owned(),
                exit: None,
            };
            return transition::lose(job, None, &loss, now, draw);
        }
        return transition::deadline_exceeded(job, now);
    }
    match phase {
        Some(Phase::Suspended) if !job.spec.suspend => transition::resume(job, now),
        Some(Phase::Suspended) => Err(NotNow::NotEligible("it is suspended")),
        _ if !is_accepted(job) => transition::accept(job, now),
        _ if job.spec.suspend => transition::suspend(job, now),
        _ if times::is_expired(job, now) => transition::expire(job, now),
        _ => transition::ready(job, now),
    }
}

impl World {
    /// Whether the pod that has the Job is gone, as the API server would say it now.
    pub fn holder_gone(&self, job: &Job) -> bool {
        let claim = job.status.as_ref().and_then(|status| status.claim.as_ref());
        claim.is_some_and(|claim| {
            let pod = crate::pod::pod_of(&claim.holder_pod_uid);
            self.pods.get(pod).is_some_and(|pod| pod.gone)
        })
    }

    pub fn pass(&mut self, leader: usize, name: u32) {
        if !self.leaders[leader].alive || self.leaders[leader].passes.get(&name) != Some(&self.now)
        {
            return;
        }
        self.leaders[leader].passes.remove(&name);
        let Some(job) = self.leaders[leader].known.get(&name) else {
            return;
        };
        let now = self.leaders[leader].wall.at(self.now);
        match due(job, now, self.holder_gone(job)) {
            Due::Never => {}
            Due::Now => {
                let uid = uid_of(job).to_owned();
                self.begin_change(leader, name, uid, Kind::Pass);
            }
            Due::At(_) => self.consider(leader, name),
        }
    }

    /// A leader hears that a pod is gone.
    pub fn pod_gone(&mut self, leader: usize, pod: usize) {
        if !self.leaders[leader].alive {
            return;
        }
        let uid = crate::pod::uid(pod);
        let held: Vec<u32> = self.leaders[leader]
            .known
            .iter()
            .filter(|(_, job)| {
                let status = job.status.as_ref();
                let claim = status.and_then(|status| status.claim.as_ref());
                claim.is_some_and(|claim| claim.holder_pod_uid == uid)
            })
            .map(|(name, _)| *name)
            .collect();
        for name in held {
            self.consider(leader, name);
        }
    }
}
