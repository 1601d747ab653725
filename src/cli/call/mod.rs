//! `call`: one gRPC method of a plugin, with JSON in and out.
//!
//! Steps: a Ready pod, a port-forward to its proxy port, descriptors by reflection (or from a file),
//! messages from JSON, the call, one line of JSON for each response.

#[cfg(test)]
mod exchange_tests;
mod forward;
mod message;
mod metadata;
mod method;
mod pod;
mod shape;
mod status;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use patchbay_protocol::reflect::{
    DynamicCodec, JsonError, Reflection, ReflectionError, is_machinery, json, messages, written,
};
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::args;
use crate::connect::ClusterClient;
use crate::stdio::{self, StdoutError};
use forward::{Forward, ForwardError};
use message::MessageError;
use metadata::{MetadataError, metadata};
use method::{MethodError, MethodQuery};
use pod::PodError;

pub(crate) enum CallOutcome {
    /// Every response is printed.
    Succeeded,
    /// The call ended with a gRPC status, which is printed.
    Status,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    #[error(transparent)]
    Method(#[from] MethodError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Output(#[from] StdoutError),
    #[error("reading the descriptors {path}: {source}", path = path.display())]
    DescriptorFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("reading the descriptors {path}: {source}\nExpected a FileDescriptorSet: protoc --include_imports --descriptor_set_out=FILE *.proto", path = path.display())]
    Descriptors {
        path: PathBuf,
        source: DescriptorError,
    },
    #[error("reading the services of the plugin by reflection: no response within {0:?}")]
    Timeout(Duration),
    #[error("calling {method}: {source}")]
    Path {
        method: String,
        source: http::uri::InvalidUri,
    },
}

struct ServedMethods {
    pool: DescriptorPool,
    services: Vec<String>,
}

pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::CallArgs,
) -> Result<CallOutcome, CallError> {
    // Check everything that needs no cluster first.
    let wanted = arguments
        .method
        .as_deref()
        .map(MethodQuery::parse)
        .transpose()?;
    let headers = metadata(&arguments.headers)?;
    let text = arguments
        .message
        .as_deref()
        .map(message::text)
        .transpose()?;
    let values = message::values(text.as_deref().unwrap_or_default())?;
    let from_file = arguments
        .descriptors
        .as_deref()
        .map(read_descriptors)
        .transpose()?;

    let (pods, pod) = pod::ready(cluster, arguments).await?;
    let forward = Forward::open(pods, &pod).await?;
    let served = match from_file {
        Some(served) => served,
        None => {
            let needed = wanted.as_ref().filter(|_| !arguments.list);
            within(arguments.timeout, reflect(&forward.channel, needed))
                .await
                .unwrap_or(Err(CallError::Timeout(arguments.timeout)))?
        }
    };
    let Some(wanted) = wanted.filter(|_| !arguments.list) else {
        stdio::text(&stdio::escape_control(&shape::list(
            &served.pool,
            &served.services,
        )))?;
        return Ok(CallOutcome::Succeeded);
    };
    let method = wanted.choose(&served.pool, &wanted.services(&served.services)?)?;
    let messages = messages(&method, values)?;

    let mut print = |line: &str| stdio::line(line);
    match call(
        &forward.channel,
        &method,
        messages,
        headers,
        arguments.timeout,
        &mut print,
    )
    .await?
    {
        Ok(()) => Ok(CallOutcome::Succeeded),
        Err(status) => {
            stdio::error(&status_message(&forward, &method, &status).await);
            Ok(CallOutcome::Status)
        }
    }
}

/// Reads the services of the plugin and the descriptors that `wanted` needs, or all of the plugin's own.
async fn reflect(
    channel: &Channel,
    wanted: Option<&MethodQuery>,
) -> Result<ServedMethods, CallError> {
    let mut reflection = Reflection::open(channel).await?;
    let services = reflection.services.clone();
    let needed = match wanted {
        Some(wanted) => wanted.services(&services)?,
        None => services
            .iter()
            .map(String::as_str)
            .filter(|name| !is_machinery(name))
            .collect(),
    };
    let pool = reflection.descriptors(&needed).await?;
    Ok(ServedMethods { pool, services })
}

fn read_descriptors(path: &Path) -> Result<ServedMethods, CallError> {
    let bytes = std::fs::read(path).map_err(|source| CallError::DescriptorFile {
        path: path.to_owned(),
        source,
    })?;
    let pool =
        DescriptorPool::decode(bytes.as_slice()).map_err(|source| CallError::Descriptors {
            path: path.to_owned(),
            source,
        })?;
    let services = pool
        .services()
        .map(|service| service.full_name().to_owned())
        .collect();
    Ok(ServedMethods { pool, services })
}

/// Calls every kind of method as a bidirectional stream; one message is a stream of one.
async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    messages: Vec<DynamicMessage>,
    headers: MetadataMap,
    timeout: Duration,
    print: &mut dyn FnMut(&str) -> Result<(), StdoutError>,
) -> Result<Result<(), Status>, CallError> {
    let path = PathAndQuery::try_from(format!("/{}", written(method))).map_err(|source| {
        CallError::Path {
            method: written(method),
            source,
        }
    })?;
    let mut request = Request::new(futures::stream::iter(messages));
    *request.metadata_mut() = headers;
    if !timeout.is_zero() {
        request.set_timeout(timeout);
    }
    let exchange = async {
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        if let Err(error) = grpc.ready().await {
            return Ok(Err(Status::from_error(error.into())));
        }
        let mut answers = match grpc
            .streaming(
                request,
                path,
                DynamicCodec {
                    answer: method.output(),
                },
            )
            .await
        {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => print(&json(&answer)?)?,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            }
        }
    };
    let timed_out = || Status::deadline_exceeded(format!("no response within {timeout:?}"));
    match within(timeout, exchange).await {
        Some(Ok(Err(status))) if status::timed_out_here(&status) => Ok(Err(timed_out())),
        Some(ended) => ended,
        None => Ok(Err(timed_out())),
    }
}

/// `None` after the timeout; zero means no limit.
async fn within<T>(timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
    if timeout.is_zero() {
        return Some(work.await);
    }
    tokio::time::timeout(timeout, work).await.ok()
}

async fn status_message(forward: &Forward, method: &MethodDescriptor, status: &Status) -> String {
    let mut text = format!("calling {}: {}", written(method), status::text(status));
    // Only a status that was made on this side has a source; the port-forward may know the cause.
    if std::error::Error::source(status).is_some()
        && let Some(message) = forward.error().await
    {
        text.push_str(&format!("\nThe port-forward failed: {message}"));
    }
    if let Some(hint) = status::hint(status) {
        text.push_str(&format!("\n({hint})"));
    }
    text
}
