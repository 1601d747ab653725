//! What the dispatcher makes of a view of a Job.

use super::entry::{
    ActiveClaim, JobState, NEVER, NO_BUCKET, NO_DEADLINE, Observation, PendingClaim, Recovery,
};
use super::event::{Effect, PluginRefKey};
use super::{Dispatcher, plugin_queue::ANY_CLIENT};
use patchbay_api::Job;
use std::sync::Arc;

impl Dispatcher {
    /// A Job as the watch, a write or a read shows it.
    pub(super) fn handle_job(&mut self, job: &Job, watch: bool, effects: &mut Vec<Effect>) {
        let Some(version) = version(job) else {
            return;
        };
        if watch {
            self.observed = self.observed.max(version);
        }
        if let Some((id, observation)) = self.observe(job, version) {
            self.apply_observation(id, observation, effects);
        }
    }

    /// Takes over a view if it is news, and hands back a Job that is in no index, with what the
    /// view says. A Job whose claim is being written stays with its flight.
    fn observe(&mut self, job: &Job, version: u64) -> Option<(u32, Observation)> {
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
        let queue = self.queue(&key);
        let id = self.jobs.add(namespace, job, queue, version);
        Some((id, Observation::of(job)))
    }

    fn update(&mut self, id: u32, job: &Job, version: u64) -> Option<(u32, Observation)> {
        let observation = Observation::of(job);
        let entry = &mut self.jobs.entries[id];
        if let JobState::Claiming(pending) = &mut entry.state {
            pending.observation = observation;
            entry.read(job, version);
            return None;
        }
        // The usual news of a job that a pod has: the same claim, a row more.
        if let (JobState::Claimed(known), Observation::Claimed(new)) =
            (&mut entry.state, &observation)
            && known.claim_id == new.claim_id
            && known.pod_uid == new.pod_uid
        {
            known.running = new.running;
            entry.read(job, version);
            return None;
        }
        self.unplace(id);
        self.jobs.entries[id].read(job, version);
        Some((id, observation))
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
        let queue = entry.queue;
        if let JobState::Claiming(_) = entry.state {
            let state = std::mem::replace(&mut entry.state, JobState::Ineligible);
            if let JobState::Claiming(pending) = state {
                let key = (entry.uid.clone(), pending.claim_id.clone());
                self.orphaned_claims.insert(key, (queue, *pending));
            }
        } else {
            self.unplace(id);
        }
        let namespace = self.queues[queue].key.namespace.clone();
        self.jobs.remove(&namespace, id);
    }

    /// Takes a Job out of wherever it stands; afterwards it is closed. Not for one whose claim is
    /// under way.
    pub(super) fn unplace(&mut self, id: u32) {
        let entry = &mut self.jobs.entries[id];
        let (queue, eligible, expire) = (entry.queue, entry.eligible, entry.expire);
        match std::mem::replace(&mut entry.state, JobState::Ineligible) {
            JobState::Ineligible => {}
            JobState::Scheduled => {
                self.jobs.timers.remove(&(eligible, id));
            }
            JobState::Expired => {
                self.jobs.expired.remove(&(expire, id));
            }
            JobState::RetryAt { until } => {
                self.jobs.retries.remove(&(until, id));
            }
            JobState::Ready { bucket } => self.queues[queue].remove_job(&self.jobs, bucket, id),
            JobState::PendingAcceptance { bucket, until, .. } => {
                self.unblock_requests(id, until);
                self.queues[queue].remove_job(&self.jobs, bucket, id);
            }
            JobState::Claimed(active) => self.unset_claimed(id, queue, &active),
            claiming @ JobState::Claiming(_) => self.jobs.entries[id].state = claiming,
        }
    }

    fn unset_claimed(&mut self, id: u32, queue: u32, active: &ActiveClaim) {
        if let Some(claimed) = self.holders.get_mut(&active.pod_uid) {
            claimed.remove(&id);
            if claimed.is_empty() {
                self.holders.remove(&active.pod_uid);
            }
        }
        if let Some(session) = self.pods.get(&active.pod_uid)
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.known_claims.remove(&active.claim_id);
        }
        self.finish_run(queue, active.client);
    }

    /// One job less is claimed by a Plugin's pods.
    pub(super) fn finish_run(&mut self, id: u32, client: u32) {
        let queue = &mut self.queues[id];
        queue.running = queue.running.saturating_sub(1);
        if client != NO_BUCKET {
            queue.finish_run(&self.jobs, client);
        }
        self.schedule_matching(id);
    }

    /// One more is. Answers where it counts for its client.
    pub(super) fn start_run(&mut self, id: u32, client: Option<&Arc<str>>) -> u32 {
        let queue = &mut self.queues[id];
        queue.running = queue.running.saturating_add(1);
        let bucket = queue.bucket(client);
        if bucket == ANY_CLIENT {
            return NO_BUCKET;
        }
        queue.start_run(&self.jobs, bucket);
        self.schedule_matching(id);
        bucket
    }

    /// Puts a closed Job where it belongs.
    pub(super) fn apply_observation(
        &mut self,
        id: u32,
        observation: Observation,
        effects: &mut Vec<Effect>,
    ) {
        match observation {
            Observation::Ineligible => {}
            Observation::Eligible => self.place(id),
            Observation::Claimed(active) => self.set_claimed(id, active, effects),
        }
    }

    /// Puts an open Job where the clock wants it.
    pub(super) fn place(&mut self, id: u32) {
        let entry = &mut self.jobs.entries[id];
        if entry.expire != NEVER && self.now >= entry.expire {
            entry.state = JobState::Expired;
            self.jobs.expired.insert((entry.expire, id));
        } else if self.now < entry.eligible {
            entry.state = JobState::Scheduled;
            self.jobs.timers.insert((entry.eligible, id));
        } else {
            let queue = entry.queue;
            let bucket = self.queues[queue].bucket(entry.client.as_ref());
            entry.state = if entry.accepted {
                JobState::Ready { bucket }
            } else {
                JobState::PendingAcceptance {
                    bucket,
                    since: self.mono,
                    until: NO_DEADLINE,
                }
            };
            self.queues[queue].insert_job(&self.jobs, bucket, id);
            self.schedule_matching(queue);
        }
    }

    /// Puts a held Job to its holder.
    fn set_claimed(&mut self, id: u32, mut active: Box<ActiveClaim>, effects: &mut Vec<Effect>) {
        let entry = &self.jobs.entries[id];
        let client = entry
            .client
            .clone()
            .or_else(|| active.requested_client.take());
        active.requested_client = None;
        active.client = self.start_run(entry.queue, client.as_ref());
        if let Some((uid, _)) = self.holders.get_key_value(&active.pod_uid) {
            // One text for all.
            active.pod_uid = uid.clone();
        }
        self.holders
            .entry(active.pod_uid.clone())
            .or_default()
            .insert(id);
        self.jobs.entries[id].state = JobState::Claimed(active);
        self.check_holder(id, effects);
    }

    /// Writes that a held Job goes back to Ready.
    pub(super) fn release(&mut self, id: u32, effects: &mut Vec<Effect>) {
        let job = self.job_name(id);
        let entry = &mut self.jobs.entries[id];
        let resource_version = entry.version.to_string();
        if let JobState::Claimed(active) = &mut entry.state {
            active.task = Recovery::Releasing;
            effects.push(Effect::Release {
                job,
                resource_version,
                claim_id: active.claim_id.as_ref().to_owned(),
            });
        }
    }

    /// Lands a claim: it is not under way any more, whatever came of it.
    pub(super) fn finish_claim(&mut self, queue: u32, pending: &PendingClaim) {
        self.claiming -= 1;
        let claiming = &mut self.queues[queue].claiming;
        *claiming = claiming.saturating_sub(1);
        self.finish_run(queue, pending.client);
    }

    /// Limits of a Plugin.
    pub(super) fn handle_plugin(
        &mut self,
        key: PluginRefKey,
        max_running: Option<u32>,
        max_running_per_client: Option<u32>,
    ) {
        if max_running.is_none() && max_running_per_client.is_none() {
            // No limits need no queue.
            if !self.queue_ids.contains_key(&key) {
                return;
            }
        }
        let id = self.queue(&key);
        let queue = &mut self.queues[id];
        queue.max_running = max_running;
        if queue.max_running_per_client != max_running_per_client {
            queue.max_running_per_client = max_running_per_client;
            let buckets: Vec<u32> = queue.buckets.ids().collect();
            for bucket in buckets {
                queue.update_client_limit(&self.jobs, bucket);
            }
        }
        self.schedule_matching(id);
    }
}

/// Resource version as a number. The API server promises that they can be compared so; a Job
/// without one did not come from it.
pub(super) fn version(job: &Job) -> Option<u64> {
    job.metadata.resource_version.as_deref()?.parse().ok()
}
