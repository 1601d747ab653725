//! The jobs socket with a real server and real connections; the operator is the test.

use super::jobs_api;
use crate::instance::tests::pcp_config;
use crate::jobs::{Jobs, OpenedSession, Translate, claims};
use crate::paths::Root;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{Cancel, ClaimName, Grant, NoWork, RowStored};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(30);
const PLUGIN: StartId = StartId(5);

pub(crate) fn config() -> PodConfig {
    pcp_config(1, 10_000)
}

pub(crate) fn grant(claim: &ClaimName, output_max_bytes: u64) -> Grant {
    let spec = json!({
        "pluginRef": {"name": "sample"},
        "command": {"name": "wget", "inputs": [{"name": "Target IP Address", "value": "u"}]},
        "target": {"client": "10.1.2.3"},
    });
    Grant {
        claim: Some(claim.clone()),
        job: format!("job-{}", claim.job_uid),
        spec_json: spec.to_string().into_bytes(),
        remaining_ms: 0,
        waited_ms: 0,
        attempt: 1,
        active_deadline_ms: 0,
        output_max_bytes,
        start_time: "2026-11-22T17:07:09.000000Z".to_owned(),
    }
}

/// One exchange on a connection of its own.
pub(crate) async fn call(
    path: PathBuf,
    method: &str,
    target: &str,
    body: Vec<u8>,
) -> (u16, Vec<u8>) {
    let exchange = async {
        let stream = UnixStream::connect(path).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "sidecar")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, body.to_vec())
    };
    tokio::time::timeout(SOON, exchange).await.unwrap()
}

async fn json_call(path: PathBuf, method: &str, target: &str, body: Value) -> (u16, Value) {
    let body = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let (status, answer) = call(path, method, target, body).await;
    (
        status,
        serde_json::from_slice(&answer).unwrap_or(Value::Null),
    )
}

pub(crate) async fn introduce(path: PathBuf) {
    let body = super::commands::tests::start(json!([super::commands::tests::wget()]));
    let (status, answer) = call(path, "POST", "/v1/start", body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
}

fn wanted(id: u128, location: Value) -> Value {
    json!({"id": format!("{id:032x}"), "location": location, "port": null})
}

async fn ask_once(path: PathBuf, id: u128) -> (u16, Value) {
    json_call(path, "POST", "/v1/request", wanted(id, Value::Null)).await
}

/// Asks with one id until there is a job, for a while.
pub(crate) async fn request(path: PathBuf, id: u128) -> Option<Value> {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        match ask_once(path.clone(), id).await {
            (200, job) => return Some(job),
            (204, _) => {}
            other => panic!("{other:?}"),
        }
    }
    None
}

pub(crate) async fn output(
    path: PathBuf,
    uid: &str,
    row: u128,
    last: bool,
    body: Vec<u8>,
) -> Value {
    let target = format!("/v1/output?job={uid}&row={row:032x}&final={last}&kind=text");
    let (status, answer) = call(path, "POST", &target, body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

/// A sidecar's jobs, with the test as their operator.
pub(crate) struct Harness {
    _folder: tempfile::TempDir,
    pub(crate) root: Root,
    pub(crate) jobs: Jobs,
    pub(crate) session: u64,
    pub(crate) opened: OpenedSession,
}

impl Harness {
    /// Not introduced yet.
    pub(crate) fn bare(config: &PodConfig) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        std::fs::create_dir(root.run()).unwrap();
        let jobs = Jobs::start(&root).unwrap();
        jobs.configure(config);
        jobs.plugin_started(PLUGIN);
        let opened = jobs.open_session(1, true);
        Harness {
            _folder: folder,
            root,
            jobs,
            session: 1,
            opened,
        }
    }

    async fn new() -> Harness {
        let harness = Harness::bare(&config());
        introduce(harness.path()).await;
        harness
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.jobs_socket()
    }

    /// The sidecar's process dies and the next one begins.
    fn restart(&mut self) {
        self.jobs = Jobs::start(&self.root).unwrap();
        self.jobs.configure(&config());
        self.jobs.plugin_started(PLUGIN);
        self.session += 1;
        self.opened = self.jobs.open_session(self.session, true);
    }

    pub(crate) async fn up(&mut self) -> Up {
        let message = self.opened.messages.recv();
        tokio::time::timeout(SOON, message).await.unwrap().unwrap()
    }

    pub(crate) async fn work_request(&mut self) -> patchbay_protocol::session::WorkRequest {
        loop {
            if let Up::WorkRequest(work_request) = self.up().await {
                return work_request;
            }
        }
    }

    pub(crate) async fn row(&mut self) -> claims::event::SendRow {
        let row = self.opened.rows.recv();
        tokio::time::timeout(SOON, row).await.unwrap().unwrap()
    }

    pub(crate) fn operator_message(&self, message: Down) {
        self.jobs.handle_operator_message(self.session, message);
    }

    pub(crate) fn stored(&self, claim: &ClaimName, row: u32, phase: Option<&str>) {
        self.operator_message(Down::RowStored(RowStored {
            claim: Some(claim.clone()),
            row,
            settled: phase.is_some(),
            phase: phase.unwrap_or("Running").to_owned(),
        }));
    }

    /// A job in the plugin's hands.
    async fn delivered(&mut self, uid: &str) -> ClaimName {
        let id = uid.bytes().fold(1, |sum, byte| sum * 31 + u128::from(byte));
        let asking = tokio::spawn(request(self.path(), id));
        let work_request = self.work_request().await;
        let claim = ClaimName {
            claim_id: work_request.claim_id,
            job_uid: uid.to_owned(),
        };
        self.operator_message(Down::Grant(grant(&claim, 1000)));
        assert_eq!(asking.await.unwrap().unwrap()["id"], uid);
        claim
    }

    async fn set_status(&self, uid: &str) -> (u16, Value) {
        let (status, answer) = json_call(
            self.path(),
            "GET",
            &format!("/v1/status?job={uid}"),
            Value::Null,
        )
        .await;
        (status, answer["status"].clone())
    }

    pub(crate) fn content(&self, row: &claims::event::SendRow) -> Vec<u8> {
        match row.row.spool {
            Some(token) => {
                let length = usize::try_from(row.row.bytes).unwrap();
                self.jobs.spool().piece(token, 0, length).unwrap()
            }
            None => Vec::new(),
        }
    }
}

#[tokio::test]
async fn the_introduction_is_the_handshake_and_outlives_the_sidecar() {
    let mut harness = Harness::bare(&config());
    let mode = std::fs::metadata(harness.path()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o660);
    assert_eq!(
        json_call(harness.path(), "GET", "/v1/health", Value::Null)
            .await
            .0,
        200
    );
    let mut greetings = harness.jobs.greetings();
    assert!(greetings.borrow_and_update().is_none());
    let (status, answer) = ask_once(harness.path(), 1).await;
    assert_eq!(
        (status, answer["error"].as_str()),
        (409, Some("call /v1/start first"))
    );
    let broken = super::commands::tests::start(json!([{"CommandName": 1}]));
    let (status, answer) = call(harness.path(), "POST", "/v1/start", broken).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&answer).contains("CommandName of command 0 is a number"));

    introduce(harness.path()).await;
    let greeting = greetings.borrow_and_update().clone().unwrap();
    assert_eq!(
        (greeting.start_id, &*greeting.commands[0].name),
        (PLUGIN, "wget")
    );
    harness.restart();
    assert_eq!(*harness.jobs.greetings().borrow(), Some(greeting));
    // Another process has to say it itself.
    harness.jobs.plugin_started(StartId(6));
    assert_eq!(*harness.jobs.greetings().borrow(), None);
}

#[tokio::test]
async fn request_is_deferred_before_the_process_is_known() {
    let harness = Harness::bare(&config());
    harness.jobs.plugin_ended(PLUGIN, None);
    let body = super::commands::tests::start(json!([]));
    assert_eq!(call(harness.path(), "POST", "/v1/start", body).await.0, 503);
    assert_eq!(ask_once(harness.path(), 1).await.0, 503);
}

#[tokio::test]
async fn work_request_is_canonical_and_its_job_is_delivered() {
    let mut harness = Harness::new().await;
    struct Workers;
    impl Translate for Workers {
        fn real(&self, local: &str) -> Option<String> {
            (local == "127.0.3.7").then(|| "2001:db8::7".to_owned())
        }
    }
    harness.jobs.translate_with(Arc::new(Workers));
    for (location, port, expected) in [
        (json!("::ffff:10.1.2.3"), json!("10000"), Some("10.1.2.3")),
        (json!("127.0.3.7"), json!(10000), Some("2001:db8::7")),
        (json!("127.0.3.8"), json!("10000"), Some("127.0.3.8")),
        (json!("Host.EXAMPLE"), json!("10000"), Some("host.example")),
        (Value::Null, json!("10000"), None),
    ] {
        let body =
            json!({"id": format!("{:032x}", harness.session), "location": location, "port": port});
        let asking = tokio::spawn(json_call(harness.path(), "POST", "/v1/request", body));
        let work_request = harness.work_request().await;
        assert_eq!(work_request.client.as_deref(), expected);
        assert_eq!(work_request.port.as_deref(), Some("10000"));
        harness.operator_message(Down::NoWork(NoWork {
            claim_id: work_request.claim_id,
        }));
        assert_eq!(asking.await.unwrap().0, 204);
    }
    for wrong in [
        json!({"location": null}),
        json!({"id": "zz", "location": null}),
        json!({"id": format!("{:032x}", 1), "location": 7}),
        json!({"id": format!("{:032x}", 1), "location": ["10.1.2.3", 5]}),
        json!({"id": format!("{:032x}", 1), "location": "x".repeat(300)}),
        json!({"id": format!("{:032x}", 1), "location": null, "port": true}),
        json!([]),
    ] {
        let (status, answer) =
            json_call(harness.path(), "POST", "/v1/request", wrong.clone()).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(answer["error"].is_string());
    }
    harness.delivered("uid-1").await;
    assert_eq!(harness.set_status("uid-1").await, (200, json!("Pending")));
    assert_eq!(harness.set_status("uid-2").await, (404, Value::Null));
}

#[tokio::test]
async fn request_is_answered_within_a_second_without_an_operator() {
    let harness = Harness::new().await;
    harness.jobs.close_session(1);
    for id in 1..4 {
        let began = Instant::now();
        assert_eq!(ask_once(harness.path(), id).await.0, 204);
        // Generous to a busy machine; the claim machine's own tests have the exact times.
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn pcp_25_output_keeps_its_bytes_and_its_kind() {
    let mut harness = Harness::new().await;
    for (uid, kind, body) in [
        ("uid-1", "text", &b"42.42"[..]),
        ("uid-2", "text", b"True"),
        ("uid-3", "bytes", b"\x00\xff"),
        ("uid-4", "text", b""),
    ] {
        harness.delivered(uid).await;
        let target = format!("/v1/output?job={uid}&row={:032x}&final=true&kind={kind}", 1);
        let (status, answer) = call(harness.path(), "POST", &target, body.to_vec()).await;
        assert_eq!(status, 200);
        assert_eq!(answer, br#"{"late":false,"row":1}"#);
        let row = harness.row().await;
        assert_eq!(harness.content(&row), body);
        assert_eq!(
            (row.row.text, &row.row.end),
            (kind == "text", &claims::entry::RowEnd::Succeeded)
        );
        assert_eq!(harness.set_status(uid).await.1, json!("Done"));
        let claim = ClaimName {
            claim_id: row.claim.to_string(),
            job_uid: uid.to_owned(),
        };
        harness.stored(&claim, 1, Some("Succeeded"));
    }
}

#[tokio::test]
async fn pcp_26_what_is_no_output_changes_nothing() {
    let mut harness = Harness::new().await;
    harness.delivered("uid-1").await;
    let row = format!("{:032x}", 1);
    for target in [
        "/v1/output".to_owned(),
        format!("/v1/output?row={row}&final=true&kind=text"),
        "/v1/output?job=uid-1&row=1&final=true&kind=text".to_owned(),
        format!("/v1/output?job=uid-1&row={row}&final=maybe&kind=text"),
        format!("/v1/output?job=uid-1&row={row}&final=true&kind=dict"),
        format!("/v1/output?job=uid-1&row={row}&final=true"),
        "/v1/error?job=uid-1".to_owned(),
    ] {
        let (status, answer) = json_call(harness.path(), "POST", &target, Value::Null).await;
        assert_eq!(status, 400, "{target}");
        assert!(answer["error"].is_string(), "{target}");
    }
    assert_eq!(harness.set_status("uid-1").await.1, json!("Pending"));
}

#[tokio::test]
async fn pcp_29_an_error_of_the_plugin_fails_the_job_with_its_text() {
    let mut harness = Harness::new().await;
    let claim = harness.delivered("uid-1").await;
    let target = format!("/v1/error?job=uid-1&row={:032x}", 1);
    let (status, _) = call(harness.path(), "POST", &target, b"x\n".to_vec()).await;
    assert_eq!(status, 200);
    let row = harness.row().await;
    assert_eq!(harness.content(&row), b"x\n");
    assert_eq!(
        row.row.end,
        claims::entry::RowEnd::Failed {
            reason: "PluginError".into(),
            message: "x\\n".into()
        }
    );
    assert_eq!(harness.set_status("uid-1").await.1, json!("Error"));
    // Case 30: the answer after it is late and changes nothing.
    let answer = output(harness.path(), "uid-1", 2, true, b"late".to_vec()).await;
    assert_eq!(answer, json!({"row": 2, "late": true}));
    harness.stored(&claim, 1, Some("Failed"));
    assert_eq!(harness.set_status("uid-1").await.1, json!("Error"));
    assert_eq!(harness.row().await.row.end, claims::entry::RowEnd::More);
}

#[tokio::test]
async fn pcp_23_a_sidecar_that_dies_mid_job_loses_and_doubles_nothing() {
    let mut harness = Harness::new().await;
    let claim = harness.delivered("uid-1").await;
    output(harness.path(), "uid-1", 1, false, b"one".to_vec()).await;
    harness.row().await;
    output(harness.path(), "uid-1", 2, true, b"two".to_vec()).await;
    // Killed before the plugin heard that the second row is kept, and before any was stored.
    harness.restart();
    assert_eq!(harness.opened.ledger.len(), 1);
    assert_eq!(harness.opened.ledger[0].claim.as_ref(), Some(&claim));
    let again = output(harness.path(), "uid-1", 2, true, b"two".to_vec()).await;
    assert_eq!(again, json!({"row": 2, "late": false}));
    for (number, content) in [(1, &b"one"[..]), (2, b"two")] {
        let row = harness.row().await;
        assert_eq!((row.row.number, &*harness.content(&row)), (number, content));
    }
    harness.stored(&claim, 1, None);
    harness.stored(&claim, 2, Some("Succeeded"));
    assert!(harness.opened.rows.try_recv().is_err());
    harness.restart();
    assert!(harness.opened.ledger.is_empty());
    // An answer now is told that nobody waits.
    let answer = output(harness.path(), "uid-1", 3, true, b"x".to_vec()).await;
    assert_eq!(answer, json!({"dropped": true}));
}

#[tokio::test]
async fn output_is_cut_at_the_limit_and_its_digest_is_of_all() {
    let mut harness = Harness::new().await;
    harness.delivered("uid-1").await;
    let answer = output(harness.path(), "uid-1", 1, false, vec![b'a'; 600]).await;
    assert_eq!(answer["row"], 1);
    harness.row().await;
    let answer = output(harness.path(), "uid-1", 2, true, vec![b'a'; 100_000]).await;
    assert_eq!(answer, json!({"tooLarge": true}));
    let row = harness.row().await.row;
    assert_eq!(row.bytes, 400);
    let (bytes, sha256) = row.whole.unwrap();
    assert_eq!(bytes, 100_600);
    // head -c 100600 /dev/zero | tr '\0' a | sha256sum
    assert_eq!(
        sha256,
        "e7a131bf74bb611e3afe1daefad55e9a326e81fd05bee7d91d772ed9e981d5d7"
    );
    assert!(
        matches!(row.end, claims::entry::RowEnd::Failed { reason, .. } if reason == "OutputTooLarge")
    );
}

#[tokio::test]
async fn states_are_read_and_written() {
    let mut harness = Harness::new().await;
    harness.delivered("uid-1").await;
    let set = async |harness: &Harness, uid: &str, word: &str| {
        let (status, answer) = json_call(
            harness.path(),
            "POST",
            &format!("/v1/status?job={uid}"),
            json!({"status": word}),
        )
        .await;
        (status, answer["status"].clone())
    };
    assert_eq!(
        set(&harness, "uid-1", "Active").await,
        (200, json!("Active"))
    );
    assert!(matches!(harness.up().await, Up::Started(_)));
    // Noted, and nothing else.
    assert_eq!(
        set(&harness, "uid-1", "Waiting").await,
        (200, json!("Active"))
    );
    assert_eq!(set(&harness, "uid-1", "Sleeping").await.0, 400);
    assert_eq!(set(&harness, "uid-9", "Active").await.0, 404);
    assert_eq!(set(&harness, "uid-9", "Done").await.0, 404);
    assert_eq!(set(&harness, "uid-1", "Done").await, (200, json!("Done")));
    assert_eq!(set(&harness, "uid-1", "Done").await, (200, json!("Done")));
    let row = harness.row().await.row;
    assert_eq!((row.bytes, row.end), (0, claims::entry::RowEnd::Succeeded));
    assert!(harness.opened.rows.try_recv().is_err());
    harness.delivered("uid-2").await;
    assert_eq!(set(&harness, "uid-2", "Error").await, (200, json!("Error")));
}

#[tokio::test]
async fn telemetry_and_tracker_are_kept() {
    let mut harness = Harness::new().await;
    let told = json!({"name": "SamplePlugin", "port": "10000", "location": "::ffff:10.1.2.3",
        "common": {"Checkin": 1.5}, "specific": null});
    assert_eq!(
        json_call(harness.path(), "POST", "/v1/telemetry", told.clone())
            .await
            .0,
        404
    );
    harness.delivered("uid-1").await;
    assert_eq!(
        json_call(harness.path(), "POST", "/v1/telemetry", told.clone())
            .await
            .0,
        204
    );
    let mut other = told.clone();
    other["name"] = json!("Other");
    assert_eq!(
        json_call(harness.path(), "POST", "/v1/telemetry", other)
            .await
            .0,
        404
    );
    let mut wrong = told;
    wrong["common"] = json!(1);
    assert_eq!(
        json_call(harness.path(), "POST", "/v1/telemetry", wrong)
            .await
            .0,
        400
    );

    assert_eq!(
        json_call(harness.path(), "GET", "/v1/tracker", Value::Null)
            .await
            .0,
        404
    );
    let tracked = json!({"uid-1": {"pid": 7}});
    assert_eq!(
        json_call(harness.path(), "PUT", "/v1/tracker", json!([1]))
            .await
            .0,
        400
    );
    assert_eq!(
        json_call(harness.path(), "PUT", "/v1/tracker", tracked.clone())
            .await
            .0,
        204
    );
    harness.restart();
    assert_eq!(
        json_call(harness.path(), "GET", "/v1/tracker", Value::Null).await,
        (200, tracked)
    );
}

#[tokio::test]
async fn a_request_whose_connection_is_gone_gets_its_job_by_asking_again() {
    let mut harness = Harness::new().await;
    let body = wanted(77, Value::Null).to_string();
    let head = format!(
        "POST /v1/request HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut broken = UnixStream::connect(harness.path()).await.unwrap();
    broken.write_all(head.as_bytes()).await.unwrap();
    let work_request = harness.work_request().await;
    drop(broken);
    // The server notices; the work request stays for the next request of its kind.
    let began = Instant::now();
    while harness
        .jobs
        .with(|driver| driver.waits_for(claims::event::RequestId(77)))
    {
        assert!(began.elapsed() < SOON);
        tokio::task::yield_now().await;
    }
    let asking = tokio::spawn(request(harness.path(), 77));
    let claim = ClaimName {
        claim_id: work_request.claim_id,
        job_uid: "uid-1".to_owned(),
    };
    harness.operator_message(Down::Grant(grant(&claim, 10)));
    assert_eq!(asking.await.unwrap().unwrap()["id"], "uid-1");
    // Its answer is lost as well: the same id still means the same job.
    assert_eq!(request(harness.path(), 77).await.unwrap()["id"], "uid-1");
    harness.restart();
    assert_eq!(request(harness.path(), 77).await.unwrap()["id"], "uid-1");
}

#[tokio::test]
async fn unfit_job_fails_without_reaching_the_plugin() {
    let mut harness = Harness::new().await;
    let asking = tokio::spawn(ask_once(harness.path(), 1));
    let work_request = harness.work_request().await;
    let claim = ClaimName {
        claim_id: work_request.claim_id,
        job_uid: "uid-1".to_owned(),
    };
    let mut unknown = grant(&claim, 10);
    unknown.spec_json = br#"{"pluginRef":{"name":"s"},"command":{"name":"rm"}}"#.to_vec();
    harness.operator_message(Down::Grant(unknown));
    assert_eq!(asking.await.unwrap().0, 204);
    let row = harness.row().await.row;
    assert!(
        matches!(row.end, claims::entry::RowEnd::Failed { reason, message }
        if reason == "UnknownCommand" && message.contains("\"wget\""))
    );
}

#[tokio::test]
async fn lost_process_and_cancelled_job_are_reported() {
    let mut harness = Harness::new().await;
    let mut settings = config();
    settings.jobs.recover_seconds = 0;
    harness.jobs.configure(&settings);
    harness.delivered("uid-1").await;
    let cancelled = harness.delivered("uid-2").await;
    harness.operator_message(Down::Cancel(Cancel {
        claim: Some(cancelled),
        reason: "Cancelled".into(),
    }));
    assert_eq!(harness.set_status("uid-2").await.1, json!("Error"));
    harness.jobs.plugin_ended(PLUGIN, Some(Exit::Signal(9)));
    loop {
        if let Up::Lost(lost) = harness.up().await {
            assert_eq!(lost.claim.unwrap().job_uid, "uid-1");
            assert!(lost.message.contains("signal 9"));
            break;
        }
    }
}

#[tokio::test]
async fn nothing_is_delivered_when_the_ledger_cannot_be_written() {
    let mut harness = Harness::new().await;
    let asking = tokio::spawn(ask_once(harness.path(), 1));
    let work_request = harness.work_request().await;
    std::fs::remove_dir_all(harness.root.jobs().join("claims")).unwrap();
    let claim = ClaimName {
        claim_id: work_request.claim_id,
        job_uid: "uid-1".to_owned(),
    };
    harness.operator_message(Down::Grant(grant(&claim, 10)));
    assert_eq!(asking.await.unwrap().0, 204);
    loop {
        if let Up::ClaimReturned(claim_returned) = harness.up().await {
            assert_eq!(claim_returned.why, "the ledger could not be written");
            break;
        }
    }
    std::fs::create_dir(harness.root.jobs().join("claims")).unwrap();
    harness.delivered("uid-2").await;
    std::fs::remove_dir_all(harness.root.jobs().join("claims")).unwrap();
    let target = format!("/v1/output?job=uid-2&row={:032x}&final=true&kind=text", 1);
    assert_eq!(
        call(harness.path(), "POST", &target, b"x".to_vec()).await.0,
        503
    );
    std::fs::create_dir(harness.root.jobs().join("claims")).unwrap();
    let answer = output(harness.path(), "uid-2", 1, true, b"x".to_vec()).await;
    assert_eq!(answer, json!({"row": 1, "late": false}));
}

#[tokio::test]
async fn wrong_paths_methods_and_sizes_are_answered() {
    let harness = Harness::new().await;
    for (method, target, expected) in [
        ("GET", "/", 404),
        ("GET", "/v1/request", 405),
        ("DELETE", "/v1/tracker", 405),
        ("POST", "/v1/nothing%zz?%%", 404),
    ] {
        let (status, answer) = json_call(harness.path(), method, target, Value::Null).await;
        assert_eq!(status, expected, "{method} {target}");
        assert!(answer["error"].is_string());
    }
    let large = vec![b' '; 5000];
    assert_eq!(
        call(harness.path(), "POST", "/v1/request", large).await.0,
        413
    );
    let deep = "[".repeat(3000).into_bytes();
    assert_eq!(
        call(harness.path(), "POST", "/v1/request", deep).await.0,
        400
    );
}

/// So long a connection stays open on which nothing complete was said.
const SILENCE: Duration = Duration::from_millis(20);

/// Puts bytes on a connection and returns what comes back. A panic of the server comes through.
async fn raw(harness: &Harness, bytes: &[u8]) -> Vec<u8> {
    let (near, far) = UnixStream::pair().unwrap();
    let api = jobs_api::JobsApi::new(harness.jobs.clone());
    let server = tokio::spawn(jobs_api::converse(far, api));
    let (mut read, mut write) = near.into_split();
    // The server may close early.
    let _ = write.write_all(bytes).await;
    let mut answer = Vec::new();
    let answered = tokio::time::timeout(SILENCE, read.read_to_end(&mut answer)).await;
    // Closed from this side, a server that waits for more has to end as well.
    drop(write);
    if answered.is_ok() {
        server.await.unwrap();
        return answer;
    }
    let _ = tokio::time::timeout(SOON, read.read_to_end(&mut answer))
        .await
        .unwrap();
    server.await.unwrap();
    answer
}

fn strange_bytes() -> impl Strategy<Value = Vec<u8>> {
    const LINES: [&[u8]; 15] = [
        b"POST /v1/request HTTP/1.1\r\n",
        b"POST /v1/output?job=uid-1&row=00000000000000000000000000000001&final=true&kind=text HTTP/1.1\r\n",
        b"POST /v1/start HTTP/1.1\r\n",
        b"PUT /v1/tracker HTTP/1.1\r\n",
        b"GET /v1/status?job=%e9 HTTP/1.1\r\n",
        b"host: x\r\n",
        b"content-length: 12\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"{\"id\":\"00000000000000000000000000000001\",\"location\":null}",
        b"{\"version\":1,\"commands\":[{\"CommandName\":\"a\"}]}",
        b"[[[[[[[[\xff\xff{\"id\":1e999}",
    ];
    let lines = proptest::sample::select(&LINES[..]);
    let piece = prop_oneof![
        4 => lines.prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

#[test]
fn sidecar_survives_any_bytes_on_the_jobs_socket() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let harness = runtime.block_on(Harness::new());
    // Nobody answers: every request for work ends by itself.
    harness.jobs.close_session(1);
    let settings = ProptestConfig {
        cases: 192,
        ..ProptestConfig::default()
    };
    proptest!(settings, |(bytes in strange_bytes())| {
        runtime.block_on(raw(&harness, &bytes));
    });
    let health = runtime.block_on(call(harness.path(), "GET", "/v1/health", Vec::new()));
    assert_eq!(health.0, 200);
}
