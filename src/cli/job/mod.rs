//! Jobs at the keyboard: `submit`, `output`, `cancel`, `retry`, `queue`.
//!
//! The operator decides about Jobs; these verbs write what a person could write by `kubectl apply`
//! and read what stands in status.

mod cancel;
mod deliver;
mod queue;
mod retry;
mod rows;
mod submit;
#[cfg(test)]
mod tests;
mod when;

pub(crate) use cancel::run as cancel;
pub(crate) use deliver::run as output;
pub(crate) use queue::run as queue;
pub(crate) use retry::run as retry;
pub(crate) use submit::run as submit;

use crate::connect::Connection;
use crate::output::OutputError;
use crate::trouble::{ReadError, explain};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use patchbay_reconcile::suggest::{did_you_mean, similar};

/// Why something about a Job was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The arguments contradict each other or the Plugin.
    #[error("{0}")]
    Refused(String),
    #[error("writing the answer as JSON: {0}")]
    Json(serde_json::Error),
}

/// Jobs of the namespace.
fn jobs(connection: &Connection) -> Api<Job> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

/// The Job `name`; when there is none, the error names what may be meant.
async fn one(connection: &Connection, name: &str) -> Result<Job, JobError> {
    let what = format!("reading Job {name} in namespace {}", connection.namespace);
    let found = jobs(connection)
        .get_opt(name)
        .await
        .map_err(|error| explain(connection, what.clone(), error))?;
    if let Some(job) = found {
        return Ok(job);
    }
    let others = jobs(connection)
        .list_metadata(&ListParams::default().limit(500))
        .await
        .map_err(|error| explain(connection, what.clone(), error))?;
    let names: Vec<String> = others.iter().map(ResourceExt::name_any).collect();
    let hint = did_you_mean(&similar(name, names.iter().map(String::as_str)));
    Err(ReadError::NoObject { what, hint }.into())
}

/// Where a Job stands; `None` while the operator has not looked at it.
fn phase(job: &Job) -> Option<Phase> {
    job.status.as_ref()?.phase
}

/// Whether nothing can follow.
fn ended(job: &Job) -> bool {
    phase(job).is_some_and(Phase::is_terminal)
}

/// `Failed (Expired)`, with the sentence of the condition that says so.
fn verdict(job: &Job) -> String {
    let Some(status) = &job.status else {
        return "the operator has not looked at it yet".to_owned();
    };
    let Some(phase) = status.phase else {
        return "the operator has not looked at it yet".to_owned();
    };
    let telling = match phase {
        Phase::Invalid | Phase::Waiting => ["Accepted", "Eligible"],
        Phase::Ready => ["Eligible", "Accepted"],
        Phase::Suspended => ["Suspended", "Eligible"],
        Phase::Claimed => ["Claimed", "Eligible"],
        Phase::Running => ["Started", "Claimed"],
        Phase::Succeeded => ["Complete", "Started"],
        Phase::Failed => ["Failed", "Started"],
    };
    let message = telling
        .iter()
        .filter_map(|wanted| status.conditions.iter().find(|c| c.type_ == *wanted))
        .find(|condition| status.reason.is_empty() || condition.reason == status.reason)
        .map(|condition| condition.message.as_str())
        .unwrap_or_default();
    let reason = match status.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    match message {
        "" => format!("{phase}{reason}"),
        message => format!("{phase}{reason}: {}", crate::output::clean(message)),
    }
}
