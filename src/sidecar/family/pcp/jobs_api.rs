//! The jobs socket: where a PCP controller plugin introduces itself, asks for work and gives output.
//! HTTP/1.1 over a Unix socket, JSON both ways but for rows of output, which are bytes.
//!
//! Everything that comes in is foreign: heads, bodies and waiting are bounded, and whatever is
//! wrong is answered with a sentence.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use patchbay_protocol::escape::printable;
use patchbay_protocol::location::{self, MAX_LOCATION};
use serde_json::{Map, Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use super::commands::Advertised;
use super::http_body::{
    MAX_ROW, Refusal, Said, drain, empty, json_response, not_now, object, piece, refused,
    row_response, status_response, text, whole,
};
use super::job::Telemetry;
use super::query_string;
use crate::error::SystemError;
use crate::jobs::claim_driver::Answer;
use crate::jobs::claims::entry::RowEnd;
use crate::jobs::claims::event::{Event, Filter, RequestId, RowId, RowOwner};
use crate::jobs::rows::{self, Begun, RowError};
use crate::jobs::{Jobs, lock};

/// Connections at a time; a plugin has one for each of its threads that ask.
const CONNECTIONS: usize = 512;
/// A connection may be idle, and a head may take, so long.
const HEAD: Duration = Duration::from_secs(60);
/// Largest head in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Largest bodies in bytes: a request and a status, telemetry, an introduction and a tracker.
const SMALL: usize = 4 * 1024;
const MEDIUM: usize = 256 * 1024;
const LARGE: usize = 4 * 1024 * 1024;
/// The beginning of an error's text that is shown with the job.
const SHOWN: usize = 1024;
/// Names the row that ends a job by its status alone. Another one of the same job is the same row.
const DONE: RowId = RowId(0xd0e);

/// Listens.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn serve(path: &Path, jobs: Jobs) -> Result<(), SystemError> {
    let failed = |error: std::io::Error| SystemError::at("listen on", path, error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    tokio::spawn(accept(listener, JobsApi::new(jobs)));
    Ok(())
}

async fn accept(listener: UnixListener, api: JobsApi) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let api = api.clone();
                tokio::spawn(async move {
                    converse(stream, api).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the jobs socket could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

pub(crate) async fn converse(stream: UnixStream, api: JobsApi) {
    let service = hyper::service::service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the jobs socket ended");
    }
}

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct JobsApi {
    jobs: Jobs,
    /// Rows of one job come one after the other: each goes on where the digest of the last ended.
    uploads: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl JobsApi {
    pub(crate) fn new(jobs: Jobs) -> JobsApi {
        JobsApi {
            jobs,
            uploads: Arc::default(),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.route(request).await {
            Ok(response) => response,
            Err(Refusal(status, sentence)) => {
                tracing::debug!(%status, sentence, "a call on the jobs socket is refused");
                json_response(status, &json!({ "error": sentence }))
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Said {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let known = [
            "/v1/start",
            "/v1/request",
            "/v1/output",
            "/v1/error",
            "/v1/status",
        ];
        match (head.method, head.uri.path()) {
            (Method::GET, "/v1/health") => Ok(json_response(StatusCode::OK, &json!({}))),
            (Method::POST, "/v1/start") => self.start(body).await,
            (Method::POST, "/v1/request") => self.request(body).await,
            (Method::POST, "/v1/output") => self.output(query, body).await,
            (Method::POST, "/v1/error") => self.error(query, body).await,
            (Method::GET, "/v1/status") => self.status(query),
            (Method::POST, "/v1/status") => self.set_status(query, body).await,
            (Method::POST, "/v1/telemetry") => self.telemetry(body).await,
            (Method::PUT, "/v1/tracker") => self.keep_tracker(body).await,
            (Method::GET, "/v1/tracker") => self.tracker(),
            (method, path)
                if known.contains(&path) || path == "/v1/telemetry" || path == "/v1/tracker" =>
            {
                Err(Refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{path} does not take {}", shown(method.as_str())),
                ))
            }
            (_, path) => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!("there is no {} on the jobs socket", shown(path)),
            )),
        }
    }

    async fn start(&self, body: Incoming) -> Said {
        let body = whole(body, LARGE).await?;
        let Some(current) = self.jobs.with(|driver| driver.current()) else {
            return Err(not_now(
                "the sidecar does not know the plugin's process yet",
            ));
        };
        let advertised = Advertised::read(&body, current).map_err(refused)?;
        tracing::info!(
            start_id = %current,
            name = shown(&advertised.name),
            commands = advertised.commands.len(),
            "the plugin introduces itself"
        );
        self.jobs.introduce(advertised);
        Ok(json_response(StatusCode::OK, &json!({})))
    }

    async fn request(&self, body: Incoming) -> Said {
        let asked = object(&whole(body, SMALL).await?)?;
        let id = match asked.get("id") {
            Some(Value::String(id)) => RequestId::parse(id),
            _ => None,
        };
        let id = id.ok_or_else(|| refused("id is not 32 hexadecimal digits"))?;
        let filter = Filter {
            client: self.location(&asked)?,
            port: port(&asked)?,
        };
        let (introduced, known) = self
            .jobs
            .with(|driver| (driver.advertised().is_some(), driver.current().is_some()));
        if !introduced {
            return Err(match known {
                true => Refusal(StatusCode::CONFLICT, "call /v1/start first".to_owned()),
                false => not_now("the sidecar does not know the plugin's process yet"),
            });
        }
        let mut waiting = Waiting {
            jobs: self.jobs.clone(),
            id,
            answer: Some(self.jobs.with(|driver| driver.wait_for(id))),
        };
        self.jobs.handle(Event::Request(id, filter));
        match waiting.answer().await {
            Some(Answer::Job(job)) => Ok(text(StatusCode::OK, job.take())),
            Some(Answer::Nothing) => Ok(empty()),
            None => Err(not_now("the same request came again on another connection")),
        }
    }

    /// A worker's own address, whatever the plugin knows it by.
    fn location(&self, asked: &Map<String, Value>) -> Result<Option<String>, Refusal> {
        let text = match asked.get("location") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(_) => return Err(refused("location is neither text nor null")),
        };
        let canonical = location::canonical(text);
        if canonical.is_empty() {
            return Ok(None);
        }
        if canonical.len() > MAX_LOCATION {
            return Err(refused(format!(
                "location has {} bytes; expected at most {MAX_LOCATION}",
                canonical.len()
            )));
        }
        let real = self
            .jobs
            .workers()
            .and_then(|workers| workers.real(&canonical));
        Ok(Some(real.unwrap_or(canonical)))
    }

    async fn output(&self, query: &str, body: Incoming) -> Said {
        let (job, id) = named(query)?;
        let kind = query_string::value(query, "kind");
        let text = match kind.as_deref() {
            Some("text") => true,
            Some("bytes") => false,
            _ => return Err(refused("kind is neither text nor bytes")),
        };
        let final_row = query_string::value(query, "final");
        let end = match final_row.as_deref() {
            Some("true") => RowEnd::Succeeded,
            Some("false") => RowEnd::More,
            _ => return Err(refused("final is neither true nor false")),
        };
        self.row(job, id, text, end, body).await
    }

    async fn error(&self, query: &str, body: Incoming) -> Said {
        let (job, id) = named(query)?;
        let end = RowEnd::Failed {
            reason: "PluginError".to_owned(),
            message: String::new(),
        };
        self.row(job, id, true, end, body).await
    }

    async fn row(&self, job: String, id: RowId, text: bool, end: RowEnd, body: Incoming) -> Said {
        let turn = self.turn(&job);
        let _turn = turn.lock().await;
        let whose = RowOwner::Job(job);
        let mut writing = match rows::begin(&self.jobs, &whose, id).await? {
            Begun::Writing(writing) => writing,
            Begun::Answered(answer) => {
                drain(body).await;
                return Ok(row_response(answer));
            }
        };
        let mut beginning = Vec::new();
        let mut body = body;
        while let Some(bytes) = piece(&mut body).await? {
            if beginning.len() < SHOWN {
                beginning.extend(bytes.iter().take(SHOWN - beginning.len()));
            }
            writing.push(&bytes).await.map_err(RowError::from)?;
            if writing.given() > MAX_ROW {
                break;
            }
        }
        let end = match end {
            RowEnd::Failed { reason, .. } => RowEnd::Failed {
                reason,
                message: printable(&beginning, SHOWN),
            },
            end => end,
        };
        Ok(row_response(rows::end(
            &self.jobs, &whose, id, writing, text, end,
        )?))
    }

    fn turn(&self, job: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut uploads = lock(&self.uploads);
        if let Some(turn) = uploads.get(job).and_then(Weak::upgrade) {
            return turn;
        }
        uploads.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        uploads.insert(job.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn status(&self, query: &str) -> Said {
        let job = job_of(query)?;
        let word = self.jobs.with(|driver| {
            driver
                .machine()
                .of_job(&job)
                .and_then(|entry| entry.pcp_status())
        });
        status_response(word)
    }

    async fn set_status(&self, query: &str, body: Incoming) -> Said {
        const STATUSES: [&str; 10] = [
            "", "Invalid", "Valid", "Waiting", "Ready", "Pending", "Active", "Done", "Error",
            "Stopped",
        ];
        let job = job_of(query)?;
        let wanted = object(&whole(body, SMALL).await?)?;
        let word = wanted.get("status").and_then(Value::as_str);
        let end = match word {
            Some("Active") => {
                let word = self.jobs.with(|driver| {
                    let caller = driver.caller();
                    driver.handle(&self.jobs, Event::Active(caller, job));
                    driver.status_answer(caller)
                });
                let word = word.ok_or_else(|| not_now("the ledger could not be written"))?;
                return status_response(word);
            }
            Some("Done") => RowEnd::Succeeded,
            Some("Error") => RowEnd::Failed {
                reason: "PluginError".to_owned(),
                message: "the plugin set the status Error".to_owned(),
            },
            Some(word) if STATUSES.contains(&word) => return self.status(query),
            _ => {
                return Err(refused(format!(
                    "status is not one of {}",
                    STATUSES.map(|word| format!("\"{word}\"")).join(", ")
                )));
            }
        };
        let turn = self.turn(&job);
        let _turn = turn.lock().await;
        let ended = self.jobs.with(|driver| {
            let entry = driver.machine().of_job(&job);
            entry.is_none_or(|entry| entry.is_late())
        });
        if !ended {
            let whose = RowOwner::Job(job);
            if let Begun::Writing(row) = rows::begin(&self.jobs, &whose, DONE).await? {
                rows::end(&self.jobs, &whose, DONE, row, true, end)?;
            }
        }
        self.status(query)
    }

    async fn telemetry(&self, body: Incoming) -> Said {
        let told = object(&whole(body, MEDIUM).await?)?;
        let Some(location) = self.location(&told)? else {
            return Err(refused("location is absent"));
        };
        let map = |name: &str| match told.get(name) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(refused(format!("{name} is not an object"))),
        };
        let telemetry = Telemetry {
            location,
            port: port(&told)?.unwrap_or_default(),
            common: map("common")?,
            specific: map("specific")?,
        };
        let name = told.get("name").and_then(Value::as_str).unwrap_or_default();
        let known = self.jobs.with(|driver| {
            let ours = driver.advertised().is_some_and(|said| {
                name.is_empty() || name == said.name || name == said.service_name
            });
            ours && driver.targets.tell(telemetry)
        });
        match known {
            true => Ok(empty()),
            false => Err(Refusal(
                StatusCode::NOT_FOUND,
                "no job was for such a client".to_owned(),
            )),
        }
    }

    async fn keep_tracker(&self, body: Incoming) -> Said {
        let body = whole(body, LARGE).await?;
        object(&body)?;
        self.jobs
            .with(|driver| driver.keep_tracker(&body))
            .map_err(|error| not_now(error.to_string()))?;
        Ok(empty())
    }

    fn tracker(&self) -> Said {
        let kept = self.jobs.with(|driver| driver.read_tracker());
        match kept.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(document) => Ok(text(StatusCode::OK, document)),
            None => Err(Refusal(
                StatusCode::NOT_FOUND,
                "nothing was kept yet".to_owned(),
            )),
        }
    }
}

/// A request whose connection may go.
struct Waiting {
    jobs: Jobs,
    id: RequestId,
    answer: Option<oneshot::Receiver<Answer>>,
}

impl Waiting {
    async fn answer(&mut self) -> Option<Answer> {
        let answer = match self.answer.as_mut() {
            Some(answer) => answer.await.ok(),
            None => None,
        };
        self.answer = None;
        answer
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            answer.close();
            // An answer that came in between goes its own way back.
            drop(answer);
            self.jobs.with(|driver| driver.give_up(&self.jobs, self.id));
        }
    }
}

fn shown(text: &str) -> String {
    printable(text.as_bytes(), 256)
}

fn named(query: &str) -> Result<(String, RowId), Refusal> {
    let job = job_of(query)?;
    let row = query_string::value(query, "row").and_then(|row| RowId::parse(&row));
    let row = row.filter(|row| *row != DONE);
    Ok((
        job,
        row.ok_or_else(|| refused("row is not 32 hexadecimal digits"))?,
    ))
}

fn job_of(query: &str) -> Result<String, Refusal> {
    query_string::value(query, "job")
        .filter(|job| (1..=256).contains(&job.len()))
        .ok_or_else(|| refused("job is not the id of a job"))
}

/// "010000" is not "10000"; a number is taken for its text.
fn port(asked: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let text = match asked.get("port") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(refused("port is neither text nor null")),
    };
    match text.len() {
        0 => Ok(None),
        1..=16 => Ok(Some(text)),
        more => Err(refused(format!(
            "port has {more} bytes; expected at most 5"
        ))),
    }
}
