//! Accepts the operator's connections: binds, checks, reloads certificates.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use patchbay_protocol::session::session_server::SessionServer;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::Hub;
use super::attach::Sessions;
use super::identity;
use crate::paths::replace;

/// Limit of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections at the same time. The operator has one, or two while its leader changes; the others
/// are strangers in their handshake.
const CONNECTIONS: usize = 32;
/// Streams of one connection.
const STREAMS: u32 = 8;
/// A silent peer is asked so often whether it lives, and given so long to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Largest message of the operator in bytes: a grant holds a Job's spec, and the API server takes
/// no object beyond 3 MiB.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Pause between attempts to take the port.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// Whether we have our port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Not tried yet.
    Unknown,
    /// We listen here.
    Ours(SocketAddr),
    /// Another program of the pod listens on it.
    Taken(u16),
}

/// Serves sessions until the process ends. The port's state shows in `port`; the address is
/// written into the private volume.
pub async fn serve(
    address: SocketAddr,
    hub: Hub,
    changes: watch::Receiver<u64>,
    port: watch::Sender<Port>,
) {
    let identity = Arc::new(RwLock::new(None));
    tokio::spawn(keep_identity(hub.clone(), changes, identity.clone()));
    let listener = bind(address, &port).await;
    if let Ok(address) = listener.local_addr() {
        if let Err(error) = replace(
            &hub.root.private().join("session-address"),
            address.to_string().as_bytes(),
            0o600,
        ) {
            tracing::warn!(%error, "the session's address could not be written");
        }
        tracing::info!(%address, "the session port listens");
        port.send_replace(Port::Ours(address));
    }
    let sessions = SessionServer::new(Sessions::new(hub)).max_decoding_message_size(MAX_MESSAGE);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let config = identity
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let Some(config) = config else {
                    tracing::warn!(%peer, "a session was refused: there is no usable identity yet");
                    continue;
                };
                let sessions = sessions.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, config, sessions).await {
                        tracing::info!(%peer, %error, "a session connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a session connection could not be accepted");
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
}

/// Takes the port, however long it takes. Never shared with another socket.
async fn bind(address: SocketAddr, port: &watch::Sender<Port>) -> TcpListener {
    let mut told = None;
    loop {
        let mut bound = TcpListener::bind(address).await;
        if let (Err(error), SocketAddr::V6(v6)) = (&bound, address)
            && error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
            && v6.ip().is_unspecified()
        {
            // A node without IPv6.
            bound = TcpListener::bind(SocketAddr::from((
                std::net::Ipv4Addr::UNSPECIFIED,
                v6.port(),
            )))
            .await;
        }
        match bound {
            Ok(listener) => return listener,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && *port.borrow() != Port::Taken(address.port())
                {
                    port.send_replace(Port::Taken(address.port()));
                }
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(%address, error, "the session port cannot be taken; it is tried again");
                    told = Some(error);
                }
            }
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

/// Loads the certificates, and again when the files change. A new set that cannot be used leaves
/// the old one in place.
async fn keep_identity(
    hub: Hub,
    mut changes: watch::Receiver<u64>,
    identity: Arc<RwLock<Option<Arc<ServerConfig>>>>,
) {
    let folder = hub.root.identity();
    let (mut seen, mut told) = (None, None);
    loop {
        let files: Vec<Option<Vec<u8>>> = ["tls.crt", "tls.key", "ca.crt"]
            .iter()
            .map(|name| std::fs::read(folder.join(name)).ok())
            .collect();
        let fingerprint = rapid_fingerprint(&files);
        let mut again = None;
        if seen != Some(fingerprint) {
            match identity::load(&folder) {
                Ok(config) => {
                    *identity.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
                    seen = Some(fingerprint);
                    tracing::info!("the identity was loaded");
                }
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(error, "the identity cannot be used; it is read again");
                        told = Some(error);
                    }
                    // Perhaps read in the middle of a swap.
                    again = Some(BIND_PAUSE);
                }
            }
        }
        let changed = match again {
            Some(pause) => tokio::time::timeout(pause, changes.changed())
                .await
                .unwrap_or(Ok(())),
            None => changes.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn rapid_fingerprint(files: &[Option<Vec<u8>>]) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

async fn converse(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    sessions: SessionServer<Sessions>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _ = stream.set_nodelay(true);
    let stream =
        tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await??;
    let service = hyper::service::service_fn(move |request| {
        let mut sessions = sessions.clone();
        async move {
            Ok::<_, Infallible>(match sessions.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            })
        }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(STREAMS)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}
