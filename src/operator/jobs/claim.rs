//! Claims, and their return: one replace of the status each, and never a guess about its outcome.

use super::JobContext;
use super::status_writer::{AGAIN, FORBIDDEN, IN_ORDER, WriteError};
use crate::key::JobKey;
use jiff::Timestamp;
use kube::ResourceExt;
use patchbay_api::{Job, JobStatus, Reason};
use patchbay_reconcile::job::dispatch::{JobRef, WriteOutcome};
use patchbay_reconcile::job::transition::{self, Choice, NotNow};

impl JobContext {
    /// Claims a Job at the version that the choice was made on.
    pub async fn claim(&self, name: &JobRef, version: &str, choice: &Choice) -> WriteOutcome {
        let claim = |job: &Job, now| transition::claim(job, choice, now);
        let ours = |job: &Job| is_claimed_with(job, &choice.claim_id);
        let outcome = self.once(name, version, claim, ours).await;
        match &outcome {
            WriteOutcome::Applied(_) => {
                tracing::info!(
                    namespace = name.namespace,
                    job = name.name,
                    claim = choice.claim_id,
                    pod = choice.pod,
                    "claimed a job"
                );
                self.metrics.claims.inc()
            }
            WriteOutcome::Conflict(_) => self.metrics.conflicts.inc(),
            WriteOutcome::Refused(_) => 0,
        };
        outcome
    }

    /// Makes a claimed Job Ready again.
    pub async fn release(&self, name: &JobRef, version: &str, claim_id: &str) -> WriteOutcome {
        let Ok(_place) = self.concurrency.status_writes.acquire().await else {
            return WriteOutcome::Conflict(None);
        };
        let release = |job: &Job, now| transition::release(job, claim_id, now);
        let ours = |job: &Job| !is_claimed_with(job, claim_id);
        let outcome = self.once(name, version, release, ours).await;
        if matches!(outcome, WriteOutcome::Applied(_)) {
            tracing::info!(
                namespace = name.namespace,
                job = name.name,
                claim = claim_id,
                "returned a claim that was not delivered"
            );
            self.metrics.releases.inc();
        }
        outcome
    }

    /// One change of exactly one version. `done` tells from a Job whether the change is in it.
    async fn once(
        &self,
        name: &JobRef,
        version: &str,
        change: impl Fn(&Job, Timestamp) -> Result<JobStatus, NotNow>,
        done: impl Fn(&Job) -> bool,
    ) -> WriteOutcome {
        let key = JobKey::new(&*name.namespace, &*name.name);
        let (mut failures, mut forbidden) = (0, 0);
        loop {
            let Some(job) = self.stores.jobs.get(&key) else {
                return WriteOutcome::Conflict(None);
            };
            if !is(&job, name, version) {
                return verdict(job, name, &done);
            }
            let now = self.wall.now();
            if self.clock.check(now).is_err() {
                // The dispatch task is about to end the term.
                return WriteOutcome::Conflict(Some(Box::new(job)));
            }
            let status = match change(&job, now) {
                Ok(status) => status,
                Err(why) => {
                    tracing::debug!(job = %key, %why, "a claim is not written");
                    return WriteOutcome::Conflict(Some(Box::new(job)));
                }
            };
            match self.replace(&job, &status).await {
                Ok(written) => {
                    self.keep(written.clone());
                    return WriteOutcome::Applied(Box::new(written));
                }
                Err(WriteError::Gone) => return WriteOutcome::Conflict(None),
                // Still the same choice: a request that got another one meanwhile would be before it.
                Err(WriteError::Forbidden(_)) if forbidden < FORBIDDEN => {
                    forbidden += 1;
                    AGAIN.pause(forbidden).await;
                    continue;
                }
                Err(WriteError::Refused(why) | WriteError::Forbidden(why)) => {
                    return WriteOutcome::Refused(why);
                }
                // Somebody's write came before; after an answer that was lost it may be ours.
                Err(WriteError::Conflict) => {}
                Err(WriteError::Unknown(error)) => {
                    failures += 1;
                    self.metrics.unknown.inc();
                    tracing::info!(
                        namespace = key.namespace,
                        job = key.name,
                        error,
                        "claim outcome unknown, reading the Job back"
                    );
                    IN_ORDER.pause(failures).await;
                }
            }
            let Some(job) = self.read_back_by(IN_ORDER, &key).await else {
                return WriteOutcome::Conflict(None);
            };
            self.keep(job.clone());
            if !is(&job, name, version) {
                return verdict(job, name, &done);
            }
            // Unchanged: the lost write may still arrive. The same write again is decided by the
            // version, so that one of the two comes first and the other not at all.
        }
    }
}

impl JobContext {
    /// The API server does not let us claim: somebody has to look at rights, quotas or policies.
    pub(super) fn tell_of_refusal(&self, name: &JobRef, why: &str) {
        let key = JobKey::new(&*name.namespace, &*name.name);
        tracing::error!(job = %key, why, "a claim is refused");
        if let Some(job) = self.stores.jobs.get(&key) {
            let note = format!("it cannot be handed out: {why}");
            self.tell(&job, true, "HandOut", Reason::ReconcileFailed, note);
        }
    }
}

/// What a Job that has another version than the write's says about its outcome.
fn verdict(job: Job, name: &JobRef, done: impl Fn(&Job) -> bool) -> WriteOutcome {
    if job.uid().as_deref() != Some(&*name.uid) {
        WriteOutcome::Conflict(None)
    } else if done(&job) {
        WriteOutcome::Applied(Box::new(job))
    } else {
        WriteOutcome::Conflict(Some(Box::new(job)))
    }
}

fn is(job: &Job, name: &JobRef, version: &str) -> bool {
    job.metadata.uid.as_deref() == Some(&*name.uid)
        && job.metadata.resource_version.as_deref() == Some(version)
}

/// Whether some pod has the Job by this claim.
pub(super) fn is_claimed_with(job: &Job, claim_id: &str) -> bool {
    let Some(status) = &job.status else {
        return false;
    };
    status.phase.is_some_and(|phase| phase.is_held())
        && status
            .claim
            .as_ref()
            .is_some_and(|c| c.claim_id == claim_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::harness::{Harness, claimed, job_path, ready, spec};
    use patchbay_api::job_status::Phase;
    use patchbay_fake_api::Fault;

    const CLAIM: &str = "0123456789abcdef0123456789abcdef";

    fn choice() -> Choice {
        Choice {
            sequence: 1,
            observed_resource_version: "1".into(),
            claim_id: CLAIM.into(),
            pod: "kv-0-1".into(),
            pod_uid: "pod-uid".into(),
            ledger_epoch: "e".into(),
            client_location: None,
        }
    }

    fn name(job: &Job) -> JobRef {
        JobRef {
            namespace: "ns".into(),
            name: job.name_any(),
            uid: job.uid().unwrap(),
        }
    }

    async fn claim(harness: &Harness, job: &Job) -> WriteOutcome {
        let version = job.resource_version().unwrap();
        harness.jobs.claim(&name(job), &version, &choice()).await
    }

    fn result(outcome: &WriteOutcome) -> &'static str {
        match outcome {
            WriteOutcome::Applied(job) => {
                assert!(is_claimed_with(job, CLAIM));
                "won"
            }
            WriteOutcome::Conflict(Some(_)) => "lost",
            WriteOutcome::Conflict(None) => "gone",
            WriteOutcome::Refused(_) => "refused",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pcp_18_a_claim_is_one_write() {
        let harness = Harness::new();
        let job = harness.add("a", spec(), Some(ready()));
        assert_eq!(result(&claim(&harness, &job).await), "won");
        assert_eq!(harness.api.log(), ["PUT jobs/a/status"]);
        assert_eq!(harness.status("a").phase, Some(Phase::Claimed));
        let stored = harness.stored("a").unwrap();
        assert!(is_claimed_with(&stored, CLAIM), "the store knows at once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_is_read_back_before_it_is_believed() {
        use Fault::{Code, Deleted, Later, Lost, Never, Raced};
        for (faults, outcome, writes) in [
            (vec![Lost], "won", 1),
            (vec![Never], "won", 2),
            (vec![Never, Never, Lost], "won", 3),
            // The lost write arrives after the answer, before the read.
            (vec![Later], "won", 1),
            (vec![Raced], "lost", 1),
            (vec![Never, Raced], "lost", 2),
            (vec![Deleted], "gone", 1),
            (vec![Never, Deleted], "gone", 2),
            (vec![Code(422)], "refused", 1),
            (vec![Code(403)], "won", 2),
            (vec![Code(403), Raced], "lost", 2),
            (vec![Code(403); 6], "won", 7),
            (vec![Code(403); 7], "refused", 7),
            (
                vec![Code(500); 7].into_iter().chain([Code(403)]).collect(),
                "won",
                9,
            ),
            (vec![Code(429)], "won", 2),
            (vec![Code(500), Code(422)], "refused", 2),
        ] {
            let harness = Harness::new();
            let job = harness.add("a", spec(), Some(ready()));
            harness.api.faults(faults.clone());
            assert_eq!(result(&claim(&harness, &job).await), outcome, "{faults:?}");
            let puts = harness
                .api
                .log()
                .iter()
                .filter(|l| l.starts_with("PUT"))
                .count();
            assert_eq!(puts, writes, "{faults:?}");
            let held = harness.api.get(&job_path("a")).is_some()
                && is_claimed_with(&harness.job("a"), CLAIM);
            assert_eq!(held, outcome == "won", "{faults:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_for_a_version_that_is_not_the_newest() {
        let harness = Harness::new();
        let old = harness.add("a", spec(), Some(ready()));
        let newer = harness
            .api
            .put(&job_path("a"), harness.api.get(&job_path("a")).unwrap());
        harness
            .jobs
            .stores
            .jobs
            .record_write(&serde_json::from_value(newer).unwrap());
        assert_eq!(result(&claim(&harness, &old).await), "lost");
        assert!(harness.api.log().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_expired_since_the_choice_is_not_claimed() {
        let harness = Harness::new();
        let mut spec = spec();
        spec["expireTime"] = "2026-01-01T00:00:00.000000Z".into();
        let job = harness.add("a", spec, Some(ready()));
        assert_eq!(result(&claim(&harness, &job).await), "lost");
        assert!(harness.api.log().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_given_back_once() {
        let harness = Harness::new();
        let job = harness.add("a", spec(), Some(claimed(CLAIM)));
        harness.api.faults([Fault::Lost]);
        let version = job.resource_version().unwrap();
        let outcome = harness.jobs.release(&name(&job), &version, CLAIM).await;
        assert!(
            matches!(outcome, WriteOutcome::Applied(job) if job.status.as_ref().unwrap().claim.is_none())
        );
        assert_eq!(harness.status("a").phase, Some(Phase::Ready));
        let other = harness.jobs.release(&name(&job), &version, CLAIM).await;
        assert!(
            matches!(other, WriteOutcome::Applied(_)),
            "it is not held by it"
        );
    }
}
