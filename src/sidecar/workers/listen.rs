//! Takes the pod's addresses once the plugin listens on localhost, and accepts workers there.
//!
//! Not before: a plugin that listens at every address by itself could not do so with ours taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::address_map::AddressMap;
use super::counters::WorkerCounters;
use super::{relay, sockets};

/// How often it is looked whether the plugin listens: at first, after some seconds, and for good,
/// since a plugin without workers never does.
const LOOKS: [(Duration, Duration); 3] = [
    (Duration::from_secs(3), Duration::from_millis(50)),
    (Duration::from_secs(60), Duration::from_millis(250)),
    (Duration::MAX, Duration::from_secs(2)),
];
/// Pauses between attempts to take an address: the first and the longest.
const BIND_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// An address that is not ours after this time is told.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// Wait after an error of accept that does not go away by itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where workers are let in.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) port: u16,
    pub(super) pod_ips: Vec<IpAddr>,
    pub(super) address_map: Arc<AddressMap>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) notes: mpsc::Sender<String>,
    /// Turns true when the plugin process is gone.
    pub(super) ended: watch::Receiver<bool>,
}

impl Place {
    /// Tells the plugin's owner something. Notes that nobody reads are only logged.
    pub(super) fn note(&self, text: String) {
        tracing::warn!("{text}");
        let _ = self.notes.try_send(text);
    }
}

/// What the plugin's own listeners mean.
#[derive(Debug, PartialEq, Eq)]
enum Listens {
    Nowhere,
    /// On localhost: the pod's addresses are left to us.
    Locally,
    /// Where workers reach it by themselves.
    Openly,
}

fn judge(listeners: &[IpAddr], pod_ips: &[IpAddr]) -> Listens {
    let local = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    if listeners.iter().any(IpAddr::is_unspecified) {
        Listens::Openly
    } else if listeners.iter().any(|ip| local.contains(ip)) {
        Listens::Locally
    } else if listeners.iter().any(|ip| pod_ips.contains(ip)) {
        Listens::Openly
    } else {
        Listens::Nowhere
    }
}

/// Works until it is aborted.
pub(super) async fn run(place: Place) {
    if place.pod_ips.is_empty() {
        place.note("the sidecar does not know the pod's addresses: no worker is let in".to_owned());
        return;
    }
    let began = Instant::now();
    loop {
        match judge(&sockets::listeners(place.port), &place.pod_ips) {
            Listens::Nowhere => {}
            Listens::Locally => break,
            Listens::Openly => {
                return place.note(format!(
                    "the plugin listens on port {} of the pod itself: workers reach it past the sidecar, and their addresses come straight from the kernel",
                    place.port
                ));
            }
        }
        let age = began.elapsed();
        let pause = LOOKS.iter().find(|(until, _)| age < *until);
        tokio::time::sleep(pause.map_or(Duration::from_secs(2), |(_, pause)| *pause)).await;
    }
    let mut doors = JoinSet::new();
    for ip in &place.pod_ips {
        doors.spawn(accept_at(place.clone(), SocketAddr::new(*ip, place.port)));
    }
    while doors.join_next().await.is_some() {}
}

/// One address of the pod.
async fn accept_at(place: Place, address: SocketAddr) {
    let listener = take(&place, address).await;
    tracing::info!(%address, "workers may connect");
    loop {
        match listener.accept().await {
            Ok((client, peer)) => admit(&place, client, peer),
            Err(error) => {
                tracing::warn!(%address, %error, "a worker's connection was lost");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn take(place: &Place, address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    let mut pause = BIND_PAUSE.0;
    let mut is_told = false;
    loop {
        match bind(address) {
            Ok(listener) => return listener,
            Err(error) if !is_told && began.elapsed() >= BIND_PATIENCE => {
                is_told = true;
                place.note(format!(
                    "workers cannot connect at {address}: {error}. Another program of the pod may listen there"
                ));
            }
            Err(error) => tracing::debug!(%address, %error, "the workers' port is not ours yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BIND_PAUSE.1);
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of an earlier process may still be on their way out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn admit(place: &Place, client: TcpStream, peer: SocketAddr) {
    let ip = peer.ip().to_canonical();
    let Some(admitted) = place.counters.admit(ip) else {
        tracing::debug!(client = %ip, "a worker has too many connections");
        return place.counters.refuse();
    };
    let source = match place.address_map.local(ip) {
        Ok(source) => source,
        Err(error) => {
            tracing::warn!(client = %ip, %error, "a worker cannot be let in");
            return place.counters.refuse();
        }
    };
    tracing::debug!(client = %ip, %source, "a worker connects");
    let place = place.clone();
    tokio::spawn(async move {
        relay::relay(&place, client, source).await;
        drop(admitted);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_of_the_plugin_decide() {
        let ips = |words: &[&str]| -> Vec<IpAddr> {
            words.iter().map(|word| word.parse().unwrap()).collect()
        };
        let pod = ips(&["10.0.0.7", "2001:db8::7"]);
        for (listeners, expected) in [
            (&[][..], Listens::Nowhere),
            (&["127.0.0.9", "192.0.2.1"], Listens::Nowhere),
            (&["127.0.0.1"], Listens::Locally),
            (&["::1"], Listens::Locally),
            (&["127.0.0.1", "10.0.0.7"], Listens::Locally),
            (&["0.0.0.0"], Listens::Openly),
            (&["127.0.0.1", "::"], Listens::Openly),
            (&["2001:db8::7"], Listens::Openly),
        ] {
            assert_eq!(judge(&ips(listeners), &pod), expected, "{listeners:?}");
        }
    }
}
