//! Calls of jobs, against a real gRPC server over a pipe. The services are gRPC's own health and
//! reflection: a method with one answer, one with an endless stream, one with a stream that ends.

use crate::family::pcp::jobs_api_tests::{Harness, grant};
use crate::instance::tests::config as go_plugin_config;
use crate::jobs::claims::entry::RowEnd;
use crate::jobs::lock;
use hyper_util::rt::TokioIo;
use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{Cancel, ClaimName};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::transport::{Endpoint, Server};

const PLUGIN: StartId = StartId(5);

/// Serves `routes` at the other end of a pipe, until the sender is dropped.
async fn serving(routes: Routes) -> (Channel, oneshot::Sender<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = futures::stream::once(async move { Ok::<_, std::io::Error>(far) });
    tokio::spawn(async move {
        let serve = Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming);
        tokio::select! {
            _ = serve => {}
            _ = stopped => {}
        }
    });
    let near = Arc::new(Mutex::new(Some(near)));
    let connector = crate::session::tests::tower_service_fn(move |_| {
        let taken = lock(&near).take();
        async move {
            taken
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("connected twice"))
        }
    });
    let channel = Endpoint::from_static("http://plugin")
        .connect_with_connector(connector)
        .await
        .unwrap();
    (channel, stop)
}

async fn health() -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("plugin", tonic_health::ServingStatus::Serving)
        .await;
    Routes::new(service)
}

async fn reflected() -> Routes {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    health().await.add_service(reflection)
}

struct Calling {
    harness: Harness,
    channel: Channel,
    _stop: oneshot::Sender<()>,
}

async fn calling(routes: Routes, per_pod: u32) -> Calling {
    let mut config = go_plugin_config(1);
    config.jobs.per_pod = per_pod;
    let harness = Harness::bare(&config);
    let (channel, stop) = serving(routes).await;
    harness.jobs.plugin_serves(PLUGIN, Some(channel.clone()));
    Calling {
        harness,
        channel,
        _stop: stop,
    }
}

impl Calling {
    /// A job that makes this call.
    async fn job(&mut self, call: Value, deadline_ms: u64) -> ClaimName {
        let work_request = self.harness.work_request().await;
        assert_eq!(work_request.wait_ms, 0);
        let claim = ClaimName {
            job_uid: format!("uid-{}", &work_request.claim_id[..8]),
            claim_id: work_request.claim_id,
        };
        let mut granted = grant(&claim, 1_000_000);
        let spec = json!({"pluginRef": {"name": "kv"}, "call": call});
        granted.spec_json = spec.to_string().into_bytes();
        granted.active_deadline_ms = deadline_ms;
        self.harness.operator_message(Down::Grant(granted));
        claim
    }

    /// The next row, stored.
    async fn row(&mut self) -> (String, RowEnd) {
        let row = self.harness.row().await;
        let content = String::from_utf8(self.harness.content(&row)).unwrap();
        let claim = ClaimName {
            claim_id: row.claim.to_string(),
            job_uid: row.job_uid.clone(),
        };
        let phase = match &row.row.end {
            RowEnd::More => None,
            RowEnd::Succeeded => Some("Succeeded"),
            RowEnd::Failed { .. } => Some("Failed"),
        };
        self.harness.stored(&claim, row.row.number, phase);
        (content, row.row.end)
    }

    async fn failure(&mut self) -> String {
        match self.row().await {
            (content, RowEnd::Failed { reason, message }) => {
                assert_eq!(content, "");
                format!("{reason}: {message}")
            }
            other => panic!("{other:?}"),
        }
    }
}

fn check(service: &str) -> Value {
    json!({"service": "grpc.health.v1.Health", "method": "Check", "request": {"service": service}})
}

#[tokio::test]
async fn one_answer_is_one_row_and_the_place_is_free_again() {
    let mut calling = calling(reflected().await, 1).await;
    for _ in 0..3 {
        let claim = calling.job(check("plugin"), 0).await;
        match calling.harness.up().await {
            Up::Started(started) => assert_eq!(started.claim, Some(claim)),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            calling.row().await,
            (r#"{"status":"SERVING"}"#.to_owned(), RowEnd::Succeeded)
        );
    }
    calling.harness.jobs.leave();
    calling.harness.jobs.calls_done().await;
}

#[tokio::test]
async fn a_stream_that_ends_is_as_many_rows() {
    let mut calling = calling(reflected().await, 1).await;
    let call = json!({
        "service": "grpc.reflection.v1.ServerReflection", "method": "ServerReflectionInfo",
        "request": {"listServices": ""},
    });
    calling.job(call, 0).await;
    let (content, end) = calling.row().await;
    assert!(content.contains("grpc.health.v1.Health"), "{content}");
    if end == RowEnd::More {
        // A busy machine: the end came later than the row.
        assert_eq!(calling.row().await, (String::new(), RowEnd::Succeeded));
    } else {
        assert_eq!(end, RowEnd::Succeeded);
    }
}

#[tokio::test]
async fn an_endless_stream_shows_its_rows_and_ends_with_the_deadline() {
    let mut calling = calling(reflected().await, 1).await;
    let watch = json!({
        "service": "grpc.health.v1.Health", "method": "Watch", "request": {"service": "plugin"},
    });
    calling.job(watch, 1500).await;
    assert_eq!(
        calling.row().await,
        (r#"{"status":"SERVING"}"#.to_owned(), RowEnd::More)
    );
    assert_eq!(
        calling.failure().await,
        "DeadlineExceeded: the call did not end within 1.5 s"
    );
}

#[tokio::test]
async fn a_cancelled_call_is_given_up() {
    let mut calling = calling(reflected().await, 1).await;
    let watch = json!({
        "service": "grpc.health.v1.Health", "method": "Watch", "request": {"service": "plugin"},
    });
    let claim = calling.job(watch, 0).await;
    assert_eq!(calling.row().await.1, RowEnd::More);
    calling.harness.operator_message(Down::Cancel(Cancel {
        claim: Some(claim.clone()),
        reason: "Cancelled".into(),
    }));
    // The place is free: another job is asked for.
    calling.job(check("plugin"), 0).await;
    assert_eq!(calling.row().await.1, RowEnd::Succeeded);
    let known = calling.harness.jobs.with(|driver| {
        driver
            .machine()
            .of_job(&claim.job_uid)
            .and_then(|entry| entry.pcp_status())
    });
    assert_eq!(known, Some("Error"));
}

#[tokio::test]
async fn plugin_error_is_reported_with_code_and_message() {
    let mut calling = calling(reflected().await, 1).await;
    calling.job(check("nobody"), 0).await;
    assert_eq!(
        calling.failure().await,
        "CallFailed: NotFound (5): service not registered"
    );
}

#[tokio::test]
async fn what_does_not_fit_is_named_with_what_exists() {
    let mut calling = calling(reflected().await, 1).await;
    for (call, expected) in [
        (
            json!({"service": "demo.KV", "method": "Get"}),
            "UnknownCommand: the plugin serves no service \"demo.KV\" that a Job may call; it serves none",
        ),
        (
            json!({"service": "plugin.GRPCController", "method": "Shutdown"}),
            "UnknownCommand: the plugin serves no service \"plugin.GRPCController\" that a Job may call; it serves none",
        ),
        (
            json!({"service": "grpc.health.v1.Health", "method": "check"}),
            "UnknownCommand: the service grpc.health.v1.Health has no method \"check\"; it has \"Check\", ",
        ),
        (
            json!({"service": "grpc.health.v1.Health", "method": "Check", "request": {"servise": "x"}}),
            "BadInputs: reading the message as grpc.health.v1.HealthCheckRequest: ",
        ),
    ] {
        calling.job(call, 0).await;
        let failure = calling.failure().await;
        assert!(failure.starts_with(expected), "{failure}");
    }
    let work_request = calling.harness.work_request().await;
    let claim = ClaimName {
        claim_id: work_request.claim_id,
        job_uid: "uid-c".to_owned(),
    };
    calling
        .harness
        .operator_message(Down::Grant(grant(&claim, 1000)));
    assert!(
        calling
            .failure()
            .await
            .starts_with("UnknownCommand: the Job has no call")
    );
}

#[tokio::test]
async fn plugin_without_reflection_has_its_own_error() {
    let mut calling = calling(health().await, 1).await;
    calling.job(check("plugin"), 0).await;
    assert!(
        calling
            .failure()
            .await
            .starts_with("UnknownCommand: the plugin does not offer gRPC reflection")
    );
}

#[tokio::test]
async fn work_is_requested_only_for_a_ready_plugin_and_lost_with_its_process() {
    let mut calling = calling(reflected().await, 2).await;
    let watch = json!({
        "service": "grpc.health.v1.Health", "method": "Watch", "request": {"service": "plugin"},
    });
    calling.job(watch, 0).await;
    assert_eq!(calling.row().await.1, RowEnd::More);
    calling.harness.jobs.plugin_serves(PLUGIN, None);
    loop {
        if let Up::CancelRequest(_) = calling.harness.up().await {
            break;
        }
    }
    // What is under way goes on.
    assert_eq!(
        calling.harness.jobs.with(|driver| driver.machine().calls()),
        1
    );
    calling
        .harness
        .jobs
        .plugin_ended(PLUGIN, Some(Exit::Code(4)));
    match calling.harness.up().await {
        Up::Lost(lost) => assert!(lost.message.contains("exit code 4"), "{}", lost.message),
        other => panic!("{other:?}"),
    }
    calling.harness.jobs.calls_done().await;
    drop(calling.channel);
}
