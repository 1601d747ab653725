//! One client connection from its first byte to its end.

use super::counters::{ConnectionGuard, ProxyCounters};
use super::upstream::Link;
use super::{forward, settings};
use crate::family::go_plugin::stdio::Fanout;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::Instrument;

/// Silence after which the kernel asks whether the other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What the calls of one client connection share.
pub(super) struct Client {
    pub(super) link: Link,
    pub(super) stdio: Fanout,
    pub(super) counters: Arc<ProxyCounters>,
    /// Turns true when calls are to end.
    pub(super) draining: watch::Receiver<bool>,
}

/// Serves until the client closes, or until its calls have ended after draining began.
pub(super) async fn serve(stream: TcpStream, client: Client, _counted: ConnectionGuard) {
    tune(&stream);
    let mut draining = client.draining.clone();
    // The guard that the wait gives back must not live across what follows.
    let mut told = pin!(async move { drop(draining.wait_for(|draining| *draining).await) });
    // Hosts check an address by connecting and closing; nothing is set up for them.
    tokio::select! {
        readable = tokio::time::timeout(settings::FIRST_BYTE_LIMIT, stream.readable()) => {
            if !matches!(readable, Ok(Ok(()))) {
                tracing::debug!("a client connection said nothing and was closed");
                return;
            }
        }
        () = &mut told => return,
    }
    let client = Arc::new(client);
    let peer = stream.peer_addr().ok();
    let service = service_fn(move |request: Request<Incoming>| {
        let span = tracing::debug_span!("call", method = request.uri().path(), ?peer);
        forward::serve(client.clone(), request).instrument(span)
    });
    let mut connection = pin!(settings::server().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            // GOAWAY; what is under way may end.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A reset, or a close before the preface, is the usual end of some hosts' probes.
        tracing::debug!(%error, "a client connection of the proxy ended");
    }
}

/// Hints for the kernel: small messages leave at once, and peers that vanished are noticed. The
/// connection works without each of them.
fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE / 4);
    let _ = sockopt::set_tcp_user_timeout(stream, KEEP_ALIVE.as_millis() as u32);
}
