//! Sending a job to the sidecar that asked for it, and taking doubts to the one that has it. The
//! claim is written by then.

use super::claim::is_claimed_with;
use super::dispatch_task::DispatchTask;
use crate::key::JobKey;
use jiff::Timestamp;
use patchbay_api::Job;
use patchbay_protocol::session as wire;
use patchbay_reconcile::job::dispatch::ClaimRef;
use patchbay_reconcile::job::times;
use wire::from_operator::Message;

/// Claims that one Doubt names.
const MAX_QUERIED: usize = 256;

impl DispatchTask {
    pub(super) fn grant(
        &mut self,
        session: u64,
        claim: ClaimRef,
        remaining_ms: u64,
        waited_ms: u64,
        attempt: i32,
    ) {
        let claim_id = claim.claim_id.clone();
        let chosen = self.chosen.remove(&claim_id);
        let key = JobKey::new(&*claim.job.namespace, &*claim.job.name);
        let job = self.jobs.stores.jobs.get(&key).filter(|job| {
            job.metadata.uid.as_deref() == Some(&*claim.job.uid)
                && is_claimed_with(job, &claim.claim_id)
        });
        let now = self.jobs.wall.now();
        let message = match job.and_then(|job| granted(&job, now)) {
            Some(grant) => Message::Grant(wire::Grant {
                claim: Some(wire::ClaimName {
                    claim_id: claim.claim_id,
                    job_uid: claim.job.uid,
                }),
                remaining_ms,
                waited_ms,
                attempt: u32::try_from(attempt).unwrap_or(1),
                ..grant
            }),
            // It was deleted a moment ago: there is nothing to hand over.
            None => {
                let claim_id = claim.claim_id;
                let nothing = wire::NoWork { claim_id };
                return self.jobs.sessions.say(session, Message::NoWork(nothing));
            }
        };
        self.jobs.sessions.say(session, message);
        tracing::info!(
            namespace = key.namespace,
            job = key.name,
            claim = claim_id,
            pod = self.pods.get(&session).map(|holder| &*holder.pod),
            "granted a job"
        );
        self.jobs.metrics.grants.inc();
        if let Some(chosen) = chosen {
            let seconds = chosen.elapsed().as_secs_f64();
            self.jobs.metrics.dispatch.observe(seconds);
        }
    }

    pub(super) fn query_claims(&self, session: u64, claims: &[ClaimRef]) {
        for claims in claims.chunks(MAX_QUERIED) {
            let claims = claims.iter().map(queried_claim).collect();
            let query_claims = wire::ClaimQuery { claims };
            self.jobs
                .sessions
                .say(session, Message::ClaimQuery(query_claims));
        }
    }
}

/// What of a grant comes from the Job; nothing when its spec cannot be written.
fn granted(job: &Job, now: Timestamp) -> Option<wire::Grant> {
    let closed = times::deadline(job).map(|deadline| deadline.duration_since(now));
    // One that is over already has 1 ms: 0 would mean no deadline.
    let active_deadline_ms = closed.map_or(0, |closed| {
        u64::try_from(closed.as_millis()).unwrap_or(0).max(1)
    });
    Some(wire::Grant {
        job: job.metadata.name.clone()?,
        spec_json: serde_json::to_vec(&job.spec).ok()?,
        active_deadline_ms,
        output_max_bytes: u64::try_from(job.spec.output_policy.max_bytes).unwrap_or(0),
        start_time: format!("{:.6}", times::start(job)),
        ..wire::Grant::default()
    })
}

fn queried_claim(claim: &ClaimRef) -> wire::LedgerEntry {
    wire::LedgerEntry {
        claim: Some(wire::ClaimName {
            claim_id: claim.claim_id.clone(),
            job_uid: claim.job.uid.clone(),
        }),
        job: claim.job.name.clone(),
        delivered: false,
    }
}
