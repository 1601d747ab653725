//! One worker's connection: dialled on to the plugin from the worker's own local address, then
//! copied both ways. Each side ends its own direction, as without us.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::listen::Place;
use super::sockets;

/// A worker waits so long for the plugin to take its connection. The plugin may serve one after
/// the other, with a short queue.
const DIAL: Duration = Duration::from_secs(30);
/// Pauses between attempts while nobody listens: the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// When, after its last word, it is looked whether the plugin closed its socket altogether.
const LOOKS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(500),
];
/// What a plugin process left behind is passed on for so long after its end.
const REMAINING_LIMIT: Duration = Duration::from_secs(1);
/// A worker whose connection the plugin closed may read what is left for so long.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that are copied at a time.
const PIECE: usize = 8 * 1024;
/// TCP keepalive of a silent worker: idle time, interval and number of probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(20), 4);

/// How a connection came to its end.
#[derive(Debug)]
enum End {
    /// Both sides had said everything.
    Complete,
    /// The plugin closed its socket.
    Closed,
    /// The worker's side broke.
    WorkerBroke,
    /// The plugin's side broke, or its process is gone.
    PluginBroke,
}

/// Carries the connection until it ends.
pub(super) async fn relay(place: &Place, mut client: TcpStream, source: Ipv4Addr) {
    keep_alive(&client);
    let mut ended = place.ended.clone();
    let dialled = tokio::select! {
        dialled = dial(place, source) => dialled,
        () = is_over(&mut ended) => None,
    };
    let Some(mut plugin) = dialled else {
        return place.counters.leave_unanswered();
    };
    match carry(&mut client, &mut plugin, ended).await {
        End::Complete => {
            let _ = sockopt::set_socket_linger(&plugin, None);
        }
        End::Closed => {
            drop(plugin);
            let _ = timeout(FAREWELL_LIMIT, discard(&mut client)).await;
        }
        End::WorkerBroke => {}
        End::PluginBroke => {
            let _ = client.set_zero_linger();
        }
    }
}

/// Resolves when the plugin process is gone.
async fn is_over(ended: &mut watch::Receiver<bool>) {
    // An error means that its sender is gone, and with it the process's watcher.
    let _ = ended.wait_for(|over| *over).await;
}

/// Connects to the plugin; `None` when nobody took the connection in time.
async fn dial(place: &Place, source: Ipv4Addr) -> Option<TcpStream> {
    let deadline = Instant::now() + DIAL;
    let mut pause = PAUSE.0;
    loop {
        match timeout_at(deadline, attempt(place.port, source)).await {
            Err(_) => break,
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                if stream.peer_addr().is_ok_and(|peer| peer.is_ipv6()) {
                    place.note(
                        "the plugin listens at ::1 only, where it cannot tell workers apart; at 127.0.0.1 it could"
                            .to_owned(),
                    );
                }
                return Some(stream);
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
            Ok(Err(error)) => {
                tracing::warn!(%source, %error, "a worker's connection cannot be passed on");
                break;
            }
        }
        if Instant::now() + pause >= deadline {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
    None
}

async fn attempt(port: u16, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Whatever ends this connection early shall end the plugin's socket too, also one that the
    // plugin has closed: it would keep the plugin's port in use for another minute, and a process
    // that is started again could not take it.
    socket.set_zero_linger()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let refused = match socket.connect((Ipv4Addr::LOCALHOST, port).into()).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => error,
        other => return other,
    };
    match TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(_) => Err(refused),
    }
}

/// Which end of a direction broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Source,
    Target,
}

enum First {
    Down(Result<(), Broken>),
    Up(Result<(), Broken>),
    ProcessGone,
}

/// Copies until the end. Both sockets are still open then.
async fn carry(
    client: &mut TcpStream,
    plugin: &mut TcpStream,
    mut ended: watch::Receiver<bool>,
) -> End {
    let (Ok(far), Ok(near)) = (plugin.peer_addr(), plugin.local_addr()) else {
        return End::PluginBroke;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_plugin, mut to_plugin) = plugin.split();
    let up = async {
        pump(&mut from_client, &mut to_plugin).await?;
        // A socket that is closed already is not said goodbye to: it would linger after that.
        if sockets::is_abandoned(far, near) {
            return Err(Broken::Target);
        }
        to_plugin.shutdown().await.map_err(|_| Broken::Target)
    };
    let down = async {
        pump(&mut from_plugin, &mut to_client).await?;
        to_client.shutdown().await.map_err(|_| Broken::Target)
    };
    tokio::pin!(up, down);
    let first = tokio::select! {
        biased;
        done = &mut down => First::Down(done),
        done = &mut up => First::Up(done),
        () = is_over(&mut ended) => First::ProcessGone,
    };
    match first {
        // The plugin has said its last word; it may still listen.
        First::Down(Ok(())) => tokio::select! {
            done = &mut up => match done {
                Ok(()) => End::Complete,
                Err(Broken::Source) => End::WorkerBroke,
                Err(Broken::Target) => End::Closed,
            },
            () = is_abandoned(far, near) => End::Closed,
            () = is_over(&mut ended) => End::Closed,
        },
        First::Down(Err(broken)) => of_down(broken),
        // The worker has; the plugin may still answer.
        First::Up(Ok(())) => tokio::select! {
            done = &mut down => done.map_or_else(of_down, |()| End::Complete),
            () = is_over(&mut ended) => remaining_bytes(REMAINING_LIMIT, down).await,
        },
        First::Up(Err(Broken::Source)) => End::WorkerBroke,
        // It closed its socket while the worker went on; its answer may be on the way.
        First::Up(Err(Broken::Target)) => remaining_bytes(FAREWELL_LIMIT, down).await,
        First::ProcessGone => remaining_bytes(REMAINING_LIMIT, down).await,
    }
}

fn of_down(broken: Broken) -> End {
    match broken {
        Broken::Source => End::PluginBroke,
        Broken::Target => End::WorkerBroke,
    }
}

/// Passes on what was sent by a socket that is closed already.
async fn remaining_bytes(limit: Duration, down: impl Future<Output = Result<(), Broken>>) -> End {
    match timeout(limit, down).await {
        Ok(Ok(())) => End::Closed,
        Ok(Err(broken)) => of_down(broken),
        Err(_) => End::PluginBroke,
    }
}

/// Copies one direction to its end.
async fn pump(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Result<(), Broken> {
    let mut bytes = vec![0; PIECE];
    loop {
        let length = from.read(&mut bytes).await.map_err(|_| Broken::Source)?;
        if length == 0 {
            return Ok(());
        }
        let piece = &bytes[..length];
        to.write_all(piece).await.map_err(|_| Broken::Target)?;
    }
}

/// Resolves when the plugin closed its socket altogether; never when it only ceased to send.
async fn is_abandoned(far: SocketAddr, near: SocketAddr) {
    for pause in LOOKS {
        sleep(pause).await;
        if sockets::is_abandoned(far, near) {
            return;
        }
    }
    std::future::pending().await
}

async fn discard(client: &mut TcpStream) {
    let mut bytes = [0; 4096];
    while matches!(client.read(&mut bytes).await, Ok(1..)) {}
}

/// A worker that vanished without a word shall not hold its place for ever.
fn keep_alive(client: &TcpStream) {
    let _ = client.set_nodelay(true);
    let (idle, pause, times) = KEEPALIVE;
    let set = || {
        sockopt::set_socket_keepalive(client, true)?;
        sockopt::set_tcp_keepidle(client, idle)?;
        sockopt::set_tcp_keepintvl(client, pause)?;
        sockopt::set_tcp_keepcnt(client, times)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a worker's connection is not kept alive");
    }
}
