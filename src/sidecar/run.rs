//! The sidecar's main loop: waits for whatever happens next and hands it to the driver.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use patchbay_protocol::reason::Reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::counters::Counters;
use crate::driver::{Driver, TaskEvent};
use crate::error::SystemError;
use crate::instance::Event;
use crate::jobs::Jobs;
use crate::paths::Root;
use crate::ready::{self, Readiness};
use crate::session::{self, Hub, Port};
use crate::workers::{self, Workers};
use crate::{debug, directory_watch, install, launcher_connection, logs};

/// Events of our own tasks that wait for the main loop.
const WAITING: usize = 64;

/// Is the sidecar until SIGTERM.
///
/// # Errors
/// Something without which no sidecar can work.
pub fn run(root: PathBuf, session_address: SocketAddr) -> Result<(), SystemError> {
    let root = Root::new(root);
    logs::start()?;
    // First of all: the plugin container's image is only waited for by the launcher in it.
    let written = install::install(&root)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        launcher_written = written,
        "the sidecar starts"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| SystemError::new("start the runtime", error))?;
    let result = runtime.block_on(serve(root, session_address));
    logs::flush();
    result
}

async fn serve(root: Root, session_address: SocketAddr) -> Result<(), SystemError> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| SystemError::new("watch for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| SystemError::new("watch for SIGINT", error))?;
    let mut changes = directory_watch::watch(vec![
        root.run(),
        root.config(),
        root.identity(),
        root.plugin_tls(),
    ]);
    let (readiness, state) = watch::channel(Readiness::NotReady(format!(
        "{}: the sidecar starts",
        Reason::WaitingForLauncher
    )));
    ready::serve(&root, state)?;
    let (orders, mut launcher) = launcher_connection::start(root.control_socket(), changes.clone());
    let (task_events, mut events) = mpsc::channel(WAITING);
    let (operator_sender, mut operator_messages) = mpsc::channel(WAITING);
    let (port, mut ports) = watch::channel(Port::Unknown);

    let jobs = Jobs::start(&root)?;
    let counters = Arc::new(Counters::default());
    let workers = open_workers(&root, &jobs, &counters);
    let mut driver = Driver::new(
        root.clone(),
        orders,
        jobs.clone(),
        counters,
        workers,
        readiness,
        task_events,
    );
    debug::serve(&root, driver.instance.subscribe(), jobs.clone());
    let mut greetings = jobs.greetings();
    let hub = Hub {
        root: root.clone(),
        instance: driver.instance.subscribe(),
        counters: driver.counters.clone(),
        released: driver.released.clone(),
        jobs: jobs.clone(),
        operator_messages: operator_sender,
    };
    tokio::spawn(session::serve(session_address, hub, changes.clone(), port));
    driver.read_configuration(true);

    loop {
        driver.publish();
        let wake = driver.wake_at();
        tokio::select! {
            Some(event) = launcher.recv() => driver.on_launcher(event),
            Some(event) = events.recv() => match event {
                TaskEvent::Event(event) => driver.step(event),
                TaskEvent::Connected(start_id, outcome) => driver.connected(start_id, outcome),
                TaskEvent::Left => driver.left = true,
            },
            Ok(()) = greetings.changed() => driver.on_greeting(),
            Some(message) = operator_messages.recv() => driver.handle_operator_message(message),
            Ok(()) = changes.changed() => driver.read_configuration(false),
            Ok(()) = ports.changed() => {
                let taken = match *ports.borrow_and_update() {
                    Port::Taken(port) => Some(port),
                    Port::Unknown | Port::Ours(_) => None,
                };
                driver.step(Event::PortTaken(taken));
            }
            () = sleep_until(wake) => driver.step(Event::Tick),
            _ = terminate.recv() => driver.leave(),
            _ = interrupt.recv() => driver.leave(),
        }
        if driver.left && !driver.machine.stops() {
            driver.publish();
            tracing::info!("the sidecar ends; the plugin is left alone");
            return Ok(());
        }
    }
}

/// Without the pod's addresses, or without the book of clients, no worker is let in; everything
/// else works.
fn open_workers(root: &Root, jobs: &Jobs, counters: &Counters) -> Option<Workers> {
    let text = std::env::var(workers::POD_IPS).unwrap_or_default();
    let pod_ips = workers::parse_pod_ips(&text).unwrap_or_else(|error| {
        tracing::error!(%error, "no worker can be let in");
        Vec::new()
    });
    match Workers::open(root, pod_ips, counters.workers.clone()) {
        Ok(workers) => {
            jobs.translate_with(workers.address_map());
            Some(workers)
        }
        Err(error) => {
            tracing::error!(%error, "no worker can be let in");
            None
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
