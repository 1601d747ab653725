//! Sessions with pods, and what their ledgers say about claims.

use super::Dispatcher;
use super::entry::{JobState, Recovery};
use super::event::{ClaimRef, DialedPod, Effect, LossCause};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Promises about claims that are not seen yet, per session, at most.
const MAX_PROMISES: usize = 4096;

/// One open session.
#[derive(Debug)]
pub(super) struct PodSession {
    pub(super) pod: String,
    pub(super) pod_uid: Arc<str>,
    pub(super) queue: u32,
    pub(super) epoch: Box<str>,
    /// Its requests by claim id.
    pub(super) requests: HashMap<Arc<str>, u64>,
    /// Claims that its sidecar is known to know.
    pub(super) known_claims: HashSet<Box<str>>,
    /// Claims that it gave back and that no view has shown yet.
    returned: HashSet<Box<str>>,
}

impl Dispatcher {
    /// A session is open. Every claim of its pod is matched with the ledger.
    pub(super) fn attached(
        &mut self,
        session: u64,
        pod: DialedPod,
        epoch: String,
        ledger: Vec<String>,
        effects: &mut Vec<Effect>,
    ) {
        let queue = self.queue(&pod.plugin);
        let pod_uid: Arc<str> = pod.uid.into();
        if let Some(before) = self.pods.get(&pod_uid).copied() {
            self.detached(before);
        }
        self.pods.insert(pod_uid.clone(), session);
        self.sessions.insert(
            session,
            PodSession {
                pod: pod.pod,
                pod_uid: pod_uid.clone(),
                queue,
                epoch: epoch.into(),
                requests: HashMap::new(),
                known_claims: ledger.into_iter().map(Into::into).collect(),
                returned: HashSet::new(),
            },
        );
        let claimed: Vec<u32> = self
            .holders
            .get(&pod_uid)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in claimed {
            if let JobState::Claimed(active) = &mut self.jobs.entries[id].state
                && matches!(active.task, Recovery::Queried | Recovery::Losing)
            {
                // The session that was queried is gone; what could not be written then is decided again.
                active.task = Recovery::None;
            }
            self.check_holder(id, effects);
        }
    }

    /// A session is over: its requests are.
    pub(super) fn detached(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let requests: Vec<u64> = session.requests.values().copied().collect();
        for request in requests {
            self.end_request(request);
        }
        if let Some(session) = self.sessions.remove(&id)
            && self.pods.get(&session.pod_uid) == Some(&id)
        {
            self.pods.remove(&session.pod_uid);
        }
    }

    /// Matches one held Job with the session of its holder. A claim that the session has not named
    /// is queried and no more: the greeting can be older than the claim, when the sidecar has gone
    /// over to another leader since. Only an answer that is newer than the claim decides.
    pub(super) fn check_holder(&mut self, id: u32, effects: &mut Vec<Effect>) {
        let JobState::Claimed(active) = &mut self.jobs.entries[id].state else {
            return;
        };
        let Some(number) = self.pods.get(&active.pod_uid).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if active.task != Recovery::None || session.known_claims.contains(&active.claim_id) {
            return;
        }
        if session.returned.remove(&active.claim_id) {
            return self.not_delivered(number, id, effects);
        }
        active.task = Recovery::Queried;
        let claim_id = active.claim_id.as_ref().to_owned();
        let claim = ClaimRef {
            claim_id,
            job: self.job_name(id),
        };
        match effects.last_mut() {
            Some(Effect::ClaimQuery { session, claims }) if *session == number => {
                claims.push(claim)
            }
            _ => effects.push(Effect::ClaimQuery {
                session: number,
                claims: vec![claim],
            }),
        }
    }

    fn lose(&mut self, id: u32, why: LossCause, effects: &mut Vec<Effect>) {
        let job = self.job_name(id);
        if let JobState::Claimed(active) = &mut self.jobs.entries[id].state {
            active.task = Recovery::Losing;
            effects.push(Effect::Lose {
                job,
                claim_id: active.claim_id.as_ref().to_owned(),
                why,
            });
        }
    }

    /// The Job that this claim of this session's pod holds.
    fn claimed_by(&self, session: u64, claim: &ClaimRef) -> Option<u32> {
        let id = self.find(&claim.job)?;
        let pod_uid = &self.sessions.get(&session)?.pod_uid;
        match &self.jobs.entries[id].state {
            JobState::Claimed(active)
                if *active.claim_id == *claim.claim_id && active.pod_uid == *pod_uid =>
            {
                Some(id)
            }
            _ => None,
        }
    }

    /// A sidecar gives a claim back.
    pub(super) fn claim_returned(
        &mut self,
        session: u64,
        claim: &ClaimRef,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.known_claims.remove(claim.claim_id.as_str());
        }
        if let Some(id) = self.claimed_by(session, claim) {
            return self.not_delivered(session, id, effects);
        }
        // The view lags behind: it is remembered for the one that will show the claim.
        if let Some(known) = self.sessions.get_mut(&session)
            && known.returned.len() < MAX_PROMISES
        {
            known.returned.insert(claim.claim_id.as_str().into());
        }
    }

    /// The sidecar of this session will never hand the job over. That another sidecar did, of the
    /// same pod with another ledger, it cannot know.
    fn not_delivered(&mut self, session: u64, id: u32, effects: &mut Vec<Effect>) {
        let JobState::Claimed(active) = &self.jobs.entries[id].state else {
            return;
        };
        let same = self
            .sessions
            .get(&session)
            .is_some_and(|session| session.epoch == active.epoch);
        match (active.task, same, active.running) {
            (Recovery::Releasing | Recovery::Losing, _, _) => {}
            (_, false, _) => self.lose(id, LossCause::VolumeLost, effects),
            (_, true, true) => self.lose(id, LossCause::Forgotten, effects),
            (_, true, false) => self.release(id, effects),
        }
    }

    /// A sidecar says whether it knows a claim.
    pub(super) fn claim_query_reply(
        &mut self,
        session: u64,
        claim: &ClaimRef,
        known: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !known {
            return self.claim_returned(session, claim, effects);
        }
        let Some(id) = self.claimed_by(session, claim) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.known_claims.insert(claim.claim_id.as_str().into());
        }
        if let JobState::Claimed(active) = &mut self.jobs.entries[id].state
            && active.task == Recovery::Queried
        {
            active.task = Recovery::None;
        }
    }
}
