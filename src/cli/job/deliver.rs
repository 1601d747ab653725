//! `output`: what a plugin gave back, byte for byte.

use super::rows::{pieces, unseen};
use super::{JobError, ended, jobs, one, phase, verdict};
use crate::args;
use crate::connect::Connection;
use crate::output;
use crate::trouble::explain;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, pin_mut};
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use patchbay_api::Job;
use patchbay_api::job_status::{OutputRow, Phase};
use serde_json::json;

/// Seconds until the watch is opened again.
const WATCH_SECONDS: u32 = 240;

/// Prints the rows. Whether the Job has succeeded, or goes on well.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::JobOutput,
) -> Result<bool, JobError> {
    let mut job = one(connection, &arguments.job).await?;
    let mut printed = Printed::new(arguments.json, arguments.late);
    if arguments.follow {
        job = follow(connection, job, &mut printed).await?;
    } else {
        printed.print(connection, &job).await?;
    }
    if phase(&job) != Some(Phase::Succeeded) {
        output::note(&verdict(&job));
    } else if printed.nothing() {
        output::note("The output is empty.");
    }
    Ok(!matches!(phase(&job), Some(Phase::Failed | Phase::Invalid)))
}

/// Prints rows as they come, until the Job ends. Answers the Job at its end.
pub(super) async fn follow(
    connection: &Connection,
    mut job: Job,
    printed: &mut Printed,
) -> Result<Job, JobError> {
    loop {
        printed.print(connection, &job).await?;
        if ended(&job) {
            return Ok(job);
        }
        job = next(connection, &job).await?;
    }
}

/// The Job after its next change.
async fn next(connection: &Connection, job: &Job) -> Result<Job, JobError> {
    let name = job.name_any();
    let what = format!("watching Job {name} in namespace {}", connection.namespace);
    let params = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_SECONDS);
    let version = job.resource_version().unwrap_or_default();
    let api = jobs(connection);
    let stream = api
        .watch(&params, &version)
        .await
        .map_err(|error| explain(connection, what.clone(), error))?;
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event.map_err(|error| explain(connection, what.clone(), error))? {
            WatchEvent::Added(job) | WatchEvent::Modified(job) => return Ok(job),
            WatchEvent::Deleted(_) => {
                return Err(JobError::Refused(format!("{what}: it was deleted")));
            }
            // The version is too old, or the watch has ended: read afresh.
            WatchEvent::Error(_) => break,
            WatchEvent::Bookmark(_) => {}
        }
    }
    one(connection, &name).await
}

/// What has been printed of a Job.
pub(super) struct Printed {
    json: bool,
    late: bool,
    seen: i32,
    attempt: i32,
    bytes: u64,
}

impl Printed {
    pub(super) fn new(json: bool, late: bool) -> Printed {
        Printed {
            json,
            late,
            seen: 0,
            attempt: 0,
            bytes: 0,
        }
    }

    fn nothing(&self) -> bool {
        self.bytes == 0
    }

    async fn print(&mut self, connection: &Connection, job: &Job) -> Result<(), JobError> {
        let attempt = job.status.as_ref().map_or(0, |status| status.attempt);
        if attempt != self.attempt {
            if self.seen > 0 {
                output::note(&format!("Attempt {attempt} begins; its rows follow."));
            }
            self.attempt = attempt;
            self.seen = 0;
        }
        for row in unseen(job, self.seen) {
            self.seen = row.row;
            if row.late && !self.late {
                continue;
            }
            if self.json {
                self.as_json(connection, job, &row).await?;
            } else {
                let bytes = &mut self.bytes;
                pieces(connection, job, &row, |piece| {
                    *bytes += piece.len() as u64;
                    Ok(output::bytes(piece)?)
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn as_json(
        &mut self,
        connection: &Connection,
        job: &Job,
        row: &OutputRow,
    ) -> Result<(), JobError> {
        let mut whole = Vec::new();
        pieces(connection, job, row, |piece| {
            whole.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        self.bytes += whole.len() as u64;
        let mut line = json!({"row": row.row, "late": row.late, "bytes": whole.len()});
        match String::from_utf8(whole) {
            Ok(text) => line["text"] = text.into(),
            Err(error) => line["base64"] = STANDARD.encode(error.as_bytes()).into(),
        }
        Ok(output::line(&line.to_string())?)
    }
}
