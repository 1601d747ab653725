//! Output that is too large for its Job: objects of kind JobOutput, written before the Job says
//! that they are there, and read back when a digest has to be made again.

use super::JobContext;
use super::row_buffer::Stored;
use super::status_writer::{AGAIN, FORBIDDEN};
use crate::text::bounded_text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PartialObjectMeta, PostParams, Preconditions};
use kube::core::Request;
use kube::{Resource, ResourceExt};
use patchbay_api::job_status::Encoding;
use patchbay_api::names::{JOB_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL, job_output_name};
use patchbay_api::{Job, JobOutput, JobOutputSpec};
use patchbay_reconcile::job::output::{encode, is_text};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// Until a chunk is answered.
const ANSWER: Duration = Duration::from_secs(20);
/// The answer to a chunk need not bring it back.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Why a chunk is not stored.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The API server will not have it: a quota, a policy, its size.
    #[error("storing output: {0}")]
    Refused(String),
    /// The namespace is gone, and the Job with it.
    #[error("storing output: the namespace is gone")]
    Gone,
}

/// Which chunk.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The attempt, from 1.
    pub attempt: i32,
    /// The row, from 1.
    pub row: u32,
    /// The chunk, from 0.
    pub chunk: u32,
}

impl JobContext {
    /// Stores a chunk; tried again until the API server answers. One that is there with the same
    /// content is stored; another is left over from a row that was never acknowledged, or from an
    /// earlier Job of the same name, and makes room.
    pub async fn store_chunk(
        &self,
        job: &Job,
        place: Place,
        content: &[u8],
        text: bool,
    ) -> Result<(), ChunkError> {
        let object = object(job, place, content, text);
        let name = object.name_any();
        let namespace = job.namespace().unwrap_or_default();
        let api: Api<JobOutput> = Api::namespaced(self.client.clone(), &namespace);
        let (mut failures, mut forbidden) = (0, 0);
        loop {
            let error = match timeout(ANSWER, self.create(&namespace, &object)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(kube::Error::Api(status))) => match status.code {
                    409 => match self.make_room(&api, &name, &object).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => continue,
                        Err(error) => error.to_string(),
                    },
                    404 => return Err(ChunkError::Gone),
                    403 if forbidden < FORBIDDEN => {
                        forbidden += 1;
                        status.message.clone()
                    }
                    400 | 403 | 413 | 422 => {
                        self.metrics.refused.inc();
                        return Err(ChunkError::Refused(bounded_text(&status.message, 512)));
                    }
                    _ => status.message.clone(),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            failures += 1;
            tracing::debug!(namespace, name, error, "output was not stored yet");
            AGAIN.pause(failures).await;
        }
    }

    async fn create(&self, namespace: &str, object: &JobOutput) -> Result<(), kube::Error> {
        let url = JobOutput::url_path(&(), Some(namespace));
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let mut request = Request::new(url)
            .create(&PostParams::default(), body)
            .map_err(kube::Error::BuildRequest)?;
        let accept = HeaderValue::from_static(METADATA_ONLY);
        request.headers_mut().insert(ACCEPT, accept);
        self.client
            .request::<PartialObjectMeta<JobOutput>>(request)
            .await
            .map(drop)
    }

    /// Whether the same chunk is there already; another one is deleted.
    async fn make_room(
        &self,
        api: &Api<JobOutput>,
        name: &str,
        wanted: &JobOutput,
    ) -> Result<bool, kube::Error> {
        let Some(found) = api.get_opt(name).await? else {
            return Ok(false);
        };
        let owner = |object: &JobOutput| {
            let owners = object.metadata.owner_references.as_ref();
            owners.and_then(|all| all.first()).map(|o| o.uid.clone())
        };
        if found.spec.sha256 == wanted.spec.sha256 && owner(&found) == owner(wanted) {
            return Ok(true);
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: found.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is known of the stored rows of the attempt that holds `job`, made again from what is
    /// stored. Nothing when a part of it cannot be had.
    pub async fn read_stored(&self, job: &Job) -> Option<Stored> {
        let status = job.status.as_ref()?;
        let output = status.output.as_ref()?;
        let api: Api<JobOutput> =
            Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let mut stored = Stored::default();
        let add = |stored: &mut Stored, bytes: &[u8]| {
            stored.bytes = stored.bytes.saturating_add(bytes.len() as u64);
            stored.digest.update(bytes);
        };
        for row in 1..=output.row_count {
            let listed = output.rows.iter().find(|listed| listed.row == row);
            if let Some(content) = listed.and_then(|listed| listed.content.as_ref()) {
                add(&mut stored, &decode(listed?.encoding, content)?);
            } else {
                // Rows beyond the listed ones have as many chunks as are found.
                let chunks = listed.map(|listed| listed.chunks);
                let mut chunk = 0;
                while chunks.is_none_or(|chunks| chunk < chunks) {
                    let name = job_output_name(&job.name_any(), status.attempt, row, chunk);
                    let piece = match timeout(ANSWER, api.get_opt(&name)).await {
                        Ok(Ok(Some(piece))) => piece,
                        Ok(Ok(None)) if chunks.is_none() && chunk > 0 => break,
                        _ => return None,
                    };
                    add(
                        &mut stored,
                        &decode(piece.spec.encoding, &piece.spec.content)?,
                    );
                    chunk += 1;
                }
            }
            stored.rows += 1;
        }
        Some(stored)
    }
}

fn object(job: &Job, place: Place, content: &[u8], text: bool) -> JobOutput {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let (row, chunk) = (number(place.row), number(place.chunk));
    let name = job.name_any();
    let (encoding, written) = encode(content, text && is_text(content) && is_plain(content));
    let digest: [u8; 32] = Sha256::digest(content).into();
    let spec = JobOutputSpec {
        job: name.clone(),
        attempt: place.attempt,
        row,
        chunk,
        bytes: i32::try_from(content.len()).unwrap_or(i32::MAX),
        sha256: hex(&digest),
        encoding,
        content: written,
    };
    let labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (PLUGIN_LABEL.to_owned(), job.spec.plugin_ref.name.clone()),
        (JOB_LABEL.to_owned(), name.clone()),
    ]);
    let owner = OwnerReference {
        api_version: Job::api_version(&()).into_owned(),
        kind: Job::kind(&()).into_owned(),
        name: name.clone(),
        uid: job.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    JobOutput {
        metadata: ObjectMeta {
            name: Some(job_output_name(&name, place.attempt, row, chunk)),
            namespace: job.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
    }
}

/// Whether JSON writes the text in less space than base64 would take: control characters take six
/// bytes each, and the limit of an object counts what is written.
fn is_plain(text: &[u8]) -> bool {
    let written: usize = text
        .iter()
        .map(|byte| match byte {
            b'\n' | b'\r' | b'\t' | b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum();
    written <= text.len() / 3 * 4 + 64
}

fn decode(encoding: Encoding, content: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Text => Some(content.as_bytes().to_vec()),
        Encoding::Base64 => STANDARD.decode(content).ok(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": "j", "uid": "u"},
            "spec": {"pluginRef": {"name": "kv"}, "command": {"name": "echo"}},
        }))
        .unwrap()
    }

    const PLACE: Place = Place {
        attempt: 2,
        row: 3,
        chunk: 4,
    };

    #[test]
    fn a_chunk_belongs_to_its_job_and_says_which_it_is() {
        let chunk = object(&job(), PLACE, "añb".as_bytes(), true);
        assert_eq!(chunk.name_any(), "j-2-3-4");
        assert_eq!(
            chunk.metadata.owner_references.as_ref().unwrap()[0].uid,
            "u"
        );
        assert_eq!(chunk.spec.encoding, Encoding::Text);
        assert_eq!((chunk.spec.content.as_str(), chunk.spec.bytes), ("añb", 4));
        let digest: [u8; 32] = Sha256::digest("añb").into();
        assert_eq!(chunk.spec.sha256, hex(&digest));
    }

    #[test]
    fn what_json_would_blow_up_is_written_in_base64() {
        for (content, encoding) in [
            ("line\n".repeat(100), Encoding::Text),
            ("\u{1}".repeat(500), Encoding::Base64),
            ("\"".repeat(500), Encoding::Base64),
        ] {
            let chunk = object(&job(), PLACE, content.as_bytes(), true);
            assert_eq!(chunk.spec.encoding, encoding, "{content:?}");
            let read = decode(chunk.spec.encoding, &chunk.spec.content);
            assert_eq!(read.as_deref(), Some(content.as_bytes()));
        }
    }
}
