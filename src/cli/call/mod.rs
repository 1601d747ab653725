//! `call`: one gRPC method of a plugin, with JSON in and out.
//!
//! The way: a Ready pod, a port-forward to its proxy port, the shapes by reflection (or from a
//! file), the messages from JSON, the call, one line of JSON for each answer.

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

pub(crate) use forward::chain;

use crate::args;
use crate::connect::Connection;
use crate::output::{self, OutputError};
use forward::{Forward, ForwardError};
use http::uri::PathAndQuery;
use message::MessageError;
use metadata::{MetadataError, metadata};
use method::{MethodError, Wanted};
use patchbay_protocol::reflect::{
    DynamicCodec, JsonError, Reflection, ReflectionError, is_machinery, json, messages, written,
};
use pod::PodError;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, MethodDescriptor};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How a call ended that took place.
pub(crate) enum Ended {
    /// Every answer is printed.
    Well,
    /// The plugin, or the way to it, answered with a status; it is printed.
    WithStatus,
}

/// Why nothing was called, or why an answer is not shown.
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
    Output(#[from] OutputError),
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
    #[error("asking the plugin what it serves: no answer within {0:?}")]
    Late(Duration),
    #[error("calling {method}: {source}")]
    Path {
        method: String,
        source: http::uri::InvalidUri,
    },
}

/// The methods on offer.
struct Offer {
    pool: DescriptorPool,
    services: Vec<String>,
}

/// Does what `arguments` ask.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::Call,
) -> Result<Ended, CallError> {
    // Whatever can be refused without the cluster is refused first.
    let wanted = arguments.method.as_deref().map(Wanted::parse).transpose()?;
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

    let (pods, pod) = pod::ready(connection, arguments).await?;
    let forward = Forward::open(pods, &pod).await?;
    let offer = match from_file {
        Some(offer) => offer,
        None => {
            let needed = wanted.as_ref().filter(|_| !arguments.list);
            within(arguments.timeout, reflect(&forward.channel, needed))
                .await
                .unwrap_or(Err(CallError::Late(arguments.timeout)))?
        }
    };
    let Some(wanted) = wanted.filter(|_| !arguments.list) else {
        output::text(&output::clean(&shape::list(&offer.pool, &offer.services)))?;
        return Ok(Ended::Well);
    };
    let method = wanted.choose(&offer.pool, &wanted.services(&offer.services)?)?;
    let messages = messages(&method, values)?;

    let mut print = |line: &str| output::line(line);
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
        Ok(()) => Ok(Ended::Well),
        Err(status) => {
            output::error(&said(&forward, &method, &status).await);
            Ok(Ended::WithStatus)
        }
    }
}

/// What the plugin serves, with the shapes that `wanted` needs, or all of the plugin's own.
async fn reflect(channel: &Channel, wanted: Option<&Wanted>) -> Result<Offer, CallError> {
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
    Ok(Offer { pool, services })
}

fn read_descriptors(path: &Path) -> Result<Offer, CallError> {
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
    Ok(Offer { pool, services })
}

/// Every kind of method is a stream of messages each way; one message is a stream of one.
async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    messages: Vec<DynamicMessage>,
    headers: MetadataMap,
    timeout: Duration,
    print: &mut dyn FnMut(&str) -> Result<(), OutputError>,
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
    let late = || Status::deadline_exceeded(format!("no answer within {timeout:?}"));
    match within(timeout, exchange).await {
        Some(Ok(Err(status))) if status::timed_out_here(&status) => Ok(Err(late())),
        Some(ended) => ended,
        None => Ok(Err(late())),
    }
}

/// Zero waits for ever. `None` when the time is over.
async fn within<T>(timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
    if timeout.is_zero() {
        return Some(work.await);
    }
    tokio::time::timeout(timeout, work).await.ok()
}

async fn said(forward: &Forward, method: &MethodDescriptor, status: &Status) -> String {
    let mut text = format!("calling {}: {}", written(method), status::text(status));
    // Only a status that was made on this side has a source, and then the forward may know more.
    if std::error::Error::source(status).is_some()
        && let Some(words) = forward.trouble().await
    {
        text.push_str(&format!("\nThe port-forward says: {words}"));
    }
    if let Some(hint) = status::hint(status) {
        text.push_str(&format!("\n({hint})"));
    }
    text
}
