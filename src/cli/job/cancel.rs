//! `cancel`: asks the operator to end Jobs, and waits for its answer.

use std::time::Duration;

use futures::future::try_join_all;
use kube::api::{Patch, PatchParams};
use patchbay_api::job_status::Phase;
use patchbay_api::names::CANCEL_ANNOTATION;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{JobCommandError, get_job, has_ended, jobs, outcome, phase};
use crate::api_error::ApiError;
use crate::args;
use crate::connect::ClusterClient;
use crate::stdio;

/// How long to wait for the operator.
const TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Cancels the Jobs at the same time. Returns whether all of them are cancelled now.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::CancelArgs,
) -> Result<bool, JobCommandError> {
    let cancelled = try_join_all(arguments.jobs.iter().map(|name| cancel(cluster, name))).await?;
    Ok(cancelled.into_iter().all(|cancelled| cancelled))
}

async fn cancel(cluster: &ClusterClient, name: &str) -> Result<bool, JobCommandError> {
    let job = get_job(cluster, name).await?;
    if has_ended(&job) {
        stdio::line(&format!(
            "job.patchbay.dev/{name} had already ended: {}",
            outcome(&job)
        ))?;
        return Ok(false);
    }
    let running = phase(&job).is_some_and(Phase::is_held);
    let patch = json!({"metadata": {
        "uid": job.metadata.uid,
        "annotations": {CANCEL_ANNOTATION: "kubectl patchbay cancel"},
    }});
    jobs(cluster)
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|error| ApiError::from_kube(cluster, format!("cancelling Job {name}"), error))?;
    let until = Instant::now() + TIMEOUT;
    loop {
        let job = get_job(cluster, name).await?;
        if has_ended(&job) {
            let cancelled = job.status.as_ref().is_some_and(|s| s.reason == "Cancelled");
            let result = match cancelled {
                true => "cancelled".to_owned(),
                false => format!("ended for another reason: {}", outcome(&job)),
            };
            stdio::line(&format!("job.patchbay.dev/{name} {result}"))?;
            if cancelled && running {
                stdio::note(
                    "The plugin is not interrupted: it may still finish the work, and its output is kept as late output.",
                );
            }
            return Ok(cancelled);
        }
        if Instant::now() >= until {
            return Err(JobCommandError::Refused(format!(
                "cancelling Job {name}: the operator has not processed it within {} s; check that it is running. The request remains in the annotation {CANCEL_ANNOTATION}",
                TIMEOUT.as_secs()
            )));
        }
        sleep(POLL_INTERVAL).await;
    }
}
