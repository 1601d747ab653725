//! The operator's own web pages: `/livez` (also `/healthz`), `/readyz`, `/metrics`. Plain HTTP,
//! nothing secret.

use crate::health::{ProcessHealth, Role};
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
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
        /// As configured.
        address: SocketAddr,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
}

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    /// For the probes.
    pub health: Arc<ProcessHealth>,
    /// For the scraper.
    pub metrics: Arc<Metrics>,
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
        let (stream, _) = match listener.accept().await {
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
                let answer = answer(&request, &pages);
                async move { Ok::<_, Infallible>(answer) }
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

fn answer(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
    }
    let (status, kind, body) = page_at(request.uri().path(), pages);
    page(status, kind, body)
}

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
        }
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
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, pages()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("patchbay_leader 0"), "{text}");
        server.abort();
    }
}
