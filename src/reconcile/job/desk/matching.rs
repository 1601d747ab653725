//! Brings asks and jobs together.
//!
//! What has come to a spot is compared with the other side once; what fitted nothing then fits
//! nothing until something else comes. So a lane that is full, or a desk with enough claims under
//! way, costs nothing, and when there is room again the work goes on where it stopped.

use super::super::transition::Choice;
use super::Desk;
use super::entry::{Flight, NEVER, Standing, State};
use super::words::Todo;

impl Desk {
    /// Begins claims until nothing fits or there is no room for more. Lanes take turns.
    pub(super) fn compare(&mut self, todo: &mut Vec<Todo>) {
        if self.paused {
            return;
        }
        while self.flying < self.limits.claims_in_flight
            && let Some(id) = self.listed.pop_front()
        {
            self.lanes[id].listed = false;
            if self.one_claim(id, todo) {
                self.list(id);
            }
        }
    }

    /// Begins one claim in a lane; `false` when nothing fits there, or it has no room.
    fn one_claim(&mut self, id: u32, todo: &mut Vec<Todo>) -> bool {
        while let Some(spot) = self.lanes[id].next_dirty() {
            self.jobs.look();
            let lane = &self.lanes[id];
            if lane.is_full(self.limits.claims_in_flight_per_plugin) {
                return false;
            }
            let mut held_up = Vec::new();
            let ask = lane.longest_waiting(&self.jobs, spot, &mut held_up);
            let moved = self.hold_up(id, &held_up);
            match ask {
                Some(ask) if self.claim_for(ask, todo) => return true,
                None if !moved => self.lanes[id].settled(),
                // What came first has made way: there is another first.
                _ => {}
            }
        }
        false
    }

    /// Chooses for one ask: the first job that it can have.
    fn claim_for(&mut self, ask_id: u64, todo: &mut Vec<Todo>) -> bool {
        loop {
            let Some(ask) = self.asks.get(&ask_id) else {
                return false;
            };
            let Some(spot) = ask.spot else {
                return false;
            };
            let lane = &self.lanes[ask.lane];
            let Some(job) = lane.job_for(&self.jobs, spot, ask.port) else {
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
            if !entry.judged {
                return false;
            }
            self.fly(ask_id, job, todo);
            return true;
        }
    }

    fn fly(&mut self, ask_id: u64, job: u32, todo: &mut Vec<Todo>) {
        self.unplace(job);
        self.pick(ask_id);
        // An ask ends with its session.
        let ask = &self.asks[&ask_id];
        let session = &self.sessions[&ask.session];
        self.sequence += 1;
        let choice = Choice {
            sequence: self.sequence,
            observed_resource_version: self.observed.to_string(),
            claim_id: ask.claim_id.as_ref().to_owned(),
            pod: session.pod.clone(),
            pod_uid: session.pod_uid.as_ref().to_owned(),
            ledger_epoch: session.epoch.as_ref().to_owned(),
            client_location: ask.location.as_deref().map(str::to_owned),
        };
        let claim_id = ask.claim_id.clone();
        let entry = &self.jobs.entries[job];
        let (lane, version) = (entry.lane, entry.version);
        let client = entry.location.clone().or_else(|| ask.location.clone());
        let client = self.begin_run(lane, client.as_ref());
        self.lanes[lane].flying += 1;
        self.flying += 1;
        self.jobs.entries[job].state = State::Flying(Box::new(Flight {
            claim_id,
            ask: Some(ask_id),
            client,
            version,
            standing: Standing::Open,
        }));
        todo.push(Todo::Claim {
            job: self.job_name(job),
            resource_version: version.to_string(),
            choice,
        });
    }
}
