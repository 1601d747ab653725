//! Replacing a Job's status, and reading a Job back.
//!
//! Every write carries the uid and the resource version that were read, so it applies to what was
//! decided upon or not at all. After a timeout, a reset or a 5xx the outcome is
//! unknown, so the Job is read back.

use super::JobContext;
use crate::key::JobKey;
use crate::retry::Policy;
use crate::text::bounded_text;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::core::Request;
use kube::{Resource, ResourceExt};
use patchbay_api::job_status::Phase;
use patchbay_api::{Job, JobStatus};
use patchbay_reconcile::job::report::events;
use patchbay_reconcile::job::transition::NotNow;
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// Between two attempts, and between two to read what became of one.
pub(super) const AGAIN: Policy = Policy {
    first: Duration::from_millis(100),
    limit: Duration::from_secs(5),
};
/// The same for what is chosen in an order, of which there is not much at a time: what is chosen
/// when the API server is there again is not to be far before what waited for it.
pub(super) const IN_ORDER: Policy = Policy {
    first: AGAIN.first,
    limit: Duration::from_secs(1),
};
/// Number of consecutive answers 403, over some 6 s, that are not believed: an API server that has just
/// started forbids everything until it has read the roles.
pub(super) const FORBIDDEN: u32 = 6;
/// Until an answer is complete; the client's own limit counts to its head only.
const ANSWER: Duration = Duration::from_secs(20);

/// Why a status is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else's write came before.
    #[error("writing the status of a Job: it has changed meanwhile")]
    Conflict,
    /// There is no such Job any more.
    #[error("writing the status of a Job: it is gone")]
    Gone,
    /// The API server will not have it as it is.
    #[error("writing the status of a Job: {0}")]
    Refused(String),
    /// The API server does not allow it, at least not now. It was not written.
    #[error("writing the status of a Job: {0}")]
    Forbidden(String),
    /// It may have been written, or not.
    #[error("writing the status of a Job: {0}")]
    Unknown(String),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such Job any more, or another of the same name.
    #[error("changing a Job: it is gone")]
    Gone,
    /// It does not apply to the Job as it is.
    #[error("changing a Job: {why}")]
    NotNow {
        why: NotNow,
        /// The Job as it is.
        job: Box<Job>,
    },
    /// The API server will not have it.
    #[error("changing a Job: {0}")]
    Refused(String),
}

/// The bytes of a replace of a status: the API server takes the spec from what it has. Metadata go
/// whole, since what is left out of it would lose its field managers.
pub fn body(metadata: &ObjectMeta, status: &JobStatus) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Body {
        api_version: &Job::api_version(&()),
        kind: &Job::kind(&()),
        metadata,
        status,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a ObjectMeta,
    status: &'a JobStatus,
}

impl JobContext {
    /// Replaces the status of exactly this Job at exactly this version.
    pub async fn replace(&self, job: &Job, status: &JobStatus) -> Result<Job, WriteError> {
        let namespace = job.namespace().unwrap_or_default();
        let written = async {
            let url = Job::url_path(&(), Some(&namespace));
            let body = body(&job.metadata, status).map_err(kube::Error::SerdeError)?;
            let request = Request::new(url)
                .replace_subresource("status", &job.name_any(), &PostParams::default(), body)
                .map_err(kube::Error::BuildRequest)?;
            self.client.request::<Job>(request).await
        };
        match timeout(ANSWER, written).await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(error)) => Err(self.sorted(error)),
            Err(_) => Err(WriteError::Unknown("no answer".to_owned())),
        }
    }

    /// The Job of this name as the API server has it, asked until it answers.
    pub async fn read_back(&self, key: &JobKey) -> Option<Job> {
        self.read_back_by(AGAIN, key).await
    }

    /// [`Self::read_back`], with other waits between two attempts.
    pub(super) async fn read_back_by(&self, again: Policy, key: &JobKey) -> Option<Job> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut failures = 0;
        loop {
            match timeout(ANSWER, api.get_opt(&key.name)).await {
                Ok(Ok(job)) => return job,
                Ok(Err(error)) => tracing::debug!(job = %key, %error, "a Job was not read"),
                Err(_) => tracing::debug!(job = %key, error = "no answer", "a Job was not read"),
            }
            failures += 1;
            again.pause(failures).await;
        }
    }

    /// Changes the Job of this name and uid: from its newest version, again after every conflict,
    /// and read back until the outcome is known. `change` is called again each time; on a Job that
    /// has its change already it answers [`NotNow`], or the status as it is.
    ///
    /// That a change does not apply is never said by the store, which may be behind: another
    /// leader may have made the claim that is spoken of.
    pub async fn change<T>(
        &self,
        key: &JobKey,
        uid: &str,
        mut change: impl FnMut(&Job, Timestamp) -> Result<(JobStatus, T), NotNow>,
    ) -> Result<(Job, T), ChangeError> {
        // A copy of a Job that has ended is not whole.
        let known = self.stores.jobs.get(key).filter(|job| !has_ended(job));
        let mut fresh = known.is_none();
        let mut newest = match known {
            Some(job) => job,
            None => self.read_back(key).await.ok_or(ChangeError::Gone)?,
        };
        let (mut failures, mut forbidden) = (0, 0);
        loop {
            let changed = if newest.metadata.uid.as_deref() == Some(uid) {
                change(&newest, self.wall.now()).map_err(Some)
            } else {
                Err(None)
            };
            let (status, disposition) = match changed {
                Ok(changed) => changed,
                Err(_) if !fresh => {
                    fresh = true;
                    newest = self.read_back(key).await.ok_or(ChangeError::Gone)?;
                    self.observed(newest.clone()).await;
                    continue;
                }
                Err(None) => return Err(ChangeError::Gone),
                Err(Some(why)) => {
                    let job = Box::new(newest);
                    return Err(ChangeError::NotNow { why, job });
                }
            };
            if newest.status.as_ref() == Some(&status) {
                return Ok((newest, disposition));
            }
            match self.replace(&newest, &status).await {
                Ok(written) => {
                    self.tell_turn(newest.status.as_ref(), &written);
                    self.observed(written.clone()).await;
                    return Ok((written, disposition));
                }
                Err(WriteError::Gone) => return Err(ChangeError::Gone),
                Err(WriteError::Forbidden(_)) if forbidden < FORBIDDEN => {
                    forbidden += 1;
                    AGAIN.pause(forbidden).await;
                    continue;
                }
                Err(WriteError::Refused(why) | WriteError::Forbidden(why)) => {
                    return Err(ChangeError::Refused(why));
                }
                Err(WriteError::Conflict) => {}
                Err(WriteError::Unknown(_)) => {
                    failures += 1;
                    self.metrics.unknown.inc();
                    AGAIN.pause(failures).await;
                }
            }
            newest = self.read_back(key).await.ok_or(ChangeError::Gone)?;
            fresh = true;
            // The watch may be behind what was read.
            self.observed(newest.clone()).await;
        }
    }

    /// Tells people what turned for the worse. What went well stands in the status; ten thousand
    /// events that say so would cost as many writes as the jobs themselves.
    fn tell_turn(&self, before: Option<&JobStatus>, job: &Job) {
        let Some(after) = job.status.as_ref() else {
            return;
        };
        for event in events(before, after) {
            if event.warning {
                self.tell(job, true, event.action, event.reason, event.message);
            }
        }
    }

    fn sorted(&self, error: kube::Error) -> WriteError {
        match error {
            kube::Error::Api(status) => match status.code {
                409 => WriteError::Conflict,
                404 => WriteError::Gone,
                400 | 413 | 422 => {
                    self.metrics.refused.inc();
                    WriteError::Refused(bounded_text(&status.message, 768))
                }
                403 => {
                    self.metrics.refused.inc();
                    WriteError::Forbidden(bounded_text(&status.message, 768))
                }
                _ => WriteError::Unknown(bounded_text(&status.message, 768)),
            },
            error => WriteError::Unknown(error.to_string()),
        }
    }
}

/// Whether nothing can follow.
pub(super) fn has_ended(job: &Job) -> bool {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    phase.is_some_and(Phase::is_terminal)
}
