//! The operator's own web pages: `/livez` (also `/healthz`), `/readyz`, `/metrics`. Plain HTTP,
//! nothing secret.
//!
//! `/log-level`, `/sidecar-log-level` and `/debug/dispatch` are answered to this pod alone, which is where
//! `kubectl port-forward` arrives: the first two change something, the last names
//! Jobs of every namespace.

use crate::health::{ProcessHealth, Role};
use crate::jobs::inspector::DispatchInspector;
use crate::logging::{LogFilter, LoggingError, SidecarLogFilter};
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; probes and scrapers need few.
const CONNECTIONS: usize = 16;
/// Longest life of a connection.
const CONNECTION: Duration = Duration::from_secs(60);
/// To send the head of a request.
const HEAD: Duration = Duration::from_secs(5);

/// Why the pages are not served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken or not ours.
    #[error("listening on {address} for probes and metrics: {source}")]
    Listen {
        address: SocketAddr,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
}

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    pub health: Arc<ProcessHealth>,
    pub metrics: Arc<Metrics>,
    /// For `/debug/dispatch`.
    pub inspector: Arc<DispatchInspector>,
    /// For `/log-level`.
    pub log_filter: LogFilter,
    /// For `/sidecar-log-level`.
    pub sidecar_log: SidecarLogFilter,
}

/// Binds the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Listen { address, source })
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, pages: Pages) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            // Nobody closes the semaphore.
            std::future::pending::<()>().await;
            continue;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer is gone already.
                tracing::debug!(%error, "a connection for probes and metrics was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let pages = pages.clone();
                async move { Ok::<_, Infallible>(answer(request, &pages, peer.ip()).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
                tracing::debug!(%error, "a connection for probes and metrics broke");
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, pages: &Pages, peer: IpAddr) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if let Some(text) = refusal(&path, peer) {
        return page(StatusCode::FORBIDDEN, TEXT, text);
    }
    let (status, kind, body) = match (request.method(), &*path) {
        (&Method::PUT, "/log-level" | "/sidecar-log-level") => {
            let set = |filter: &str| match &*path {
                "/log-level" => pages.log_filter.set(filter),
                _ => pages.sidecar_log.set(filter),
            };
            set_log_level(request.into_body(), &path, set).await
        }
        (&Method::GET, "/log-level") => (StatusCode::OK, TEXT, pages.log_filter.current() + "\n"),
        (&Method::GET, "/sidecar-log-level") => {
            (StatusCode::OK, TEXT, pages.sidecar_log.current() + "\n")
        }
        (&Method::GET, "/debug/dispatch") => dispatch_page(pages).await,
        (&Method::GET, path) => page_at(path, pages),
        (_, "/log-level" | "/sidecar-log-level") => (
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET and PUT\n".into(),
        ),
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into()),
    };
    page(status, kind, body)
}

/// Why a peer does not get this page.
fn refusal(path: &str, peer: IpAddr) -> Option<String> {
    let is_local = matches!(
        path,
        "/log-level" | "/sidecar-log-level" | "/debug/dispatch"
    );
    (is_local && !peer.to_canonical().is_loopback()).then(|| {
        format!(
            "{path} is answered to this pod only: use kubectl port-forward to the operator's pod\n"
        )
    })
}

/// `PUT` of a log level: the body is a filter such as `info` or `debug,kube=warn`.
async fn set_log_level(
    body: Incoming,
    path: &str,
    set: impl Fn(&str) -> Result<(), LoggingError>,
) -> (StatusCode, &'static str, String) {
    let refused = |text: String| (StatusCode::BAD_REQUEST, TEXT, text);
    let body = match Limited::new(body, MAX_FILTER).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => {
            return refused(format!(
                "the body has more than {MAX_FILTER} bytes; send a filter such as debug,kube=warn\n"
            ));
        }
        Err(error) => return refused(format!("the body broke off: {error}\n")),
    };
    let bytes = body.to_bytes();
    let Ok(filter) = std::str::from_utf8(&bytes) else {
        return refused("the body is not text; send a filter such as debug,kube=warn\n".into());
    };
    match set(filter.trim()) {
        Ok(()) => {
            tracing::info!(path, filter = filter.trim(), "a log level is changed");
            (StatusCode::OK, TEXT, format!("{}\n", filter.trim()))
        }
        Err(error) => refused(format!(
            "{error}; expected a filter such as debug,kube=warn\n"
        )),
    }
}

/// `GET /debug/dispatch`: queues, claims and sessions of the dispatcher as JSON.
async fn dispatch_page(pages: &Pages) -> (StatusCode, &'static str, String) {
    match pages.inspector.snapshot().await {
        Some(snapshot) => match serde_json::to_string_pretty(&snapshot) {
            Ok(json) => (StatusCode::OK, JSON, json + "\n"),
            Err(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("{error}\n"),
            ),
        },
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            "this operator does not lead, or its dispatch task does not answer\n".into(),
        ),
    }
}

/// Longest log filter in bytes.
const MAX_FILTER: usize = 512;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn page_at(path: &str, pages: &Pages) -> (StatusCode, &'static str, String) {
    match path {
        "/livez" | "/healthz" => {
            if pages.health.is_alive() {
                (StatusCode::OK, TEXT, "ok\n".into())
            } else {
                let text = "no sign of life of the main loop\n".into();
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
            }
        }
        "/readyz" => {
            let missing = pages.health.missing();
            if missing.is_empty() {
                let role = match pages.health.role() {
                    Role::Candidate => "ok: standing by\n",
                    Role::Leader => "ok: leading\n",
                };
                (StatusCode::OK, TEXT, role.into())
            } else {
                let names: Vec<&str> = missing.into_iter().map(|n| n.as_str()).collect();
                let text = format!("waiting for {}\n", names.join(", "));
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
            }
        }
        "/metrics" => match pages.metrics.render() {
            Ok(text) => (StatusCode::OK, METRICS, text),
            Err(_) => {
                let text = "the metrics could not be written\n".into();
                (StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
            }
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "no such page\n".into()),
    }
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::ReadinessGate;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pages() -> Pages {
        Pages {
            health: Arc::default(),
            metrics: Arc::new(Metrics::new(Arc::default())),
            inspector: Arc::default(),
            log_filter: crate::logging::filter_for_tests(),
            sidecar_log: SidecarLogFilter::new("info").unwrap(),
        }
    }

    /// What the server answers to this request over a socket.
    async fn exchange(request: &str) -> String {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, pages()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        server.abort();
        text
    }

    fn put(filter: &str) -> String {
        let length = filter.len();
        format!(
            "PUT /log-level HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{filter}"
        )
    }

    #[tokio::test]
    async fn log_level_is_changed_by_a_filter_and_by_nothing_else() {
        let changed = exchange(&put("debug,kube=warn")).await;
        assert!(changed.starts_with("HTTP/1.1 200"), "{changed}");
        assert!(changed.contains("kube=warn"), "{changed}");
        let refused = exchange(&put("kube=loudly")).await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        assert!(
            refused.contains("kube=loudly") && refused.contains("expected"),
            "{refused}"
        );
        let long = exchange(&put(&"a".repeat(513))).await;
        assert!(long.contains("more than 512 bytes"), "{long}");
    }

    #[test]
    fn debug_pages_are_refused_to_other_pods() {
        let addresses = [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "10.0.0.7",
            "fd00::1",
        ];
        let refused = addresses.map(|peer| {
            let peer = peer.parse().unwrap();
            ["/log-level", "/debug/dispatch", "/metrics"].map(|path| refusal(path, peer).is_some())
        });
        let (local, other) = ([false; 3], [true, true, false]);
        assert_eq!(refused, [local, local, local, other, other]);
    }

    #[tokio::test]
    async fn dispatch_page_says_when_this_operator_does_not_lead() {
        let (status, _, text) = dispatch_page(&pages()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("does not lead"), "{text}");
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let pages = pages();
        let (status, _, body) = page_at("/readyz", &pages);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "waiting for an answer of the API server\n");
        pages.health.open_gate(ReadinessGate::ApiServer);
        assert_eq!(page_at("/readyz", &pages).2, "ok: standing by\n");
    }

    #[tokio::test]
    async fn pages_are_served_over_a_socket() {
        let text = exchange("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("patchbay_leader 0"), "{text}");
    }
}
