//! Reflection and calls against a real gRPC server over a pipe. The service is gRPC's own health
//! service, which has a method with one answer and one with a stream of answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use patchbay_protocol::reflect::{ReflectionError, messages, written};
use prost_reflect::MethodDescriptor;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::ServingStatus;

use super::method::MethodQuery;
use super::{CallError, ServedMethods, call, message, reflect};
use crate::stdio::StdoutError;

const SHORT: Duration = Duration::from_secs(10);

/// Serves `routes` at the other end of a pipe.
async fn serving(routes: Routes) -> Channel {
    let (near, far) = tokio::io::duplex(1 << 20);
    let incoming = futures::stream::once(async move { Ok::<_, std::io::Error>(far) });
    tokio::spawn(async move {
        // A connection that ends is how each test ends.
        let _ = Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming)
            .await;
    });
    let near = Arc::new(Mutex::new(Some(near)));
    let connector = tower::service_fn(move |_| {
        let taken = near.lock().ok().and_then(|mut slot| slot.take());
        async move {
            taken
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("connected twice"))
        }
    });
    Endpoint::from_static("http://plugin")
        .connect_with_connector(connector)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn health() -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("plugin", ServingStatus::Serving)
        .await;
    Routes::new(service)
}

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn with_v1() -> Routes {
    let reflection = descriptors()
        .build_v1()
        .unwrap_or_else(|error| panic!("{error}"));
    health().await.add_service(reflection)
}

async fn with_v1alpha() -> Routes {
    let reflection = descriptors()
        .build_v1alpha()
        .unwrap_or_else(|error| panic!("{error}"));
    health().await.add_service(reflection)
}

fn wanted(text: &str) -> MethodQuery {
    MethodQuery::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

async fn method(channel: &Channel, text: &str) -> MethodDescriptor {
    let wanted = wanted(text);
    let served: ServedMethods = reflect(channel, Some(&wanted))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let services = wanted
        .services(&served.services)
        .unwrap_or_else(|error| panic!("{error}"));
    wanted
        .choose(&served.pool, &services)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The lines that a call prints, and how it ended.
async fn called(
    channel: &Channel,
    text: &str,
    json: &str,
    timeout: Duration,
) -> (Vec<String>, Result<(), Status>) {
    let method = method(channel, text).await;
    let messages = message::values(json)
        .map_err(CallError::from)
        .and_then(|values| Ok(messages(&method, values)?))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut lines = Vec::new();
    let mut print = |line: &str| -> Result<(), StdoutError> {
        lines.push(line.to_owned());
        Ok(())
    };
    let ended = call(
        channel,
        &method,
        messages,
        MetadataMap::new(),
        timeout,
        &mut print,
    )
    .await;
    (lines, ended.unwrap_or_else(|error| panic!("{error}")))
}

#[tokio::test]
async fn call_works_with_either_version_of_reflection() {
    for routes in [with_v1().await, with_v1alpha().await] {
        let channel = serving(routes).await;
        let (lines, ended) = called(
            &channel,
            "grpc.health.v1.Health/Check",
            r#"{"service":"plugin"}"#,
            SHORT,
        )
        .await;
        assert_eq!(lines, [r#"{"status":"SERVING"}"#]);
        assert!(ended.is_ok(), "{ended:?}");
    }
}

#[tokio::test]
async fn call_returns_the_status_of_the_plugin() -> Result<(), Infallible> {
    let channel = serving(with_v1().await).await;
    let (lines, ended) = called(&channel, "Health/Check", r#"{"service":"nobody"}"#, SHORT).await;
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(ended.map_err(|status| status.code()), Err(Code::NotFound));
    Ok(())
}

#[tokio::test]
async fn stream_prints_each_response_and_ends_at_the_deadline() {
    let channel = serving(with_v1().await).await;
    let (lines, ended) = called(
        &channel,
        "Health/Watch",
        r#"{"service":"plugin"}"#,
        Duration::from_millis(300),
    )
    .await;
    assert_eq!(lines, [r#"{"status":"SERVING"}"#]);
    assert_eq!(
        ended.map_err(|status| status.code()),
        Err(Code::DeadlineExceeded)
    );
}

#[tokio::test]
async fn call_says_when_the_plugin_has_no_reflection() {
    let channel = serving(health().await).await;
    let refused = reflect(&channel, Some(&wanted("Get"))).await.err();
    assert!(
        matches!(
            refused,
            Some(CallError::Reflection(ReflectionError::NotServed))
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn method_name_is_written_in_full() {
    let channel = serving(with_v1().await).await;
    assert_eq!(
        written(&method(&channel, "Health/Watch").await),
        "grpc.health.v1.Health/Watch"
    );
}
