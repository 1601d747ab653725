//! The client of the API server, with instrumentation: every call is timed out, every write is counted, and
//! every answer's `Date` is a sample of the server's clock.

use crate::clock::WallClock;
use crate::metrics::{Metrics, WatchLabels, WriteLabels};
use crate::skew::{ClockSample, SkewEstimator, SkewVerdict, TOLERANCE};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Until the head of an answer; bodies of watches may take as long as they like.
const ANSWER: Duration = Duration::from_secs(15);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The named kubeconfig.
    #[error("reading the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither kubeconfig nor service account.
    #[error("finding the cluster: {0}")]
    Infer(#[from] Box<kube::config::InferConfigError>),
    /// TLS or authentication settings.
    #[error("making the client of the API server: {0}")]
    Build(#[from] Box<kube::Error>),
}

/// Connects to the cluster of `kubeconfig`, else to the one that this process runs in.
pub async fn connect(
    kubeconfig: Option<&Path>,
    metrics: Arc<Metrics>,
    clock: Arc<ServerClock>,
    crash: Option<CrashAfterWrites>,
    wall: WallClock,
) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.map_err(Box::new)?,
    };
    // Our own retry hears every failure; a second one below it would hide them, and its waits.
    config.default_retry = false;
    let instrumentation = ApiInstrumentation {
        metrics,
        clock,
        crash: crash.map(Arc::new),
        wall,
    };
    Ok(ClientBuilder::try_from(config)
        .map_err(Box::new)?
        .with_layer(&instrumentation)
        .build())
}

/// What is known of the API server's clock.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<ClockState>);

#[derive(Debug, Default)]
struct ClockState {
    clock: SkewEstimator,
    /// When the last answer that did not speak against our clock came, by both our clocks.
    right: Option<(Timestamp, Instant)>,
}

impl ServerClock {
    pub fn verdict(&self) -> SkewVerdict {
        self.lock().clock.verdict()
    }

    /// Server's clock minus ours, in seconds; 0 before the first sample.
    pub fn middle_seconds(&self) -> f64 {
        self.lock()
            .clock
            .offset()
            .map_or(0.0, |o| o.middle_seconds())
    }

    /// Whether `now` can be believed: the clock was right, and has not been set since the last
    /// answer that said so. One that was set is noticed here before any answer tells.
    ///
    /// # Errors
    /// By how many seconds it is off, as far as that is known.
    pub fn check(&self, now: Timestamp) -> Result<(), f64> {
        let known = self.lock();
        let Some((wall, moment)) = known.right else {
            return Ok(());
        };
        let passed = SignedDuration::try_from(moment.elapsed()).unwrap_or(SignedDuration::MAX);
        let jumped = now.duration_since(wall).saturating_sub(passed);
        if jumped.abs() > TOLERANCE {
            return Err(-jumped.as_secs_f64());
        }
        match known.clock.verdict() {
            SkewVerdict::Wrong => Err(known.clock.offset().map_or(0.0, |o| o.middle_seconds())),
            SkewVerdict::Right | SkewVerdict::Unknown => Ok(()),
        }
    }

    pub(crate) fn add_sample(&self, sample: &ClockSample) {
        let mut known = self.lock();
        known.clock.add_sample(sample);
        if sample.offset().is_some_and(|offset| !offset.is_beyond()) {
            known.right = Some((sample.received, Instant::now()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aborts the process right after a given number of writes: the tests' way to die between any two.
#[derive(Debug)]
pub struct CrashAfterWrites(AtomicU32);

impl CrashAfterWrites {
    /// A crash that lets through `writes` writes, the last of which is its end.
    pub fn new(writes: u32) -> CrashAfterWrites {
        CrashAfterWrites(AtomicU32::new(writes))
    }

    /// Called when a write was answered, so that it did happen.
    fn count_write(&self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) <= 1 {
            std::process::abort();
        }
    }
}

#[derive(Clone)]
struct ApiInstrumentation {
    metrics: Arc<Metrics>,
    clock: Arc<ServerClock>,
    crash: Option<Arc<CrashAfterWrites>>,
    wall: WallClock,
}

impl<S> Layer<S> for ApiInstrumentation {
    type Service = Instrumented<S>;

    fn layer(&self, inner: S) -> Instrumented<S> {
        Instrumented {
            inner,
            instrumentation: self.clone(),
        }
    }
}

struct Instrumented<S> {
    inner: S,
    instrumentation: ApiInstrumentation,
}

impl<S, B> Service<Request<Body>> for Instrumented<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let instrumentation = self.instrumentation.clone();
        let dry_run = request.uri().query().is_some_and(|q| q.contains("dryRun="));
        let written = write(request.method(), request.uri().path()).filter(|_| !dry_run);
        if let Some(labels) = &written {
            instrumentation
                .metrics
                .api_writes
                .get_or_create(labels)
                .inc();
        }
        if request.method() == Method::GET {
            let kind = kind(request.uri().path());
            instrumentation
                .metrics
                .api_reads
                .get_or_create(&WatchLabels { kind })
                .inc();
        }
        let sent = instrumentation.wall.now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = tokio::time::timeout(ANSWER, answer).await.map_err(|_| {
                BoxError::from(format!("no answer within {} s", ANSWER.as_secs()))
            })??;
            let date = response
                .headers()
                .get(http::header::DATE)
                .and_then(|value| value.to_str().ok())
                .and_then(parse_date);
            if let Some(date) = date {
                instrumentation.clock.add_sample(&ClockSample {
                    sent,
                    received: instrumentation.wall.now(),
                    date,
                });
                instrumentation
                    .metrics
                    .clock_offset
                    .set(instrumentation.clock.middle_seconds());
            }
            // The Lease is renewed by the clock, not by the work.
            if let (Some(crash), Some(_)) = (
                &instrumentation.crash,
                written.filter(|w| w.kind != "leases"),
            ) {
                crash.count_write();
            }
            Ok(response)
        })
    }
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}

/// Resources that we write; anything else is counted as `other`, so labels stay bounded.
const KINDS: [&str; 11] = [
    "plugins",
    "jobs",
    "joboutputs",
    "pods",
    "services",
    "networkpolicies",
    "secrets",
    "events",
    "leases",
    "configmaps",
    "namespaces",
];

fn write(method: &Method, path: &str) -> Option<WriteLabels> {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "replace",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    };
    let kind = kind(path);
    Some(WriteLabels { kind, verb })
}

/// The resource that a path names, out of a closed list.
fn kind(path: &str) -> &'static str {
    // /api/v1/namespaces/NS/KIND/NAME[/SUB] or /apis/GROUP/VERSION/namespaces/NS/KIND/NAME[/SUB]
    let mut segments = path.split('/').filter(|s| !s.is_empty());
    let skipped = match segments.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => 0,
    };
    let rest: Vec<&str> = segments.skip(skipped).collect();
    let resource = match rest.as_slice() {
        ["namespaces", _, kind, tail @ ..] => (*kind, tail),
        [kind, tail @ ..] => (*kind, tail),
        [] => ("", &[][..]),
    };
    let kind = KINDS.into_iter().find(|k| *k == resource.0);
    match (kind, resource.1) {
        (Some("plugins"), [_, "status"]) => "plugins/status",
        (Some("jobs"), [_, "status"]) => "jobs/status",
        (Some(kind), _) => kind,
        (None, _) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(method: Method, path: &str) -> Option<(&'static str, &'static str)> {
        write(&method, path).map(|l| (l.kind, l.verb))
    }

    #[test]
    fn writes_are_named_by_kind_and_verb() {
        let path = "/apis/patchbay.dev/v1alpha1/namespaces/a/plugins/kv/status";
        assert_eq!(
            labels(Method::PATCH, path),
            Some(("plugins/status", "patch"))
        );
        assert_eq!(
            labels(Method::POST, "/api/v1/namespaces/a/pods"),
            Some(("pods", "create"))
        );
        assert_eq!(
            labels(Method::DELETE, "/api/v1/namespaces/a/pods/x"),
            Some(("pods", "delete"))
        );
        assert_eq!(
            labels(
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l"
            ),
            Some(("leases", "replace"))
        );
        assert_eq!(
            labels(Method::POST, "/apis/foreign/v1/namespaces/a/things"),
            Some(("other", "create"))
        );
    }

    #[test]
    fn reads_are_no_writes() {
        assert_eq!(labels(Method::GET, "/api/v1/pods"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_is_not_believed_before_any_answer_tells() {
        let clock = ServerClock::default();
        let start = Timestamp::from_second(1_790_000_000).unwrap();
        let seconds = SignedDuration::from_secs;
        let sample = |at: Timestamp| ClockSample {
            sent: at,
            received: at,
            date: start,
        };
        assert!(clock.check(start).is_ok(), "nothing is known yet");
        clock.add_sample(&sample(start));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(clock.check(start + seconds(61)).is_ok());
        for set in [-600, 57, 63, 660] {
            assert!(clock.check(start + seconds(set)).is_err(), "{set}");
        }
        // An answer that speaks against our clock does not make it right.
        clock.add_sample(&sample(start + seconds(600)));
        assert!(clock.check(start + seconds(600)).is_err());
    }

    #[test]
    fn dates_of_the_api_server_are_understood() {
        let date = parse_date("Sun, 22 Nov 2026 14:08:49 GMT").unwrap();
        assert_eq!(date.to_string(), "2026-11-22T14:08:49Z");
        assert_eq!(parse_date("yesterday"), None);
    }
}
