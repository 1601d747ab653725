//! Dialling one sidecar: TCP, mutual TLS with exactly one accepted name, HTTP/2.

use super::tls::OperatorTlsError;
use hyper_util::rt::TokioIo;
use patchbay_protocol::session::session_client::SessionClient;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

/// Limit of each of the two steps of a dial.
const STEP: Duration = Duration::from_secs(3);
/// Longest message that a sidecar may send: a ledger of 4096 entries, and room.
const LONGEST: usize = 1024 * 1024;
/// HTTP/2 windows: one slow stream of small messages needs no more.
const WINDOW: u32 = 65_535;

/// Why a sidecar could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum SessionDialError {
    /// No TCP connection.
    #[error("connecting to the sidecar at {address}: {source}")]
    Connect {
        /// Pod address and session port.
        address: SocketAddr,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
    /// The peer is not the one that was meant, or does not take us.
    #[error("TLS with the sidecar at {address}: {}", describe_error(.error))]
    Tls {
        /// Pod address and session port.
        address: SocketAddr,
        error: std::io::Error,
    },
    /// Our own side.
    #[error(transparent)]
    Setup(#[from] OperatorTlsError),
    /// HTTP/2 did not begin.
    #[error("opening HTTP/2 to the sidecar at {address}: {source}")]
    Http {
        /// Pod address and session port.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What our own look at the certificate said, instead of the library's picture of it.
fn describe_error(error: &std::io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(own))) => {
            own.0.to_string()
        }
        _ => error.to_string(),
    }
}

/// Opens a connection and proves both ends.
pub async fn dial(
    address: SocketAddr,
    tls: ClientConfig,
) -> Result<SessionClient<Channel>, SessionDialError> {
    let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let tcp = tokio::time::timeout(STEP, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
        .map_err(|source| SessionDialError::Connect { address, source })?;
    // Messages are small and wait for nobody.
    tcp.set_nodelay(true)
        .map_err(|source| SessionDialError::Connect { address, source })?;
    let connector = TlsConnector::from(Arc::new(tls));
    let name = ServerName::IpAddress(address.ip().into());
    let stream = tokio::time::timeout(STEP, connector.connect(name, tcp))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
        .map_err(|error| SessionDialError::Tls { address, error })?;
    let channel = Endpoint::from_static("http://sidecar")
        .connect_timeout(STEP)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .buffer_size(8)
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|source| SessionDialError::Http {
            address,
            source: source.into(),
        })?;
    Ok(SessionClient::new(channel).max_decoding_message_size(LONGEST))
}

/// Hands out the one connection that was made. A channel that asks again gets none: a session
/// that broke is dialled again by its task, with a fresh look at the certificate.
struct Once(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        Box::pin(async move {
            stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
        })
    }
}
