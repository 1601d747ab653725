//! What a holder says about a job besides its output: that the plugin works on it, that it is lost.
//!
//! A holder may speak of Jobs of its namespace that are its Plugin's and that it has, by the uid of
//! the pod that was dialled. Anything else is answered as settled and changes nothing: the job is
//! somebody else's by now, or nobody's.

use super::JobContext;
use super::status_writer::ChangeError;
use super::update_queue::UpdateContext;
use crate::key::JobKey;
use crate::retry::jitter;
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use patchbay_protocol::session::{ClaimName, RowStored, from_operator};
use patchbay_reconcile::job::dispatch::{JobRef, LossCause};
use patchbay_reconcile::job::transition::{self, Loss, NotNow};

impl UpdateContext<'_> {
    pub(super) fn key(&self) -> JobKey {
        JobKey::new(&*self.holder.plugin.namespace, &*self.of.job)
    }

    /// Whether the holder may speak of this Job by this claim: it has it, or had it last.
    pub(super) fn may_speak(&self, job: &Job) -> bool {
        let claim = job.status.as_ref().and_then(|status| status.claim.as_ref());
        job.spec.plugin_ref.name == self.holder.plugin.name
            && job.metadata.uid.as_deref() == Some(&*self.of.uid)
            && claim.is_some_and(|claim| {
                claim.claim_id == self.of.claim_id && claim.holder_pod_uid == self.holder.uid
            })
    }

    /// [`Self::may_speak`], as a change wants it.
    pub(super) fn check(&self, job: &Job) -> Result<(), NotNow> {
        if self.may_speak(job) {
            Ok(())
        } else {
            Err(NotNow::Stale)
        }
    }

    /// Tells the sidecar that a row is stored or not wanted. `settled`: nothing more is.
    pub(super) fn stored(&self, row: u32, settled: bool, phase: Option<Phase>) {
        let stored = RowStored {
            claim: Some(ClaimName {
                claim_id: self.of.claim_id.clone(),
                job_uid: self.of.uid.clone(),
            }),
            row,
            settled,
            phase: phase.map(Phase::as_str).unwrap_or_default().to_owned(),
        };
        let message = from_operator::Message::RowStored(stored);
        self.jobs.sessions.say(self.session, message);
    }

    pub(super) async fn started(&self) {
        let claim_id = &self.of.claim_id;
        let changed = self
            .jobs
            .change(&self.key(), &self.of.uid, |job, now| {
                self.check(job)?;
                Ok((transition::start(job, claim_id, now)?, ()))
            })
            .await;
        // Nobody waits for an answer: the row that follows finds the same and says it.
        if let Err(error) = changed {
            tracing::debug!(job = %self.key(), %error, "a start is not noted");
        }
    }

    /// The plugin process that had the job is gone and has not answered.
    pub(super) async fn lost(&self, exit: String, message: String) {
        let loss = Loss {
            message,
            exit: (!exit.is_empty()).then_some(exit),
        };
        let (claim_id, jitter) = (&self.of.claim_id, jitter());
        let changed = self
            .jobs
            .change(&self.key(), &self.of.uid, |job, now| {
                self.check(job)?;
                let status = transition::lose(job, Some(claim_id), &loss, now, jitter)?;
                Ok((status, ()))
            })
            .await;
        match changed {
            Ok((job, ())) => {
                tracing::info!(
                    namespace = self.holder.plugin.namespace,
                    job = self.of.job,
                    claim = self.of.claim_id,
                    pod = self.holder.pod,
                    "lost a job: its plugin process is gone"
                );
                self.jobs.metrics.lost.inc();
                self.stored(0, true, phase(&job));
            }
            Err(ChangeError::NotNow { job, .. }) => {
                let phase = self.may_speak(&job).then(|| phase(&job)).flatten();
                self.stored(0, true, phase);
            }
            Err(ChangeError::Gone) => self.stored(0, true, None),
            Err(ChangeError::Refused(why)) => {
                tracing::error!(job = %self.key(), why, "a lost job could not be marked");
            }
        }
    }
}

/// The pod that the Job was claimed by, or was last.
fn holder_of(job: &Job) -> Option<&str> {
    let claim = job.status.as_ref()?.claim.as_ref()?;
    Some(&claim.holder_pod)
}

pub(super) fn phase(job: &Job) -> Option<Phase> {
    job.status.as_ref().and_then(|status| status.phase)
}

impl JobContext {
    /// Marks a Job as lost, unless that does not apply to it any more.
    pub(super) async fn lose(&self, name: &JobRef, claim_id: &str, why: LossCause) {
        let Ok(_place) = self.concurrency.status_writes.acquire().await else {
            return;
        };
        let key = JobKey::new(&*name.namespace, &*name.name);
        let loss = Loss {
            message: why.message().to_owned(),
            exit: None,
        };
        let jitter = jitter();
        let changed = self
            .change(&key, &name.uid, |job, now| {
                let status = transition::lose(job, Some(claim_id), &loss, now, jitter)?;
                Ok((status, ()))
            })
            .await;
        match changed {
            Ok((job, ())) => {
                tracing::info!(
                    namespace = key.namespace,
                    job = key.name,
                    claim = claim_id,
                    pod = holder_of(&job),
                    why = why.message(),
                    "lost a job"
                );
                self.metrics.lost.inc();
            }
            Err(ChangeError::Gone | ChangeError::NotNow { .. }) => {}
            Err(ChangeError::Refused(why)) => {
                tracing::error!(job = %key, why, "a lost job could not be marked");
            }
        }
    }
}
