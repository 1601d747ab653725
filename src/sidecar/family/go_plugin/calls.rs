//! Jobs of a gRPC plugin: the sidecar finds the method by the plugin's own reflection, sends the
//! request, and keeps each answer as a row.

use std::time::Duration;

use http::uri::PathAndQuery;
use patchbay_protocol::escape::printable;
use patchbay_protocol::reflect::{
    DynamicCodec, Reflection, ReflectionError, is_machinery, json, messages, said, written,
};
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::family::pcp::commands::listed;
use crate::family::pcp::job::{Call, Spec, Unfit};
use crate::jobs::Jobs;
use crate::jobs::claim_driver::unfit_event;
use crate::jobs::claims::entry::{Entry, RowEnd};
use crate::jobs::claims::event::{ClaimId, Event, RowAnswer, RowId, RowOwner};
use crate::jobs::rows::{self, Begun, RowError};
use crate::random;

/// Limit of learning the method's shape.
const REFLECT: Duration = Duration::from_secs(30);
/// Limit of a call without a deadline of its own: about a year.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 3600);
/// Largest answer in bytes: as much as a Job's output may have.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// A broken connection waits so long for the news that the process behind it is gone.
const NEWS: Duration = Duration::from_secs(2);
/// The last answer of a stream is the last row, if the end follows within this time. A row that
/// waited longer goes out as one of several.
const END: Duration = Duration::from_millis(250);
/// Pause before a row that was not taken is given again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest text that is shown with a failure, in bytes.
const SHOWN: usize = 1024;

/// How a call ended other than well.
enum Failure {
    /// The job does not fit the plugin.
    Unfit(Unfit),
    /// The plugin, or the way to it, answered with a status.
    Status(Status),
    /// Another reason, with its word.
    Other(&'static str, String),
    /// Its output is not wanted any more.
    Over,
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Failure {
        Failure::Unfit(unfit)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(status)
    }
}

/// Makes the call of a claim, from its delivery to its end.
pub(crate) async fn run(jobs: &Jobs, channel: Channel, entry: Entry) {
    let claim = entry.claim;
    let limit = match entry.active_deadline_ms {
        0 => FOREVER,
        millis => Duration::from_millis(millis).min(FOREVER),
    };
    let deadline = Instant::now() + limit;
    let called = timeout_at(deadline, call(jobs, channel, &entry, deadline)).await;
    let late = || {
        Failure::Other(
            "DeadlineExceeded",
            format!("the call did not end within {} s", limit.as_secs_f64()),
        )
    };
    let failure = match called {
        Ok(Ok(())) | Ok(Err(Failure::Over)) => return,
        Ok(Err(Failure::Status(_))) if Instant::now() >= deadline => late(),
        Ok(Err(failure)) => failure,
        Err(_) => late(),
    };
    let (reason, message) = match failure {
        Failure::Unfit(unfit) => return jobs.handle(unfit_event(claim, unfit)),
        Failure::Status(status) => {
            if std::error::Error::source(&status).is_some() || status.code() == Code::Unavailable {
                // A process that has ended says more than its connection. Its news ends this task.
                tokio::time::sleep(NEWS).await;
            }
            ("CallFailed", said(&status))
        }
        Failure::Other(reason, message) => (reason, message),
        Failure::Over => return,
    };
    let end = RowEnd::Failed {
        reason: reason.to_owned(),
        message: printable(message.as_bytes(), SHOWN),
    };
    give(jobs, claim, "", end).await;
}

async fn call(
    jobs: &Jobs,
    channel: Channel,
    entry: &Entry,
    deadline: Instant,
) -> Result<(), Failure> {
    let spec = Spec::read(entry.spec.as_deref().unwrap_or_default())?;
    let Some(call) = spec.call else {
        return Err(Failure::Unfit(Unfit {
            reason: "UnknownCommand",
            message: "the Job has no call; expected one, because its plugin speaks gRPC".to_owned(),
        }));
    };
    let method = timeout(REFLECT, find(&channel, &call))
        .await
        .unwrap_or_else(|_| {
            let message = format!("the plugin did not describe its methods within {REFLECT:?}");
            Err(Failure::Other("CallFailed", message))
        })?;
    let request = messages(&method, vec![Value::Object(call.request)]).map_err(|error| Unfit {
        reason: "BadInputs",
        message: error.to_string(),
    })?;
    exchange(jobs, channel, entry.claim, &method, request, deadline).await
}

/// The method, by its exact names.
async fn find(channel: &Channel, call: &Call) -> Result<MethodDescriptor, Failure> {
    let mut reflection = Reflection::open(channel).await.map_err(unknown)?;
    let services = reflection.services.clone();
    // go-plugin's own services are the sidecar's to call: one of them ends the plugin.
    let callable = !call.service.starts_with("plugin.");
    if !callable || !services.contains(&call.service) {
        let own = services.iter().map(String::as_str);
        return Err(Failure::Unfit(Unfit {
            reason: "UnknownCommand",
            message: format!(
                "the plugin serves no service \"{}\" that a Job may call; it serves {}",
                printable(call.service.as_bytes(), 256),
                listed(own.filter(|name| !is_machinery(name)))
            ),
        }));
    }
    let pool = reflection
        .descriptors(&[call.service.as_str()])
        .await
        .map_err(unknown)?;
    let service = pool.get_service_by_name(&call.service);
    let methods: Vec<MethodDescriptor> = service
        .iter()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    let found = methods.iter().find(|method| method.name() == call.method);
    found.cloned().ok_or_else(|| {
        Failure::Unfit(Unfit {
            reason: "UnknownCommand",
            message: format!(
                "the service {} has no method \"{}\"; it has {}",
                printable(call.service.as_bytes(), 256),
                printable(call.method.as_bytes(), 256),
                listed(methods.iter().map(MethodDescriptor::name))
            ),
        })
    })
}

fn unknown(error: ReflectionError) -> Failure {
    match error {
        ReflectionError::NotServed => Failure::Unfit(Unfit {
            reason: "UnknownCommand",
            message: "the plugin does not offer gRPC reflection, without which no Job can call it"
                .to_owned(),
        }),
        ReflectionError::Call(status) => Failure::Status(*status),
        other => Failure::Other("CallFailed", other.to_string()),
    }
}

/// Every kind of method is a stream of messages each way; one message is a stream of one.
async fn exchange(
    jobs: &Jobs,
    channel: Channel,
    claim: ClaimId,
    method: &MethodDescriptor,
    request: Vec<DynamicMessage>,
    deadline: Instant,
) -> Result<(), Failure> {
    let path = PathAndQuery::try_from(format!("/{}", written(method)))
        .map_err(|error| Failure::Other("CallFailed", error.to_string()))?;
    let mut request = Request::new(futures::stream::iter(request));
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    jobs.handle(Event::CallSent(claim));
    let codec = DynamicCodec {
        answer: method.output(),
    };
    let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
    let mut held: Option<String> = None;
    loop {
        let next = match &held {
            Some(_) => timeout(END, answers.message()).await.ok(),
            None => Some(answers.message().await),
        };
        match next {
            // The stream pauses: what is there is shown.
            None => give_on(jobs, claim, held.take()).await?,
            Some(Ok(Some(answer))) => {
                give_on(jobs, claim, held.take()).await?;
                let line = json(&answer)
                    .map_err(|error| Failure::Other("CallFailed", error.to_string()))?;
                held = Some(line);
            }
            Some(Ok(None)) => {
                let last = held.take().unwrap_or_default();
                give(jobs, claim, &last, RowEnd::Succeeded).await;
                return Ok(());
            }
            Some(Err(status)) => {
                give_on(jobs, claim, held.take()).await?;
                return Err(status.into());
            }
        }
    }
}

async fn give_on(jobs: &Jobs, claim: ClaimId, row: Option<String>) -> Result<(), Failure> {
    let Some(row) = row else { return Ok(()) };
    match give(jobs, claim, &row, RowEnd::More).await {
        RowAnswer::Kept { .. } => Ok(()),
        RowAnswer::Dropped | RowAnswer::TooLarge => Err(Failure::Over),
    }
}

/// Gives a row until it is taken.
async fn give(jobs: &Jobs, claim: ClaimId, row: &str, end: RowEnd) -> RowAnswer {
    let id = RowId(random::wide());
    loop {
        match offer(jobs, claim, id, row, end.clone()).await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%error, %claim, "an answer cannot be kept yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn offer(
    jobs: &Jobs,
    claim: ClaimId,
    id: RowId,
    row: &str,
    end: RowEnd,
) -> Result<RowAnswer, RowError> {
    let whose = RowOwner::Claim(claim);
    match rows::begin(jobs, &whose, id).await? {
        Begun::Answered(answer) => Ok(answer),
        Begun::Writing(mut writing) => {
            writing.push(row.as_bytes()).await?;
            rows::end(jobs, &whose, id, writing, true, end)
        }
    }
}
