//! Telling a sidecar that a job of its pod is over for a reason of its own.

use super::JobContext;
use super::messages::{ClaimOf, Holder};
use crate::key::JobKey;
use patchbay_api::Reason;
use patchbay_protocol::session as wire;
use wire::from_operator::Message;

/// Ends that the holder does not know of.
pub(crate) const SENT_TO_HOLDER: [Reason; 2] = [Reason::Cancelled, Reason::DeadlineExceeded];

impl JobContext {
    /// A job that came to its end while no session was open, and was not answered by this pod.
    pub(super) fn cancel_if_over(&self, session: u64, holder: &Holder, claim: &ClaimOf) {
        let key = JobKey::new(&*holder.plugin.namespace, &*claim.job);
        let Some(status) = self.stores.jobs.get(&key).and_then(|job| job.status) else {
            return;
        };
        let over = SENT_TO_HOLDER
            .into_iter()
            .find(|reason| status.reason == reason.as_str());
        let its = status
            .claim
            .is_some_and(|its| its.claim_id == claim.claim_id);
        if let Some(reason) = over.filter(|_| its) {
            self.sessions.say(session, cancel(claim.clone(), reason));
        }
    }

    /// Tells the sidecar of a pod, if a session is open.
    pub fn cancel(&self, pod_uid: &str, claim: ClaimOf, reason: Reason) {
        self.sessions.say_to_pod(pod_uid, cancel(claim, reason));
    }
}

fn cancel(claim: ClaimOf, reason: Reason) -> Message {
    Message::Cancel(wire::Cancel {
        claim: Some(wire::ClaimName {
            claim_id: claim.claim_id,
            job_uid: claim.uid,
        }),
        reason: reason.as_str().to_owned(),
    })
}
