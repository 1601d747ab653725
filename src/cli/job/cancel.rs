//! `cancel`: asks the operator to end Jobs, and waits for its answer.

use super::{JobError, ended, jobs, one, phase, verdict};
use crate::args;
use crate::connect::Connection;
use crate::output;
use crate::trouble::explain;
use kube::api::{Patch, PatchParams};
use patchbay_api::job_status::Phase;
use patchbay_api::names::CANCEL_ANNOTATION;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the operator is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Cancels each Job. Whether all of them are cancelled now.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::Cancel,
) -> Result<bool, JobError> {
    let mut all = true;
    for name in &arguments.jobs {
        all &= cancel(connection, name).await?;
    }
    Ok(all)
}

async fn cancel(connection: &Connection, name: &str) -> Result<bool, JobError> {
    let job = one(connection, name).await?;
    if ended(&job) {
        output::line(&format!(
            "job.patchbay.dev/{name} had ended before: {}",
            verdict(&job)
        ))?;
        return Ok(false);
    }
    let held = phase(&job).is_some_and(Phase::is_held);
    let patch = json!({"metadata": {
        "uid": job.metadata.uid,
        "annotations": {CANCEL_ANNOTATION: "kubectl patchbay cancel"},
    }});
    jobs(connection)
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|error| explain(connection, format!("cancelling Job {name}"), error))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let job = one(connection, name).await?;
        if ended(&job) {
            let cancelled = job.status.as_ref().is_some_and(|s| s.reason == "Cancelled");
            let word = match cancelled {
                true => "cancelled".to_owned(),
                false => format!("ended otherwise: {}", verdict(&job)),
            };
            output::line(&format!("job.patchbay.dev/{name} {word}"))?;
            if cancelled && held {
                output::note(
                    "A plugin has it already; what it still does cannot be undone, and what it answers is kept as late output.",
                );
            }
            return Ok(cancelled);
        }
        if Instant::now() >= until {
            return Err(JobError::Refused(format!(
                "cancelling Job {name}: the operator has not answered within {} s; is it running? The wish stays in the annotation {CANCEL_ANNOTATION}",
                PATIENCE.as_secs()
            )));
        }
        sleep(PAUSE).await;
    }
}
