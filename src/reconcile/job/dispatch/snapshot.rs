//! What the dispatcher holds at a moment, for people who debug it. Served by the operator at
//! `/debug/dispatch`; nothing decides by it.

use super::entry::{JobState, Recovery};
use super::{Dispatcher, PluginRefKey};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::HashMap;

/// Maximum number of queues, claims and sessions that are listed; the rest is counted.
const MAX_LISTED: usize = 1000;

/// The state of the dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DispatchSnapshot {
    /// Nothing is dispatched: the list of Jobs is not complete, or the clock cannot be trusted.
    pub paused: bool,
    /// One for each Plugin that has ever had Jobs or a session.
    pub queues: Vec<QueueSnapshot>,
    /// Number of queues that are not listed.
    pub queues_omitted: usize,
    /// Jobs that are being claimed or are claimed.
    pub claims: Vec<ClaimSnapshot>,
    /// Number of claims that are not listed.
    pub claims_omitted: usize,
    /// Jobs that cannot be claimed now, by what they wait for.
    pub waiting: WaitingJobs,
    /// Open sessions that take jobs.
    pub sessions: Vec<SessionSnapshot>,
    /// Number of sessions that are not listed.
    pub sessions_omitted: usize,
}

/// The queue of one Plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSnapshot {
    /// Namespace of the Plugin.
    pub namespace: String,
    /// Name of the Plugin.
    pub plugin: String,
    /// Jobs that the next fitting work request gets.
    pub ready: usize,
    /// Jobs that are being claimed or are claimed.
    pub running: u32,
    /// Work requests that wait for a job.
    pub work_requests: usize,
    /// Earliest start time of the ready jobs.
    pub oldest: Option<Timestamp>,
}

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSnapshot {
    /// Namespace of the Job.
    pub namespace: String,
    /// Name of the Job.
    pub job: String,
    pub claim_id: String,
    /// Uid of the pod that holds the claim; absent while it is being written.
    pub pod_uid: Option<String>,
    /// What has to happen next.
    pub waits_for: &'static str,
}

/// How many Jobs wait for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingJobs {
    /// For their start time or the end of a back-off.
    pub scheduled: usize,
    pub acceptance: usize,
    /// For the next attempt after a write that was refused.
    pub retry: usize,
    /// Expired; their status does not say so yet.
    pub expired: usize,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSnapshot {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// Work requests that have no answer yet.
    pub work_requests: usize,
}

impl Dispatcher {
    /// Everything that it holds, bounded. Looks at every Job: not for a hot path.
    pub fn snapshot(&self) -> DispatchSnapshot {
        let mut snapshot = DispatchSnapshot {
            paused: self.paused,
            ..DispatchSnapshot::default()
        };
        let mut work_requests: HashMap<&PluginRefKey, usize> = HashMap::new();
        for request in self.requests.values() {
            let plugin = &self.queues[request.queue].key;
            *work_requests.entry(plugin).or_default() += 1;
        }
        snapshot.queues_omitted = self.queues.len().saturating_sub(MAX_LISTED);
        snapshot.queues = self
            .queue_stats()
            .take(MAX_LISTED)
            .map(|stats| QueueSnapshot {
                namespace: stats.plugin.namespace.clone(),
                plugin: stats.plugin.name.clone(),
                ready: stats.ready,
                running: stats.running,
                work_requests: work_requests.get(stats.plugin).copied().unwrap_or_default(),
                oldest: stats.oldest,
            })
            .collect();
        for entry in self.jobs.entries.iter() {
            let (claim_id, pod_uid, waits_for) = match &entry.state {
                JobState::Claiming(pending) => (
                    &*pending.claim_id,
                    None,
                    "the API server to write the claim",
                ),
                JobState::Claimed(active) => {
                    let waits_for = match active.task {
                        Recovery::None => "the plugin to end the job",
                        Recovery::Queried => "the sidecar to say whether it knows the claim",
                        Recovery::Releasing => "the API server to write that the claim is returned",
                        Recovery::Losing => "the API server to write that the job is lost",
                    };
                    (
                        &*active.claim_id,
                        Some(active.pod_uid.to_string()),
                        waits_for,
                    )
                }
                JobState::Scheduled => {
                    snapshot.waiting.scheduled += 1;
                    continue;
                }
                JobState::PendingAcceptance { .. } => {
                    snapshot.waiting.acceptance += 1;
                    continue;
                }
                JobState::RetryAt { .. } => {
                    snapshot.waiting.retry += 1;
                    continue;
                }
                JobState::Expired => {
                    snapshot.waiting.expired += 1;
                    continue;
                }
                JobState::Ready { .. } | JobState::Ineligible => continue,
            };
            if snapshot.claims.len() == MAX_LISTED {
                snapshot.claims_omitted += 1;
                continue;
            }
            snapshot.claims.push(ClaimSnapshot {
                namespace: self.queues[entry.queue].key.namespace.clone(),
                job: entry.name.to_string(),
                claim_id: claim_id.to_owned(),
                pod_uid,
                waits_for,
            });
        }
        snapshot.sessions_omitted = self.sessions.len().saturating_sub(MAX_LISTED);
        snapshot.sessions = self
            .sessions
            .values()
            .take(MAX_LISTED)
            .map(|session| SessionSnapshot {
                pod: session.pod.clone(),
                pod_uid: session.pod_uid.to_string(),
                work_requests: session.requests.len(),
            })
            .collect();
        snapshot.sessions.sort_by(|a, b| a.pod.cmp(&b.pod));
        snapshot
    }
}
