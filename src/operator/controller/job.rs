//! The kind Job: observe → resolve → desire → apply → report, and nothing else. Who gets a job is
//! not decided here; that is the other rhythm, in [`crate::jobs`].

use super::{ReconcileOutcome, Reconciled, Reconciler, StepTimer};
use crate::events::{EventContent, Subject};
use crate::health::LivenessCheck;
use crate::jobs::JobContext;
use crate::jobs::cancel::SENT_TO_HOLDER;
use crate::jobs::messages::ClaimOf;
use crate::jobs::status_writer::WriteError;
use crate::key::{JobKey, PluginKey};
use crate::retry::jitter;
use crate::watch::is_over;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use patchbay_api::Job;
use patchbay_api::job_status::{Claim, Phase};
use patchbay_reconcile::job::acceptance::Acceptance;
use patchbay_reconcile::job::desire::Plan;
use patchbay_reconcile::job::observe::{HolderView, Observed, PluginView};
use patchbay_reconcile::job::resolve::Resolution;
use patchbay_reconcile::job::{desire, resolve};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// When a newer view has surely arrived.
const SOON: Duration = Duration::from_millis(250);

/// Works on Jobs.
pub struct JobReconciler {
    jobs: Arc<JobContext>,
    /// What Plugins look like from their Jobs, by the version that was read.
    views: Mutex<HashMap<PluginKey, (u64, PluginView)>>,
}

/// Why a pass fails. Refusals and waits are no failures; they stand in status.
#[derive(Debug, thiserror::Error)]
pub enum JobReconcileError {
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

impl Reconciler for JobReconciler {
    const NAME: &'static str = "Job";
    const LIVENESS: LivenessCheck = LivenessCheck::Jobs;
    type Error = JobReconcileError;

    async fn reconcile(
        &self,
        key: &JobKey,
        steps: &mut StepTimer,
    ) -> Result<Reconciled, JobReconcileError> {
        steps.enter("observe");
        let Some(observed) = self.observe(key).await? else {
            return Ok(Reconciled {
                outcome: ReconcileOutcome::Gone,
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
        Ok(Reconciled {
            outcome: match resolution {
                Resolution::Open(Acceptance::No(..)) => ReconcileOutcome::Refused,
                Resolution::Open(Acceptance::Unknown(..)) => ReconcileOutcome::Waiting,
                _ if stale => ReconcileOutcome::Waiting,
                _ => ReconcileOutcome::Applied,
            },
            next: [soon, next].into_iter().flatten().min(),
        })
    }

    fn subject(&self, key: &JobKey) -> Option<Subject> {
        let job = self.jobs.stores.jobs.get(key)?;
        Some(Subject::new(key, &job))
    }
}

impl JobReconciler {
    /// Over these Jobs.
    pub fn new(jobs: Arc<JobContext>) -> Self {
        Self {
            jobs,
            views: Mutex::default(),
        }
    }

    async fn observe(&self, key: &JobKey) -> Result<Option<Observed>, JobReconcileError> {
        let now = self.jobs.wall.now();
        self.jobs
            .clock
            .check(now)
            .map_err(JobReconcileError::Clock)?;
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
            rush: self.jobs.concurrency.claiming.load(Ordering::Relaxed),
            now,
            spread: jitter(),
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
    ) -> Result<HolderView, JobReconcileError> {
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
            .map_err(|error| JobReconcileError::Pod(Box::new(error)))?;
        Ok(match found {
            Some(pod) if pod.uid().as_deref() == Some(&*claim.holder_pod_uid) => seen(&pod, claim),
            _ => HolderView::Gone {
                why: format!("pod {} was deleted", claim.holder_pod),
            },
        })
    }

    /// Whether what was seen is not what is there.
    async fn apply(&self, key: &JobKey, job: &Job, plan: &Plan) -> Result<bool, JobReconcileError> {
        if let Some(status) = &plan.status {
            match self.jobs.replace(job, status).await {
                Ok(written) => self.jobs.passed(written).await,
                Err(WriteError::Conflict | WriteError::Gone) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        if plan.delete {
            return self.delete(key, job).await;
        }
        Ok(false)
    }

    async fn delete(&self, key: &JobKey, job: &Job) -> Result<bool, JobReconcileError> {
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
            Err(error) => Err(JobReconcileError::Delete(Box::new(error))),
        }
    }

    fn report(&self, key: &JobKey, job: &Job, plan: &Plan) {
        if let Some(holder) = &plan.cancel_holder {
            let claim = ClaimOf {
                claim_id: holder.claim_id.clone(),
                job: key.name.clone(),
                uid: job.uid().unwrap_or_default(),
            };
            self.jobs.cancel(&holder.pod_uid, claim, holder.reason);
        }
        if plan.events.is_empty() {
            return;
        }
        let subject = Subject::new(key, job);
        for event in &plan.events {
            let words = EventContent {
                warning: event.warning,
                action: event.action.to_owned(),
                reason: event.reason.as_str().to_owned(),
                note: event.message.clone(),
                pod: None,
            };
            self.jobs.events.publish(&subject, words);
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
    SENT_TO_HOLDER.iter().any(|told| told.as_str() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::harness::{Harness, claimed, job_path, ready, spec};
    use crate::metrics::Metrics;
    use k8s_openapi::api::core::v1::PodStatus;
    use kube::runtime::watcher::Event;
    use patchbay_api::Plugin;
    use patchbay_fake_api::Fault;
    use serde_json::{Value, json};

    const CLAIM: &str = "0123456789abcdef0123456789abcdef";
    const POD: &str = "/api/v1/namespaces/ns/pods/kv-0-1";

    async fn reconcile(harness: &Harness, name: &str) -> Result<Reconciled, JobReconcileError> {
        let metrics = Arc::new(Metrics::new(Arc::default()));
        let mut steps = StepTimer::new("Job", metrics);
        let passes = JobReconciler::new(Arc::clone(&harness.jobs));
        passes.reconcile(&JobKey::new("ns", name), &mut steps).await
    }

    fn plugin(harness: &Harness, status: Value) {
        let plugin: Plugin = serde_json::from_value(json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin",
            "metadata": {"namespace": "ns", "name": "kv", "uid": "p", "resourceVersion": "7"},
            "spec": {
                "source": {"image": {"reference": "kv:1"}}, "image": "kv:1",
                "protocol": {"pcpController": {"port": 10000}},
            },
            "status": status,
        }))
        .unwrap();
        harness
            .jobs
            .stores
            .plugins
            .apply_event(&Event::Apply(plugin));
    }

    fn pod(uid: &str, phase: &str) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "ns", "name": "kv-0-1", "uid": uid, "resourceVersion": "3",
                         "labels": {"patchbay.dev/plugin": "kv"}},
        }))
        .unwrap();
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            ..PodStatus::default()
        });
        pod
    }

    fn commands() -> Value {
        json!({"provides": {"commands": [{"name": "echo", "output": true}]}})
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_job_becomes_ready_with_one_write_and_a_second_look_writes_nothing() {
        let harness = Harness::new();
        plugin(&harness, commands());
        harness.add("a", spec(), None);
        let passed = reconcile(&harness, "a").await.unwrap();
        assert_eq!(passed.outcome, ReconcileOutcome::Applied);
        assert_eq!(harness.status("a").phase, Some(Phase::Ready));
        reconcile(&harness, "a").await.unwrap();
        assert_eq!(harness.api.log(), ["PUT jobs/a/status"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_without_its_plugin_waits_and_looks_again_when_its_time_is_over() {
        let harness = Harness::new();
        let mut spec = spec();
        spec["expireTime"] = "2999-01-01T00:00:00.000000Z".into();
        harness.add("a", spec, None);
        let passed = reconcile(&harness, "a").await.unwrap();
        assert_eq!(passed.outcome, ReconcileOutcome::Waiting);
        assert!(passed.next.is_some());
        let status = harness.status("a");
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (Some(Phase::Waiting), "PluginMissing")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_no_failure() {
        let harness = Harness::new();
        plugin(&harness, commands());
        harness.add("a", spec(), None);
        harness.api.faults([Fault::Raced]);
        let passed = reconcile(&harness, "a").await.unwrap();
        assert_eq!(passed.outcome, ReconcileOutcome::Waiting);
        assert!(passed.next.is_some());
        harness.api.faults([Fault::Code(500)]);
        assert!(matches!(
            reconcile(&harness, "a").await,
            Err(JobReconcileError::Write(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_lost_when_its_pod_is_gone_and_not_when_the_store_is_behind() {
        let harness = Harness::new();
        harness.add("a", spec(), Some(claimed(CLAIM)));
        harness
            .jobs
            .stores
            .pods
            .apply_event(&Event::Apply(pod("pod-uid", "Running")));
        reconcile(&harness, "a").await.unwrap();
        assert!(harness.api.log().is_empty(), "it is there");
        harness
            .jobs
            .stores
            .pods
            .apply_event(&Event::Delete(pod("pod-uid", "Running")));
        harness
            .api
            .put(POD, json!({"metadata": {"uid": "pod-uid"}}));
        reconcile(&harness, "a").await.unwrap();
        assert_eq!(harness.status("a").phase, Some(Phase::Claimed));
        // Another of the same name is not the holder.
        harness
            .api
            .put(POD, json!({"metadata": {"uid": "another"}}));
        reconcile(&harness, "a").await.unwrap();
        let status = harness.status("a");
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (Some(Phase::Failed), "PluginLost")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_lost_when_its_pod_has_ended() {
        let harness = Harness::new();
        harness.add("a", spec(), Some(claimed(CLAIM)));
        harness
            .jobs
            .stores
            .pods
            .apply_event(&Event::Apply(pod("pod-uid", "Failed")));
        reconcile(&harness, "a").await.unwrap();
        assert_eq!(harness.status("a").reason, "PluginLost");
    }

    #[tokio::test(start_paused = true)]
    async fn pcp_38_a_job_is_deleted_when_its_time_to_live_is_over() {
        let harness = Harness::new();
        let mut status = ready();
        status["phase"] = "Succeeded".into();
        status["completionTime"] = "2026-01-01T00:00:00.000000Z".into();
        let mut forever = spec();
        forever["ttlSecondsAfterFinished"] = json!(31_536_000);
        harness.add("later", forever, Some(status.clone()));
        assert!(reconcile(&harness, "later").await.unwrap().next.is_some());
        harness.add("kept", spec(), Some(status.clone()));
        assert!(reconcile(&harness, "kept").await.unwrap().next.is_none());
        let mut short = spec();
        short["ttlSecondsAfterFinished"] = json!(5);
        harness.add("a", short, Some(status));
        reconcile(&harness, "a").await.unwrap();
        assert_eq!(harness.api.get(&job_path("a")), None);
        assert_eq!(harness.api.log(), ["DELETE jobs/a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_job_ends_and_its_holder_is_informed() {
        let harness = Harness::new();
        let mut object =
            serde_json::to_value(harness.add("a", spec(), Some(claimed(CLAIM)))).unwrap();
        object["metadata"]["annotations"] = json!({"patchbay.dev/cancel": "me"});
        let job: Job = serde_json::from_value(harness.api.put(&job_path("a"), object)).unwrap();
        harness.jobs.stores.jobs.record_write(&job);
        harness
            .jobs
            .stores
            .pods
            .apply_event(&Event::Apply(pod("pod-uid", "Running")));
        let (stream, mut heard) = tokio::sync::mpsc::channel(4);
        let _visit = harness.sessions.enter("pod-uid", stream);
        reconcile(&harness, "a").await.unwrap();
        assert_eq!(harness.status("a").reason, "Cancelled");
        let told = heard.try_recv().unwrap().message.unwrap();
        use patchbay_protocol::session::from_operator::Message;
        assert!(
            matches!(told, Message::Cancel(cancel) if cancel.claim.as_ref().unwrap().claim_id == CLAIM)
        );
    }
}
