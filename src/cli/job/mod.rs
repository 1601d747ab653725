//! The verbs about Jobs: `submit`, `describe job`, `output`, `cancel`, `retry`, `queue`.
//!
//! The operator decides about Jobs; these verbs write only what a user could write with
//! `kubectl apply`, and read status.

mod cancel;
mod describe;
mod output;
mod queue;
mod retry;
mod rows;
mod submit;
#[cfg(test)]
mod tests;

pub(crate) use cancel::run as cancel;
pub(crate) use describe::run as describe;
pub(crate) use output::run as output;
pub(crate) use queue::run as queue;
pub(crate) use retry::run as retry;
pub(crate) use submit::run as submit;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use patchbay_reconcile::suggest::{did_you_mean, similar};

use crate::api_error::ApiError;
use crate::connect::ClusterClient;
use crate::stdio::StdoutError;

/// Why a verb about Jobs failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobCommandError {
    #[error(transparent)]
    Read(#[from] ApiError),
    #[error(transparent)]
    Output(#[from] StdoutError),
    /// The arguments contradict each other or the Plugin.
    #[error("{0}")]
    Refused(String),
    #[error("writing JSON: {0}")]
    Json(serde_json::Error),
}

/// Jobs of the namespace.
fn jobs(cluster: &ClusterClient) -> Api<Job> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

/// Gets the Job `name`; if it does not exist, the error suggests similar names.
async fn get_job(cluster: &ClusterClient, name: &str) -> Result<Job, JobCommandError> {
    let what = format!("reading Job {name} in namespace {}", cluster.namespace);
    let found = jobs(cluster)
        .get_opt(name)
        .await
        .map_err(|error| ApiError::from_kube(cluster, what.clone(), error))?;
    if let Some(job) = found {
        return Ok(job);
    }
    let others = jobs(cluster)
        .list_metadata(&ListParams::default().limit(500))
        .await
        .map_err(|error| ApiError::from_kube(cluster, what.clone(), error))?;
    let names: Vec<String> = others.iter().map(ResourceExt::name_any).collect();
    let hint = did_you_mean(&similar(name, names.iter().map(String::as_str)));
    Err(ApiError::NoObject { what, hint }.into())
}

/// `None` until the operator has processed the Job.
fn phase(job: &Job) -> Option<Phase> {
    job.status.as_ref()?.phase
}

fn has_ended(job: &Job) -> bool {
    phase(job).is_some_and(Phase::is_terminal)
}

/// `Failed (Expired): message`, with the message of the condition that decided it.
fn outcome(job: &Job) -> String {
    let Some(status) = &job.status else {
        return "the operator has not processed it yet".to_owned();
    };
    let Some(phase) = status.phase else {
        return "the operator has not processed it yet".to_owned();
    };
    let deciding = match phase {
        Phase::Invalid | Phase::Waiting => ["Accepted", "Eligible"],
        Phase::Ready => ["Eligible", "Accepted"],
        Phase::Suspended => ["Suspended", "Eligible"],
        Phase::Claimed => ["Claimed", "Eligible"],
        Phase::Running => ["Started", "Claimed"],
        Phase::Succeeded => ["Complete", "Started"],
        Phase::Failed => ["Failed", "Started"],
    };
    let message = deciding
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
        message => format!("{phase}{reason}: {}", crate::stdio::escape_control(message)),
    }
}
