//! What the desk makes of a view of a Job.

use super::entry::{Flight, Holding, NEVER, NOT_YET, NOWHERE, Standing, State, Task};
use super::words::{PluginRefKey, Todo};
use super::{Desk, lane::EVERYBODY};
use patchbay_api::Job;
use std::sync::Arc;

impl Desk {
    /// A Job as the watch, a write or a read shows it.
    pub(super) fn hear_job(&mut self, job: &Job, watch: bool, todo: &mut Vec<Todo>) {
        let Some(version) = version(job) else {
            return;
        };
        if watch {
            self.observed = self.observed.max(version);
        }
        if let Some((id, standing)) = self.take_in(job, version) {
            self.settle(id, standing, todo);
        }
    }

    /// Takes over a view if it is news, and hands back a Job that is in no index, with what the
    /// view says. A Job whose claim is being written stays with its flight.
    fn take_in(&mut self, job: &Job, version: u64) -> Option<(u32, Standing)> {
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let name = job.metadata.name.as_deref()?;
        let uid = job.metadata.uid.as_deref()?;
        if let Some(id) = self.jobs.find(namespace, name) {
            let entry = &self.jobs.entries[id];
            if version <= entry.version {
                return None;
            }
            if *entry.uid == *uid {
                return self.update(id, job, version);
            }
            // Deleted and made again: the old one has only a claim under way, if anything.
            self.forget(id);
        }
        let key = PluginRefKey {
            namespace: namespace.to_owned(),
            name: job.spec.plugin_ref.name.clone(),
        };
        let lane = self.lane(&key);
        let id = self.jobs.add(namespace, job, lane, version);
        Some((id, Standing::of(job)))
    }

    fn update(&mut self, id: u32, job: &Job, version: u64) -> Option<(u32, Standing)> {
        let standing = Standing::of(job);
        let entry = &mut self.jobs.entries[id];
        if let State::Flying(flight) = &mut entry.state {
            flight.standing = standing;
            entry.read(job, version);
            return None;
        }
        // The usual news of a job that a pod has: the same claim, a row more.
        if let (State::Held(known), Standing::Held(new)) = (&mut entry.state, &standing)
            && known.claim_id == new.claim_id
            && known.pod_uid == new.pod_uid
        {
            known.running = new.running;
            entry.read(job, version);
            return None;
        }
        self.unplace(id);
        self.jobs.entries[id].read(job, version);
        Some((id, standing))
    }

    /// A Job is gone.
    pub(super) fn job_gone(&mut self, namespace: &str, name: &str, uid: &str) {
        if let Some(id) = self.jobs.find(namespace, name)
            && *self.jobs.entries[id].uid == *uid
        {
            self.forget(id);
        }
    }

    /// Forgets a Job. A claim under way stays until its outcome is known.
    pub(super) fn forget(&mut self, id: u32) {
        let entry = &mut self.jobs.entries[id];
        let lane = entry.lane;
        if let State::Flying(_) = entry.state {
            let state = std::mem::replace(&mut entry.state, State::Closed);
            if let State::Flying(flight) = state {
                let key = (entry.uid.clone(), flight.claim_id.clone());
                self.ghosts.insert(key, (lane, *flight));
            }
        } else {
            self.unplace(id);
        }
        let namespace = self.lanes[lane].key.namespace.clone();
        self.jobs.remove(&namespace, id);
    }

    /// Takes a Job out of wherever it stands; afterwards it is closed. Not for one whose claim is
    /// under way.
    pub(super) fn unplace(&mut self, id: u32) {
        let entry = &mut self.jobs.entries[id];
        let (lane, eligible, expire) = (entry.lane, entry.eligible, entry.expire);
        match std::mem::replace(&mut entry.state, State::Closed) {
            State::Closed => {}
            State::Future => {
                self.jobs.timers.remove(&(eligible, id));
            }
            State::Parked => {
                self.jobs.parked.remove(&(expire, id));
            }
            State::Cooling { until } => {
                self.jobs.cooling.remove(&(until, id));
            }
            State::Ready { spot } => self.lanes[lane].take_job(&self.jobs, spot, id),
            State::Unjudged { spot, until, .. } => {
                self.clear_way(id, until);
                self.lanes[lane].take_job(&self.jobs, spot, id);
            }
            State::Held(holding) => self.unhold(id, lane, &holding),
            flying @ State::Flying(_) => self.jobs.entries[id].state = flying,
        }
    }

    fn unhold(&mut self, id: u32, lane: u32, holding: &Holding) {
        if let Some(held) = self.holders.get_mut(&holding.pod_uid) {
            held.remove(&id);
            if held.is_empty() {
                self.holders.remove(&holding.pod_uid);
            }
        }
        if let Some(session) = self.pods.get(&holding.pod_uid)
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.known.remove(&holding.claim_id);
        }
        self.end_run(lane, holding.client);
    }

    /// One job less is in the hands of a Plugin's pods.
    pub(super) fn end_run(&mut self, id: u32, client: u32) {
        let lane = &mut self.lanes[id];
        lane.running = lane.running.saturating_sub(1);
        if client != NOWHERE {
            lane.end(&self.jobs, client);
        }
        self.list(id);
    }

    /// One more is. Answers where it counts for its client.
    pub(super) fn begin_run(&mut self, id: u32, client: Option<&Arc<str>>) -> u32 {
        let lane = &mut self.lanes[id];
        lane.running = lane.running.saturating_add(1);
        let spot = lane.spot(client);
        if spot == EVERYBODY {
            return NOWHERE;
        }
        lane.begin(&self.jobs, spot);
        self.list(id);
        spot
    }

    /// Puts a closed Job where it belongs.
    pub(super) fn settle(&mut self, id: u32, standing: Standing, todo: &mut Vec<Todo>) {
        match standing {
            Standing::Closed => {}
            Standing::Open => self.place(id),
            Standing::Held(holding) => self.hold(id, holding, todo),
        }
    }

    /// Puts an open Job where the clock wants it.
    pub(super) fn place(&mut self, id: u32) {
        let entry = &mut self.jobs.entries[id];
        if entry.expire != NEVER && self.now >= entry.expire {
            entry.state = State::Parked;
            self.jobs.parked.insert((entry.expire, id));
        } else if self.now < entry.eligible {
            entry.state = State::Future;
            self.jobs.timers.insert((entry.eligible, id));
        } else {
            let lane = entry.lane;
            let spot = self.lanes[lane].spot(entry.location.as_ref());
            entry.state = if entry.judged {
                State::Ready { spot }
            } else {
                State::Unjudged {
                    spot,
                    since: self.mono,
                    until: NOT_YET,
                }
            };
            self.lanes[lane].put_job(&self.jobs, spot, id);
            self.list(lane);
        }
    }

    /// Puts a held Job to its holder.
    fn hold(&mut self, id: u32, mut holding: Box<Holding>, todo: &mut Vec<Todo>) {
        let entry = &self.jobs.entries[id];
        let client = entry.location.clone().or_else(|| holding.asked_for.take());
        holding.asked_for = None;
        holding.client = self.begin_run(entry.lane, client.as_ref());
        if let Some((uid, _)) = self.holders.get_key_value(&holding.pod_uid) {
            // One text for all.
            holding.pod_uid = uid.clone();
        }
        self.holders
            .entry(holding.pod_uid.clone())
            .or_default()
            .insert(id);
        self.jobs.entries[id].state = State::Held(holding);
        self.check_holder(id, todo);
    }

    /// Writes that a held Job goes back to Ready.
    pub(super) fn release(&mut self, id: u32, todo: &mut Vec<Todo>) {
        let job = self.job_name(id);
        let entry = &mut self.jobs.entries[id];
        let resource_version = entry.version.to_string();
        if let State::Held(holding) = &mut entry.state {
            holding.task = Task::Releasing;
            todo.push(Todo::Release {
                job,
                resource_version,
                claim_id: holding.claim_id.as_ref().to_owned(),
            });
        }
    }

    /// Lands a claim: it is not under way any more, whatever came of it.
    pub(super) fn land(&mut self, lane: u32, flight: &Flight) {
        self.flying -= 1;
        let flying = &mut self.lanes[lane].flying;
        *flying = flying.saturating_sub(1);
        self.end_run(lane, flight.client);
    }

    /// Limits of a Plugin.
    pub(super) fn hear_plugin(
        &mut self,
        key: PluginRefKey,
        max_running: Option<u32>,
        max_running_per_client: Option<u32>,
    ) {
        if max_running.is_none() && max_running_per_client.is_none() {
            // No limits need no lane.
            if !self.lane_names.contains_key(&key) {
                return;
            }
        }
        let id = self.lane(&key);
        let lane = &mut self.lanes[id];
        lane.max_running = max_running;
        if lane.max_running_per_client != max_running_per_client {
            lane.max_running_per_client = max_running_per_client;
            let spots: Vec<u32> = lane.spots.ids().collect();
            for spot in spots {
                lane.open_or_close(&self.jobs, spot);
            }
        }
        self.list(id);
    }
}

/// Resource version as a number. The API server promises that they can be compared so; a Job
/// without one is none that it gave us.
pub(super) fn version(job: &Job) -> Option<u64> {
    job.metadata.resource_version.as_deref()?.parse().ok()
}
