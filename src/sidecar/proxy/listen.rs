//! Accepting client connections, and the drain.

use super::connection::{self, Client};
use super::counters::ProxyCounters;
use super::upstream::Link;
use super::{Upstream, settings};
use crate::family::go_plugin::stdio::Fanout;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Wait after an error of accept that does not go away by itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Proxy;

impl Proxy {
    /// Serves client connections on `listener`, which the launcher holds too: connections wait in
    /// its queue while no sidecar accepts. Must be called inside the runtime.
    pub fn start(
        listener: std::net::TcpListener,
        upstream: watch::Receiver<Upstream>,
        stdio: Fanout,
        counters: Arc<ProxyCounters>,
    ) -> io::Result<ProxyHandle> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (order, ordered) = oneshot::channel();
        let (drain, draining) = watch::channel(false);
        let listening = Listening {
            listener,
            upstream,
            stdio,
            counters,
            drain,
            draining,
            connections: JoinSet::new(),
        };
        Ok(ProxyHandle {
            order,
            address,
            task: tokio::spawn(listening.run(ordered)),
        })
    }
}

/// A running proxy. Dropping it closes every connection at once.
#[derive(Debug)]
pub struct ProxyHandle {
    order: oneshot::Sender<Duration>,
    address: SocketAddr,
    task: JoinHandle<Drained>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Calls that were cut at the deadline.
    pub calls_cut: u64,
    /// Connections that were closed at the deadline.
    pub connections_cut: u64,
}

impl ProxyHandle {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, tells every client to go elsewhere, lets calls end, and closes what is
    /// left after `limit`. New connections wait in the listener's queue for the next sidecar.
    pub async fn drain(self, limit: Duration) -> Drained {
        // An error means that the task has ended already, and so have the connections.
        let _ = self.order.send(limit);
        self.task.await.unwrap_or_default()
    }
}

struct Listening {
    listener: TcpListener,
    upstream: watch::Receiver<Upstream>,
    stdio: Fanout,
    counters: Arc<ProxyCounters>,
    drain: watch::Sender<bool>,
    draining: watch::Receiver<bool>,
    connections: JoinSet<()>,
}

impl Listening {
    async fn run(mut self, mut ordered: oneshot::Receiver<Duration>) -> Drained {
        let limit = loop {
            tokio::select! {
                order = &mut ordered => match order {
                    Ok(limit) => break limit,
                    // The handle was dropped.
                    Err(_) => return Drained::default(),
                },
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream),
                    Err(error) => {
                        tracing::debug!(%error, "accepting a client connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = self.connections.join_next() => {}
            }
        };
        // In this order: a connection that is accepted now would be lost with this process.
        drop(self.listener);
        self.drain.send_replace(true);
        let connections = &mut self.connections;
        let all_ended = async { while connections.join_next().await.is_some() {} };
        match tokio::time::timeout(limit, all_ended).await {
            Ok(()) => Drained::default(),
            Err(_) => Drained {
                calls_cut: self.counters.in_flight(),
                connections_cut: self.counters.connections(),
            },
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        if self.counters.connections() >= settings::MAX_CONNECTIONS {
            self.counters.connection_refused();
            return;
        }
        let client = Client {
            link: Link::new(self.upstream.clone()),
            stdio: self.stdio.clone(),
            counters: self.counters.clone(),
            draining: self.draining.clone(),
        };
        let counted = self.counters.connection();
        self.connections
            .spawn(connection::serve(stream, client, counted));
    }
}
