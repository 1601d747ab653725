//! Feeds the state machine with what happens, and does what it says. `clients.rs` lets clients in.

mod clients;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use patchbay_launcher::control::{self, Command, StartId, Stream};
use patchbay_protocol::handshake::looks_like_handshake;
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session::Instance;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::configuration::{Configuration, ConfigurationError};
use crate::counters::Counters;
use crate::family::go_plugin::connection;
use crate::family::go_plugin::stdio::{self, Fanout};
use crate::family::go_plugin::tls::HostCertificate;
use crate::family::{self, Clients, PluginConnection, ShutdownAnswer};
use crate::handover::Record;
use crate::instance::failure::Failure;
use crate::instance::{Action, Announced, Dialled, Event, Gone, Machine, Now};
use crate::jobs::{Greeting, Jobs};
use crate::launcher_connection::{FromLauncher, Orders};
use crate::output::Output;
use crate::paths::Root;
use crate::proxy::{ProxyHandle, Upstream};
use crate::ready::Readiness;
use crate::session::FromOperator;
use crate::start_command::start_command;
use crate::workers::{Serving, Workers};
use crate::{logs, random, sandbox};

use clients::drain;

/// Limit of listing the plugin's services.
const LIST_LIMIT: Duration = Duration::from_secs(5);

/// What our own tasks tell the main loop.
pub(crate) enum TaskEvent {
    Event(Event),
    Connected(StartId, Result<PluginConnection, Failure>),
    /// The last drain of a sidecar that leaves.
    Left,
}

pub(crate) struct Driver {
    root: Root,
    began: Instant,
    pub(crate) machine: Machine,
    configuration: Configuration,
    orders: Orders,
    task_events: mpsc::Sender<TaskEvent>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) released: Arc<AtomicBool>,
    pub(crate) instance: watch::Sender<Instance>,
    readiness: watch::Sender<Readiness>,
    /// What a next sidecar needs.
    record: Option<Record>,
    /// Everything that belongs to the living process.
    tasks: JoinSet<()>,
    connection: Option<PluginConnection>,
    output: Arc<Mutex<Output>>,
    stdio: Fanout,
    upstream: watch::Sender<Upstream>,
    /// The proxy port, as the launcher handed it over.
    listener: Option<TcpListener>,
    proxy: Option<ProxyHandle>,
    jobs: Jobs,
    workers: Option<Workers>,
    /// External workers of the process that is ready.
    serving: Option<Serving>,
    greetings: watch::Receiver<Option<Greeting>>,
    /// The process that the jobs know of.
    process: Option<StartId>,
    /// Whether it is called for jobs.
    called: bool,
    leaving: bool,
    pub(crate) left: bool,
}

impl Driver {
    pub(crate) fn new(
        root: Root,
        orders: Orders,
        jobs: Jobs,
        counters: Arc<Counters>,
        workers: Option<Workers>,
        readiness: watch::Sender<Readiness>,
        task_events: mpsc::Sender<TaskEvent>,
    ) -> Driver {
        let record = Record::read(&root);
        let released = sandbox::was_released(&root);
        let machine = Machine::new(released, record.as_ref().map(Record::resumed));
        Driver {
            configuration: Configuration::new(root.clone()),
            instance: watch::Sender::new(machine.snapshot().instance),
            output: Arc::new(Mutex::new(Output::new(counters.clone()))),
            released: Arc::new(AtomicBool::new(released)),
            upstream: watch::Sender::new(Upstream::Absent(Reason::WaitingForLauncher)),
            began: Instant::now(),
            root,
            machine,
            orders,
            task_events,
            counters,
            readiness,
            record,
            tasks: JoinSet::new(),
            connection: None,
            stdio: Fanout::new(),
            listener: None,
            proxy: None,
            greetings: jobs.greetings(),
            jobs,
            workers,
            serving: None,
            process: None,
            called: false,
            leaving: false,
            left: false,
        }
    }

    fn now(&self) -> Now {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Now {
            mono: millis(self.began.elapsed()),
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
            fresh: StartId(random::number()),
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        // The clock counts whole milliseconds: a timer must not fire within the one before.
        self.machine
            .wake_at()
            .map(|at| self.began + Duration::from_millis(at + 1))
    }

    pub(crate) fn step(&mut self, event: Event) {
        let now = self.now();
        for action in self.machine.step(now, event) {
            self.act(action);
        }
        self.name_process();
    }

    /// Tells the jobs which process is the plugin, and the machine what that process said there.
    fn name_process(&mut self) {
        let process = self.machine.process();
        if self.process != process {
            self.process = process;
            self.greetings.mark_changed();
            if let Some(start_id) = process {
                self.jobs.plugin_started(start_id);
            }
        }
        self.on_greeting();
    }

    /// A PCP controller plugin may have introduced itself.
    pub(crate) fn on_greeting(&mut self) {
        if !self.greetings.has_changed().unwrap_or(false) {
            return;
        }
        let greeting = self.greetings.borrow_and_update().clone();
        if let Some(greeting) = greeting
            && Some(greeting.start_id) == self.process
        {
            self.step(Event::Greeted(Box::new(greeting)));
        }
    }

    fn spawn_task<F>(&mut self, task: F)
    where
        F: Future<Output = TaskEvent> + Send + 'static,
    {
        let task_events = self.task_events.clone();
        self.tasks.spawn(async move {
            let event = task.await;
            let _ = task_events.send(event).await;
        });
    }

    fn act(&mut self, action: Action) {
        tracing::debug!(?action, "the instance acts");
        match action {
            Action::Start(start_id, config) => self.start(start_id, config),
            Action::Dial(start_id, announced) => self.dial(start_id, announced),
            Action::CheckHealth(start_id, millis) => {
                let Some(connection) = self.connection.clone() else {
                    return;
                };
                self.spawn_task(async move {
                    TaskEvent::Event(
                        connection
                            .check(start_id, Duration::from_millis(millis))
                            .await,
                    )
                });
            }
            Action::ListServices(start_id) => {
                let Some(connection) = self.connection.clone() else {
                    return;
                };
                self.spawn_task(async move {
                    TaskEvent::Event(connection.list(start_id, LIST_LIMIT).await)
                });
            }
            Action::Admit(start_id) => {
                tracing::info!(%start_id, "the plugin is ready");
                self.let_workers_in(start_id);
                let Some(connection) = &self.connection else {
                    return;
                };
                self.upstream
                    .send_replace(Upstream::Present(connection.endpoint.clone()));
            }
            Action::Drain(start_id, millis) => {
                let limit = Duration::from_millis(millis);
                let proxy = self.proxy.take();
                let task_events = self.task_events.clone();
                let answered = tokio::time::timeout(limit, self.jobs.stopping(start_id));
                // Not among the process's tasks: its connections outlive the process.
                tokio::spawn(async move {
                    let _ = tokio::join!(drain(proxy, limit), answered);
                    let _ = task_events
                        .send(TaskEvent::Event(Event::Drained(start_id)))
                        .await;
                });
            }
            Action::CallShutdown(start_id, millis) => {
                let limit = Duration::from_millis(millis);
                let connection = self.connection.clone();
                self.spawn_task(async move {
                    let answer = match connection {
                        Some(connection) => connection.shutdown(limit).await,
                        None => ShutdownAnswer::Unsupported,
                    };
                    tracing::info!(%start_id, ?answer, "the plugin was asked to shut down");
                    TaskEvent::Event(Event::ShutdownAnswered(start_id, answer))
                });
            }
            Action::Signal(start_id, signal) => {
                tracing::info!(%start_id, signal, "the plugin's process group is sent a signal");
                self.order(&Command::Signal { start_id, signal });
            }
            Action::Forget(start_id, gone) => self.forget(start_id, gone),
            Action::Reconnect => self.orders.reconnect(),
        }
    }

    fn order(&self, command: &Command) {
        if let Err(error) = self.orders.send(command) {
            tracing::error!(%error, "an order to the launcher was lost");
            self.orders.reconnect();
        }
    }

    fn start(&mut self, start_id: StartId, config: Box<PodConfig>) {
        let host = if family::of(&config.protocol).needs_host_certificate() {
            match HostCertificate::generate() {
                Ok(host) => Some(host),
                Err(error) => {
                    let failure = Failure::new(error.reason(), error.to_string());
                    return self.step(Event::NotOrdered(start_id, failure));
                }
            }
        } else {
            None
        };
        let start = start_command(&self.root, start_id, &config, host.as_ref());
        let mut record = Record::new(start_id, self.machine.launcher_id(), config, host.as_ref());
        record.restarts = self.machine.restarts();
        record.backoff = self.machine.backoff();
        self.keep(record);
        self.output = Arc::new(Mutex::new(Output::new(self.counters.clone())));
        tracing::info!(%start_id, "the plugin is ordered to start");
        if let Err(error) = self.orders.send(&Command::Start(start)) {
            let failure = Failure::new(
                Reason::ExecFailed,
                format!("order the plugin's start: {error}"),
            );
            self.step(Event::NotOrdered(start_id, failure));
        }
    }

    /// Keeps the record, first on disk.
    fn keep(&mut self, record: Record) {
        if let Err(error) = record.write(&self.root) {
            tracing::error!(%error, "a next sidecar will have to restart the plugin");
        }
        self.record = Some(record);
    }

    fn dial(&mut self, start_id: StartId, announced: Announced) {
        if let Some(mut record) = self.record.take() {
            record.announce(&announced.line, announced.millis);
            self.keep(record);
        }
        self.order(&Command::Announced { start_id });
        let family = family::of(&announced.config.protocol);
        match family.address(&self.root, &announced, self.record.as_ref()) {
            Ok(address) => {
                self.spawn_task(async move {
                    TaskEvent::Connected(start_id, connection::dial(address).await)
                });
            }
            Err(failure) => self.step(Event::Dialled(start_id, Err(failure))),
        }
    }

    pub(crate) fn connected(
        &mut self,
        start_id: StartId,
        outcome: Result<PluginConnection, Failure>,
    ) {
        match outcome {
            Ok(connection) => {
                let tls = connection.tls.clone();
                self.follow_stdio(start_id, &connection);
                self.connection = Some(connection);
                self.step(Event::Dialled(start_id, Ok(Dialled { tls })));
            }
            Err(failure) => self.step(Event::Dialled(start_id, Err(failure))),
        }
    }

    /// A plugin whose stdio nobody reads stands still after a while, so this is never waited with.
    fn follow_stdio(&mut self, start_id: StartId, connection: &PluginConnection) {
        let (channel, fanout, output) = (
            connection.channel.clone(),
            self.stdio.clone(),
            self.output.clone(),
        );
        self.spawn_task(async move {
            stdio::follow(channel, fanout, move |line| {
                output.lock().unwrap_or_else(PoisonError::into_inner).stdio(&line);
            })
            .await;
            let note = "the plugin has no stdio service: what it prints after the handshake is seen only as raw lines";
            TaskEvent::Event(Event::Warning(start_id, note.to_owned()))
        });
    }

    fn forget(&mut self, start_id: StartId, gone: Gone) {
        tracing::info!(%start_id, ?gone, "the plugin process is gone");
        self.jobs.plugin_serves(start_id, None);
        self.called = false;
        self.serving = None;
        match gone {
            Gone::Ended(exit) => self.jobs.plugin_ended(start_id, Some(exit)),
            Gone::Unseen => self.jobs.plugin_ended(start_id, None),
            Gone::OutOfReach => {}
        }
        self.tasks.abort_all();
        while self.tasks.try_join_next().is_some() {}
        self.connection = None;
        self.upstream
            .send_replace(Upstream::Absent(Reason::Starting));
    }

    pub(crate) fn on_launcher(&mut self, event: FromLauncher) {
        match event {
            FromLauncher::Connected(hello, listener) => {
                tracing::info!(launcher_id = format!("{:016x}", hello.launcher_id), state = ?hello.state, "the launcher answers");
                if !hello.terminating {
                    self.change_listener(listener);
                }
                self.step(Event::Connected(hello));
                self.counters
                    .reattachments
                    .store(self.machine.reattachments(), Ordering::Relaxed);
            }
            FromLauncher::Disconnected => {
                // As long as we hold the socket, no next launcher gets the port.
                self.change_listener(None);
                self.step(Event::Disconnected);
            }
            FromLauncher::Event(control::Event::Line(line)) => {
                // The handshake is shown in status; its certificate would only fill the log.
                if line.stream == Stream::Stderr || !looks_like_handshake(&line.bytes) {
                    self.output
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .line(&line);
                }
                self.step(Event::Launcher(control::Event::Line(line)));
            }
            FromLauncher::Event(control::Event::Dropped { lines, bytes }) => {
                self.output
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .lost(lines, bytes);
            }
            FromLauncher::Event(event) => {
                tracing::info!(?event, "the launcher tells");
                if event == control::Event::Terminating {
                    // The proxy's own copy goes with its drain.
                    self.listener = None;
                }
                self.step(Event::Launcher(event));
            }
        }
    }

    pub(crate) fn handle_operator_message(&mut self, message: FromOperator) {
        match message {
            FromOperator::AllowStart => {
                if !self.released.swap(true, Ordering::Relaxed) {
                    tracing::info!("the operator released the plugin");
                    if let Err(error) = sandbox::remember_release(&self.root) {
                        tracing::warn!(%error, "the release counts only for this process");
                    }
                }
                self.step(Event::Released);
            }
            FromOperator::Configure(json) => {
                let accepted = self.configuration.accept(&json);
                self.take_configuration(accepted);
            }
        }
    }

    pub(crate) fn read_configuration(&mut self, first: bool) {
        if first && let Some(cached) = self.configuration.cached() {
            self.take_configuration(Ok(Some(cached)));
        }
        let seen = self.configuration.look();
        self.take_configuration(seen);
    }

    fn take_configuration(&mut self, found: Result<Option<PodConfig>, ConfigurationError>) {
        match found {
            Ok(Some(config)) => {
                logs::name_plugin(&config.plugin.namespace, &config.plugin.name);
                tracing::info!(revision = config.revision, "a configuration is in force");
                self.jobs.configure(&config);
                self.step(Event::Configured(Box::new(config)));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the configuration cannot be used");
                self.step(Event::ConfigurationUnreadable(error.to_string()));
            }
        }
    }

    /// SIGTERM: the sidecar is swapped, or the pod ends. The plugin is the launcher's to end.
    pub(crate) fn leave(&mut self) {
        if self.leaving {
            return;
        }
        tracing::info!("the sidecar is being stopped");
        self.leaving = true;
        self.jobs.leave();
        self.step(Event::Leaving);
        self.listener = None;
        let (proxy, limit, task_events) = (
            self.proxy.take(),
            self.drain_limit(),
            self.task_events.clone(),
        );
        let jobs = self.jobs.clone();
        tokio::spawn(async move {
            drain(proxy, limit).await;
            let _ = tokio::time::timeout(limit, jobs.calls_done()).await;
            let _ = task_events.send(TaskEvent::Left).await;
        });
    }

    /// Tells the operator, the readiness probe and waiting clients what is new.
    pub(crate) fn publish(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let snapshot = self.machine.snapshot();
        self.keep_proxy(snapshot.instance.phase());
        self.keep_calls(snapshot.instance.phase());
        self.publish_absence(&snapshot.instance.reason);
        self.instance.send_if_modified(|known| {
            let now = &snapshot.instance;
            if (known.phase, &known.reason) != (now.phase, &now.reason) {
                tracing::info!(phase = ?now.phase(), reason = now.reason, text = now.message, "the instance changed");
            }
            let changed = known != now;
            known.clone_from(now);
            changed
        });
        let readiness = match snapshot.readiness {
            Readiness::Ready if self.proxy.is_none() && self.clients() == Some(Clients::Proxy) => {
                Readiness::NotReady(format!(
                    "{}: the proxy port is not served",
                    Reason::WaitingForLauncher
                ))
            }
            other => other,
        };
        self.readiness.send_if_modified(|known| {
            let changed = *known != readiness;
            *known = readiness;
            changed
        });
    }
}
