//! The kind Job: observe → resolve → desire → apply → report, and nothing else. Who gets a job is
//! not decided here; that is the other rhythm, in [`crate::jobs`].

use super::{Kind, Outcome, Passed, Steps};
use crate::events::{Subject, Words};
use crate::health::Part;
use crate::jobs::Jobs;
use crate::jobs::desk::cancel;
use crate::jobs::letters::ClaimOf;
use crate::jobs::write::WriteError;
use crate::key::{JobKey, PluginKey};
use crate::retry::spread;
use crate::watch::is_over;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use patchbay_api::job_status::{Claim, Phase};
use patchbay_api::{Job, Reason};
use patchbay_reconcile::job::acceptance::Acceptance;
use patchbay_reconcile::job::desire::Plan;
use patchbay_reconcile::job::observe::{HolderView, Observed, PluginView};
use patchbay_reconcile::job::resolve::Resolution;
use patchbay_reconcile::job::{desire, resolve};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// When a newer view has surely arrived.
const SOON: Duration = Duration::from_millis(250);

/// Works on Jobs.
pub struct JobPasses {
    jobs: Arc<Jobs>,
    /// What Plugins look like from their Jobs, by the version that was read.
    views: Mutex<HashMap<PluginKey, (u64, PluginView)>>,
}

/// Why a pass fails. Refusals and waits are no failures; they stand in status.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The status could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The Job could not be deleted at the end of its time to live.
    #[error("deleting a Job whose time to live is over: {0}")]
    Delete(#[source] Box<kube::Error>),
    /// Whether the pod is there that has the job.
    #[error("looking for the pod that has the job: {0}")]
    Pod(#[source] Box<kube::Error>),
    /// Nothing may be judged by this clock.
    #[error("reading the clock: it is {0:.1} s off")]
    Clock(f64),
}

impl Kind for JobPasses {
    const NAME: &'static str = "Job";
    const PART: Part = Part::Jobs;
    type Error = JobError;

    async fn pass(&self, key: &JobKey, steps: &mut Steps) -> Result<Passed, JobError> {
        steps.enter("observe");
        let Some(observed) = self.observe(key).await? else {
            return Ok(Passed {
                outcome: Outcome::Gone,
                next: None,
            });
        };
        steps.enter("resolve");
        let resolution = resolve(&observed);
        steps.enter("desire");
        let plan = desire(&observed, &resolution);
        steps.enter("apply");
        let stale = self.apply(key, &observed.job, &plan).await?;
        steps.enter("report");
        self.report(key, &observed.job, &plan);
        let soon = stale.then(|| Instant::now() + SOON);
        let next = plan.wake_at.map(|at| self.jobs.wall.instant(at));
        Ok(Passed {
            outcome: match resolution {
                Resolution::Open(Acceptance::No(..)) => Outcome::Refused,
                Resolution::Open(Acceptance::Unknown(..)) => Outcome::Waiting,
                _ if stale => Outcome::Waiting,
                _ => Outcome::Applied,
            },
            next: [soon, next].into_iter().flatten().min(),
        })
    }

    fn subject(&self, key: &JobKey) -> Option<Subject> {
        let job = self.jobs.stores.jobs.get(key)?;
        Some(Subject::new(key, &job))
    }
}

impl JobPasses {
    /// Over these Jobs.
    pub fn new(jobs: Arc<Jobs>) -> Self {
        Self {
            jobs,
            views: Mutex::default(),
        }
    }

    async fn observe(&self, key: &JobKey) -> Result<Option<Observed>, JobError> {
        let now = self.jobs.wall.now();
        self.jobs.clock.check(now).map_err(JobError::Clock)?;
        let Some(job) = self.jobs.stores.jobs.get(key) else {
            return Ok(None);
        };
        let plugin = PluginKey::new(&*key.namespace, &*job.spec.plugin_ref.name);
        let phase = job.status.as_ref().and_then(|status| status.phase);
        let is_open = !phase.is_some_and(|phase| phase.is_held() || phase.is_terminal());
        Ok(Some(Observed {
            plugin: if is_open { self.view(&plugin) } else { None },
            holder: self.holder(&plugin, &job, phase).await?,
            job,
            now,
            spread: spread(),
        }))
    }

    /// Made once per version of the Plugin: thousands of Jobs ask.
    fn view(&self, key: &PluginKey) -> Option<PluginView> {
        let plugins = &self.jobs.stores.plugins;
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(version) = plugins.version(key, &key.name) else {
            views.remove(key);
            return None;
        };
        match views.get(key) {
            Some((known, view)) if *known == version => Some(view.clone()),
            _ => {
                let view = PluginView::of(&plugins.get(key, &key.name)?);
                views.insert(key.clone(), (version, view.clone()));
                Some(view)
            }
        }
    }

    /// The pod that has the job. One that is not in the store is asked for: the watch of pods may
    /// be behind that of Jobs.
    async fn holder(
        &self,
        plugin: &PluginKey,
        job: &Job,
        phase: Option<Phase>,
    ) -> Result<HolderView, JobError> {
        let status = job.status.as_ref();
        let Some(claim) = status.and_then(|status| status.claim.as_ref()) else {
            return Ok(HolderView::Unknown);
        };
        let is_held = phase.is_some_and(Phase::is_held);
        if !is_held && !status.is_some_and(|status| ended_by_us(&status.reason)) {
            return Ok(HolderView::Unknown);
        }
        if let Some(pod) = self.jobs.stores.pods.get(plugin, &claim.holder_pod)
            && pod.uid().as_deref() == Some(&*claim.holder_pod_uid)
        {
            return Ok(seen(&pod, claim));
        }
        if !is_held {
            return Ok(HolderView::Unknown);
        }
        let pods: Api<Pod> = Api::namespaced(self.jobs.client.clone(), &plugin.namespace);
        let found = pods
            .get_opt(&claim.holder_pod)
            .await
            .map_err(|error| JobError::Pod(Box::new(error)))?;
        Ok(match found {
            Some(pod) if pod.uid().as_deref() == Some(&*claim.holder_pod_uid) => seen(&pod, claim),
            _ => HolderView::Gone {
                why: format!("pod {} was deleted", claim.holder_pod),
            },
        })
    }

    /// Whether what was seen is not what is there.
    async fn apply(&self, key: &JobKey, job: &Job, plan: &Plan) -> Result<bool, JobError> {
        if let Some(status) = &plan.status {
            match self.jobs.replace(job, status).await {
                Ok(written) => self.jobs.saw(written).await,
                Err(WriteError::Conflict | WriteError::Gone) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        if plan.delete {
            return self.delete(key, job).await;
        }
        Ok(false)
    }

    async fn delete(&self, key: &JobKey, job: &Job) -> Result<bool, JobError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: job.uid(),
                resource_version: job.resource_version(),
            }),
            ..DeleteParams::background()
        };
        let jobs: Api<Job> = Api::namespaced(self.jobs.client.clone(), &key.namespace);
        match jobs.delete(&key.name, &params).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
            Err(error) => Err(JobError::Delete(Box::new(error))),
        }
    }

    fn report(&self, key: &JobKey, job: &Job, plan: &Plan) {
        if let Some(holder) = &plan.cancel_holder {
            let claim = ClaimOf {
                claim_id: holder.claim_id.clone(),
                job: key.name.clone(),
                uid: job.uid().unwrap_or_default(),
            };
            let message = cancel(claim, holder.reason);
            self.jobs.doors.say_to_pod(&holder.pod_uid, message);
        }
        if plan.events.is_empty() {
            return;
        }
        let subject = Subject::new(key, job);
        for event in &plan.events {
            let words = Words {
                warning: event.warning,
                action: event.action.to_owned(),
                reason: event.reason.as_str().to_owned(),
                note: event.message.clone(),
                pod: None,
            };
            self.jobs.events.say(&subject, words);
        }
    }
}

/// The pod with the holder's uid.
fn seen(pod: &Pod, claim: &Claim) -> HolderView {
    if is_over(pod) {
        let why = format!("pod {} has ended", claim.holder_pod);
        return HolderView::Gone { why };
    }
    HolderView::Alive
}

/// Whether the reason is one that the holder has to be told.
fn ended_by_us(reason: &str) -> bool {
    [Reason::Cancelled, Reason::DeadlineExceeded]
        .iter()
        .any(|told| told.as_str() == reason)
}
