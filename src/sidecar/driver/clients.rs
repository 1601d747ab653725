//! Letting clients in: client programs through the proxy, or external workers.

use std::net::TcpListener;
use std::time::Duration;

use patchbay_launcher::control::StartId;
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session::Phase;
use tokio::sync::mpsc;

use super::{Driver, TaskEvent};
use crate::family::{self, Clients};
use crate::instance::Event;
use crate::proxy::{Proxy, ProxyHandle, Upstream};

/// Notes about workers that wait to be told.
const NOTES: usize = 8;

impl Driver {
    pub(super) fn let_workers_in(&mut self, start_id: StartId) {
        let config = self.record.as_ref().map(|record| &record.config.protocol);
        let clients = config.map(|config| family::of(config).clients());
        let (Some(Clients::Workers(port)), Some(workers)) = (clients, &self.workers) else {
            return;
        };
        let (tell, mut notes) = mpsc::channel(NOTES);
        self.serving = Some(workers.serve(port, tell));
        let task_events = self.task_events.clone();
        self.tasks.spawn(async move {
            while let Some(note) = notes.recv().await {
                let _ = task_events
                    .send(TaskEvent::Event(Event::Warning(start_id, note)))
                    .await;
            }
        });
    }

    /// A plugin that says that it does not serve gets no further call for a job. What is under way
    /// goes on.
    pub(super) fn keep_calls(&mut self, phase: Phase) {
        let (Some(start_id), Some(connection)) = (self.process, &self.connection) else {
            return;
        };
        let called = match phase {
            Phase::Ready => true,
            Phase::Unhealthy => false,
            _ => return,
        };
        if std::mem::replace(&mut self.called, called) != called {
            self.jobs
                .plugin_serves(start_id, called.then(|| connection.channel.clone()));
        }
    }

    /// Another listening socket, or none: connections of the old one may end in peace.
    pub(super) fn change_listener(&mut self, listener: Option<TcpListener>) {
        if let Some(old) = self.proxy.take() {
            let limit = self.drain_limit();
            tokio::spawn(drain(Some(old), limit));
        }
        self.listener = listener;
    }

    /// Accepts clients as soon as there is a plugin to call, or a failure to tell them. While one
    /// starts, is taken over or is being stopped, they wait in the socket's queue instead of being
    /// sent away: so nothing is lost when a sidecar is swapped.
    pub(super) fn keep_proxy(&mut self, phase: Phase) {
        match self.clients() {
            // They have a port of their own.
            Some(Clients::Workers(_)) => return self.change_listener(None),
            // Without a configuration clients are told so.
            Some(Clients::Proxy) | None => {}
        }
        let admitted = matches!(&*self.upstream.borrow(), Upstream::Present(_));
        let waits = matches!(phase, Phase::Starting | Phase::WaitingForLauncher) && !admitted;
        if self.proxy.is_some() || self.leaving || self.machine.stops() || waits {
            return;
        }
        let Some(listener) = &self.listener else {
            return;
        };
        let started = listener.try_clone().and_then(|listener| {
            Proxy::start(
                listener,
                self.upstream.subscribe(),
                self.stdio.clone(),
                self.counters.proxy.clone(),
            )
        });
        match started {
            Ok(proxy) => self.proxy = Some(proxy),
            Err(error) => {
                tracing::error!(%error, "the proxy port cannot be served");
                self.listener = None;
                // The next greeting brings the socket again.
                self.orders.reconnect();
            }
        }
    }

    /// Which clients the plugin has; `None` before there is a configuration.
    pub(super) fn clients(&self) -> Option<Clients> {
        let config = self.machine.config()?;
        Some(family::of(&config.protocol).clients())
    }

    pub(super) fn drain_limit(&self) -> Duration {
        Duration::from_secs(
            self.machine
                .config()
                .map_or(5, |config| config.shutdown.drain_seconds.into()),
        )
    }

    pub(super) fn publish_absence(&self, reason: &str) {
        let Some(reason) = Reason::parse(reason) else {
            return;
        };
        self.upstream.send_if_modified(|upstream| match upstream {
            Upstream::Absent(shown) if *shown != reason => {
                *shown = reason;
                true
            }
            Upstream::Absent(_) | Upstream::Present(_) => false,
        });
    }
}

/// Lets the proxy's calls end, for so long at the longest.
pub(super) async fn drain(proxy: Option<ProxyHandle>, limit: Duration) {
    let Some(proxy) = proxy else { return };
    let drained = proxy.drain(limit).await;
    if drained.calls_cut > 0 {
        tracing::warn!(
            calls = drained.calls_cut,
            connections = drained.connections_cut,
            "calls did not end in time and were cut"
        );
    }
}
