//! Sessions with pods, and what their ledgers say about claims.

use super::Desk;
use super::entry::{State, Task};
use super::words::{ClaimName, LedgerEntry, Lost, PodName, Todo};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Promises about claims that are not seen yet, per session, at most.
const MAX_PROMISES: usize = 4096;

/// One open session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) pod: String,
    pub(super) pod_uid: Arc<str>,
    pub(super) lane: u32,
    pub(super) epoch: Box<str>,
    /// Its asks by claim id.
    pub(super) asks: HashMap<Arc<str>, u64>,
    /// Claims that its sidecar is known to know.
    pub(super) known: HashSet<Box<str>>,
    /// Claims that it gave back and that no view has shown yet.
    given_back: HashSet<Box<str>>,
}

impl Desk {
    /// A session is open. Every claim of its pod is matched with the ledger.
    pub(super) fn attached(
        &mut self,
        session: u64,
        pod: PodName,
        epoch: String,
        ledger: Vec<LedgerEntry>,
        todo: &mut Vec<Todo>,
    ) {
        let lane = self.lane(&pod.plugin);
        let pod_uid: Arc<str> = pod.uid.into();
        if let Some(before) = self.pods.get(&pod_uid).copied() {
            self.detached(before);
        }
        self.pods.insert(pod_uid.clone(), session);
        self.sessions.insert(
            session,
            Session {
                pod: pod.pod,
                pod_uid: pod_uid.clone(),
                lane,
                epoch: epoch.into(),
                asks: HashMap::new(),
                known: ledger
                    .into_iter()
                    .map(|entry| entry.claim.claim_id.into())
                    .collect(),
                given_back: HashSet::new(),
            },
        );
        let held: Vec<u32> = self
            .holders
            .get(&pod_uid)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in held {
            if let State::Held(holding) = &mut self.jobs.entries[id].state
                && matches!(holding.task, Task::Doubted | Task::Losing)
            {
                // The one who was asked is gone; what could not be written then is judged anew.
                holding.task = Task::Nothing;
            }
            self.check_holder(id, todo);
        }
    }

    /// A session is over: its asks are.
    pub(super) fn detached(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let asks: Vec<u64> = session.asks.values().copied().collect();
        for ask in asks {
            self.end_ask(ask);
        }
        if let Some(session) = self.sessions.remove(&id)
            && self.pods.get(&session.pod_uid) == Some(&id)
        {
            self.pods.remove(&session.pod_uid);
        }
    }

    /// Matches one held Job with the session of its holder. A claim that the session has not named
    /// is doubted and no more: the greeting can be older than the claim, when the sidecar has gone
    /// over to another leader since. Only an answer that is newer than the claim decides.
    pub(super) fn check_holder(&mut self, id: u32, todo: &mut Vec<Todo>) {
        let State::Held(holding) = &mut self.jobs.entries[id].state else {
            return;
        };
        let Some(number) = self.pods.get(&holding.pod_uid).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if holding.task != Task::Nothing || session.known.contains(&holding.claim_id) {
            return;
        }
        if session.given_back.remove(&holding.claim_id) {
            return self.give_back(number, id, todo);
        }
        holding.task = Task::Doubted;
        let claim_id = holding.claim_id.as_ref().to_owned();
        let claim = ClaimName {
            claim_id,
            job: self.job_name(id),
        };
        match todo.last_mut() {
            Some(Todo::Doubt { session, claims }) if *session == number => claims.push(claim),
            _ => todo.push(Todo::Doubt {
                session: number,
                claims: vec![claim],
            }),
        }
    }

    fn lose(&mut self, id: u32, why: Lost, todo: &mut Vec<Todo>) {
        let job = self.job_name(id);
        if let State::Held(holding) = &mut self.jobs.entries[id].state {
            holding.task = Task::Losing;
            todo.push(Todo::Lose {
                job,
                claim_id: holding.claim_id.as_ref().to_owned(),
                why,
            });
        }
    }

    /// The Job that this claim of this session's pod holds.
    fn held_by(&self, session: u64, claim: &ClaimName) -> Option<u32> {
        let id = self.find(&claim.job)?;
        let pod_uid = &self.sessions.get(&session)?.pod_uid;
        match &self.jobs.entries[id].state {
            State::Held(holding)
                if *holding.claim_id == *claim.claim_id && holding.pod_uid == *pod_uid =>
            {
                Some(id)
            }
            _ => None,
        }
    }

    /// A sidecar gives a claim back.
    pub(super) fn released(&mut self, session: u64, claim: &ClaimName, todo: &mut Vec<Todo>) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.known.remove(claim.claim_id.as_str());
        }
        if let Some(id) = self.held_by(session, claim) {
            return self.give_back(session, id, todo);
        }
        // The view lags behind: it is remembered for the one that will show the claim.
        if let Some(known) = self.sessions.get_mut(&session)
            && known.given_back.len() < MAX_PROMISES
        {
            known.given_back.insert(claim.claim_id.as_str().into());
        }
    }

    /// The sidecar of this session will never hand the job over. That another sidecar did, of the
    /// same pod with another ledger, it cannot know.
    fn give_back(&mut self, session: u64, id: u32, todo: &mut Vec<Todo>) {
        let State::Held(holding) = &self.jobs.entries[id].state else {
            return;
        };
        let same = self
            .sessions
            .get(&session)
            .is_some_and(|session| session.epoch == holding.epoch);
        match (holding.task, same, holding.running) {
            (Task::Releasing | Task::Losing, _, _) => {}
            (_, false, _) => self.lose(id, Lost::VolumeLost, todo),
            (_, true, true) => self.lose(id, Lost::Forgotten, todo),
            (_, true, false) => self.release(id, todo),
        }
    }

    /// A sidecar says whether it knows a claim.
    pub(super) fn ledger_answer(
        &mut self,
        session: u64,
        claim: &ClaimName,
        known: bool,
        todo: &mut Vec<Todo>,
    ) {
        if !known {
            return self.released(session, claim, todo);
        }
        let Some(id) = self.held_by(session, claim) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.known.insert(claim.claim_id.as_str().into());
        }
        if let State::Held(holding) = &mut self.jobs.entries[id].state
            && holding.task == Task::Doubted
        {
            holding.task = Task::Nothing;
        }
    }
}
