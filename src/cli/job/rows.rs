//! The rows of a Job's output, from its status and from JobOutputs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::{Api, ResourceExt};
use patchbay_api::job_status::{Encoding, OutputRow};
use patchbay_api::names::job_output_name;
use patchbay_api::{Job, JobOutput};

use super::JobCommandError;
use crate::api_error::ApiError;
use crate::connect::ClusterClient;

/// Decodes `content` to the bytes that the plugin gave.
pub(super) fn decode(encoding: Encoding, content: &str) -> Result<Vec<u8>, String> {
    match encoding {
        Encoding::Text => Ok(content.as_bytes().to_vec()),
        Encoding::Base64 => STANDARD
            .decode(content)
            .map_err(|error| format!("its content is not base64: {error}")),
    }
}

/// Rows of `job` after the one numbered `seen`, oldest first. Rows beyond those that the Job lists
/// are only in JobOutputs.
pub(super) fn rows_after(job: &Job, seen: i32) -> Vec<OutputRow> {
    let Some(output) = job.status.as_ref().and_then(|s| s.output.as_ref()) else {
        return Vec::new();
    };
    let mut rows: Vec<OutputRow> = output
        .rows
        .iter()
        .filter(|r| r.row > seen)
        .cloned()
        .collect();
    rows.sort_by_key(|row| row.row);
    let listed = output.rows.iter().map(|row| row.row).max().unwrap_or(0);
    rows.extend(
        (listed.max(seen) + 1..=output.row_count).map(|row| OutputRow {
            row,
            bytes: 0,
            encoding: Encoding::Text,
            content: None,
            chunks: 0,
            late: false,
        }),
    );
    rows
}

/// Passes the content of `row` to `take`, chunk by chunk.
pub(super) async fn read_chunks(
    cluster: &ClusterClient,
    job: &Job,
    row: &OutputRow,
    mut take: impl FnMut(&[u8]) -> Result<(), JobCommandError>,
) -> Result<(), JobCommandError> {
    let name = job.name_any();
    if let Some(content) = &row.content {
        let bytes = decode(row.encoding, content).map_err(|error| {
            JobCommandError::Refused(format!("reading row {} of Job {name}: {error}", row.row))
        })?;
        return take(&bytes);
    }
    let api: Api<JobOutput> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
    let mut chunk = 0;
    loop {
        let object = job_output_name(&name, attempt, row.row, chunk);
        let what = format!("reading JobOutput {object}");
        let found = api
            .get_opt(&object)
            .await
            .map_err(|error| ApiError::from_kube(cluster, what.clone(), error))?;
        match found {
            Some(piece) => {
                let bytes = decode(piece.spec.encoding, &piece.spec.content)
                    .map_err(|error| JobCommandError::Refused(format!("{what}: {error}")))?;
                take(&bytes)?;
            }
            // The number of chunks of a row that the Job does not list is not known.
            None if chunk > 0 && row.chunks == 0 => return Ok(()),
            None if row.chunks == 0 && row.bytes == 0 => return Ok(()),
            None => {
                return Err(JobCommandError::Refused(format!(
                    "{what}: it does not exist, and according to the Job the row has {} chunks; check whether it was deleted",
                    row.chunks
                )));
            }
        }
        chunk += 1;
        if row.chunks > 0 && chunk >= row.chunks {
            return Ok(());
        }
    }
}
