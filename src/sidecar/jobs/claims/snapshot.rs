//! The state of the claim machine, for people.

use serde::Serialize;

use super::ClaimMachine;
use super::entry::{Entry, Kind, State};

/// The state at one moment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimsSnapshot {
    /// Whether a session that knows jobs is open.
    session: bool,
    /// The plugin process that jobs go to.
    plugin: Option<String>,
    /// Whether no further job goes to it.
    closed: bool,
    /// Requests of the plugin that wait for a job.
    waiting_requests: usize,
    /// Work requests that the operator has not answered.
    open_work_requests: usize,
    claims: Vec<ClaimSnapshot>,
}

/// One claim.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSnapshot {
    claim: String,
    job: String,
    job_uid: String,
    attempt: u32,
    kind: Kind,
    state: State,
    /// Whether the plugin is known to work on it.
    started: bool,
    /// What happens next, and who has to act.
    waits_for: &'static str,
    rows: u32,
    /// Rows that the operator has not stored yet.
    pending_rows: usize,
    kept_bytes: u64,
}

impl ClaimMachine {
    /// The state now.
    pub fn snapshot(&self) -> ClaimsSnapshot {
        ClaimsSnapshot {
            session: self.session.is_some(),
            plugin: self.current.map(|start_id| start_id.to_string()),
            closed: self.is_closed(),
            waiting_requests: self.waiters.len(),
            open_work_requests: self.work_requests.len(),
            claims: self.entries.values().map(ClaimSnapshot::of).collect(),
        }
    }
}

impl ClaimSnapshot {
    fn of(entry: &Entry) -> Self {
        Self {
            claim: entry.claim.to_string(),
            job: entry.job.clone(),
            job_uid: entry.job_uid.clone(),
            attempt: entry.attempt,
            kind: entry.kind.clone(),
            state: entry.state.clone(),
            started: entry.started,
            waits_for: waits_for(entry),
            rows: entry.next_row,
            pending_rows: entry.pending.len(),
            kept_bytes: entry.kept_bytes,
        }
    }
}

fn waits_for(entry: &Entry) -> &'static str {
    match &entry.state {
        State::Granted { .. } => "the plugin, to ask for a job or to be called",
        State::Delivered { gone: Some(_), .. } => "another plugin process, to answer the job",
        State::Delivered { gone: None, .. } => "the plugin, to answer",
        State::Answered { .. } if entry.pending.is_empty() => "the operator, to confirm the end",
        State::Answered { .. } => "the operator, to store the output",
        State::Lost { .. } => "the operator, to write the loss",
        State::Over { .. } => "nobody",
    }
}
