//! Brings requests and jobs together.
//!
//! What has come to a bucket is compared with the other side once; what fitted nothing then fits
//! nothing until something else comes. So a queue that is full, or a dispatcher with enough claims under
//! way, costs nothing, and when there is room again the work goes on where it stopped.

use super::super::transition::Choice;
use super::Dispatcher;
use super::entry::{JobState, NEVER, Observation, PendingClaim};
use super::event::Effect;

impl Dispatcher {
    /// Begins claims until nothing fits or there is no room for more. Queues take turns.
    pub(super) fn match_queues(&mut self, effects: &mut Vec<Effect>) {
        if self.paused {
            return;
        }
        while self.claiming < self.limits.claims_in_flight
            && let Some(id) = self.listed.pop_front()
        {
            self.queues[id].listed = false;
            if self.claim_one(id, effects) {
                self.schedule_matching(id);
            }
        }
    }

    /// Begins one claim in a queue; `false` when nothing fits there, or it has no room.
    fn claim_one(&mut self, id: u32, effects: &mut Vec<Effect>) -> bool {
        while let Some(bucket) = self.queues[id].next_dirty() {
            self.jobs.look();
            let queue = &self.queues[id];
            if queue.is_full(self.limits.claims_in_flight_per_plugin) {
                return false;
            }
            let mut blocked = Vec::new();
            let request = queue.longest_waiting(&self.jobs, bucket, &mut blocked);
            let moved = self.block(id, &blocked);
            match request {
                Some(request) if self.claim_for(request, effects) => return true,
                None if !moved => self.queues[id].clear_dirty(),
                // What came first has made way: there is another first.
                _ => {}
            }
        }
        false
    }

    /// Chooses for one request: the first job that it can have.
    fn claim_for(&mut self, ask_id: u64, effects: &mut Vec<Effect>) -> bool {
        loop {
            let Some(request) = self.requests.get(&ask_id) else {
                return false;
            };
            let Some(bucket) = request.bucket else {
                return false;
            };
            let queue = &self.queues[request.queue];
            let Some(job) = queue.job_for(&self.jobs, bucket, request.port) else {
                return false;
            };
            let entry = &self.jobs.entries[job];
            let expired = entry.expire != NEVER && self.now >= entry.expire;
            if expired || self.now < entry.eligible {
                // Its time went by while it stood here, or the clock was set back.
                self.unplace(job);
                self.place(job);
                continue;
            }
            if !entry.accepted {
                return false;
            }
            self.start_claim(ask_id, job, effects);
            return true;
        }
    }

    fn start_claim(&mut self, ask_id: u64, job: u32, effects: &mut Vec<Effect>) {
        self.unplace(job);
        self.dequeue_request(ask_id);
        // A request ends with its session.
        let request = &self.requests[&ask_id];
        let session = &self.sessions[&request.session];
        self.sequence += 1;
        let choice = Choice {
            sequence: self.sequence,
            observed_resource_version: self.observed.to_string(),
            claim_id: request.claim_id.as_ref().to_owned(),
            pod: session.pod.clone(),
            pod_uid: session.pod_uid.as_ref().to_owned(),
            ledger_epoch: session.epoch.as_ref().to_owned(),
            client_location: request.client.as_deref().map(str::to_owned),
        };
        let claim_id = request.claim_id.clone();
        let entry = &self.jobs.entries[job];
        let (queue, version) = (entry.queue, entry.version);
        let client = entry.client.clone().or_else(|| request.client.clone());
        let client = self.start_run(queue, client.as_ref());
        self.queues[queue].claiming += 1;
        self.claiming += 1;
        self.jobs.entries[job].state = JobState::Claiming(Box::new(PendingClaim {
            claim_id,
            request: Some(ask_id),
            client,
            version,
            observation: Observation::Eligible,
        }));
        effects.push(Effect::Claim {
            job: self.job_name(job),
            resource_version: version.to_string(),
            choice,
        });
    }
}
