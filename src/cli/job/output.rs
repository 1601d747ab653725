//! `output`: the output of a Job, byte for byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, pin_mut};
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use patchbay_api::Job;
use patchbay_api::job_status::{OutputRow, Phase};
use serde_json::json;

use super::rows::{read_chunks, rows_after};
use super::{JobCommandError, get_job, has_ended, jobs, outcome, phase};
use crate::api_error::ApiError;
use crate::args::{self, RowFormat};
use crate::connect::ClusterClient;
use crate::stdio;

/// Seconds until the watch is opened again.
const WATCH_SECONDS: u32 = 240;

/// Prints the rows. Returns false if the Job has failed.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::OutputArgs,
) -> Result<bool, JobCommandError> {
    let mut job = get_job(cluster, &arguments.job).await?;
    let mut printed = OutputPrinter::new(arguments.output, arguments.late);
    if arguments.follow {
        job = follow(cluster, job, &mut printed).await?;
    } else {
        printed.print(cluster, &job).await?;
    }
    if phase(&job) != Some(Phase::Succeeded) {
        stdio::note(&outcome(&job));
    } else if printed.is_empty() {
        stdio::note("The output is empty.");
    }
    Ok(!matches!(phase(&job), Some(Phase::Failed | Phase::Invalid)))
}

/// Prints rows as they arrive. Returns the Job when it has ended.
pub(super) async fn follow(
    cluster: &ClusterClient,
    mut job: Job,
    printed: &mut OutputPrinter,
) -> Result<Job, JobCommandError> {
    loop {
        printed.print(cluster, &job).await?;
        if has_ended(&job) {
            return Ok(job);
        }
        job = next(cluster, &job).await?;
    }
}

/// The Job after its next change.
async fn next(cluster: &ClusterClient, job: &Job) -> Result<Job, JobCommandError> {
    let name = job.name_any();
    let what = format!("watching Job {name} in namespace {}", cluster.namespace);
    let params = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_SECONDS);
    let version = job.resource_version().unwrap_or_default();
    let api = jobs(cluster);
    let stream = api
        .watch(&params, &version)
        .await
        .map_err(|error| ApiError::from_kube(cluster, what.clone(), error))?;
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event.map_err(|error| ApiError::from_kube(cluster, what.clone(), error))? {
            WatchEvent::Added(job) | WatchEvent::Modified(job) => return Ok(job),
            WatchEvent::Deleted(_) => {
                return Err(JobCommandError::Refused(format!("{what}: it was deleted")));
            }
            // The resource version is too old: get the Job again.
            WatchEvent::Error(_) => break,
            WatchEvent::Bookmark(_) => {}
        }
    }
    get_job(cluster, &name).await
}

/// Prints each row of a Job once.
pub(super) struct OutputPrinter {
    format: RowFormat,
    late: bool,
    /// The last row printed.
    seen: i32,
    attempt: i32,
    bytes: u64,
}

impl OutputPrinter {
    pub(super) fn new(format: RowFormat, late: bool) -> Self {
        Self {
            format,
            late,
            seen: 0,
            attempt: 0,
            bytes: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    async fn print(&mut self, cluster: &ClusterClient, job: &Job) -> Result<(), JobCommandError> {
        let attempt = job.status.as_ref().map_or(0, |status| status.attempt);
        if attempt != self.attempt {
            if self.seen > 0 {
                stdio::note(&format!("Attempt {attempt} has started; its rows follow."));
            }
            self.attempt = attempt;
            self.seen = 0;
        }
        for row in rows_after(job, self.seen) {
            self.seen = row.row;
            if row.late && !self.late {
                continue;
            }
            if self.format == RowFormat::Json {
                self.print_json(cluster, job, &row).await?;
            } else {
                let bytes = &mut self.bytes;
                read_chunks(cluster, job, &row, |piece| {
                    *bytes += piece.len() as u64;
                    Ok(stdio::bytes(piece)?)
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn print_json(
        &mut self,
        cluster: &ClusterClient,
        job: &Job,
        row: &OutputRow,
    ) -> Result<(), JobCommandError> {
        let mut whole = Vec::new();
        read_chunks(cluster, job, row, |piece| {
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
        Ok(stdio::line(&line.to_string())?)
    }
}
