//! Start, leadership, and the end: every task is joined, and the first end is the end.

use crate::certificates::authority::{AuthorityError, CertificateAuthority};
use crate::certificates::leaf::RENEWED_AFTER;
use crate::certificates::name::CertificateIdentity;
use crate::certificates::secrets::{Identities, authority};
use crate::client::{ClientError, CrashAfterWrites, ServerClock, connect};
use crate::clock::WallClock;
use crate::controller::Runner;
use crate::controller::job::JobReconciler;
use crate::controller::plugin::{PluginReconciler, REFUSED_AGAIN};
use crate::events::{Events, recorder};
use crate::health::{ProcessHealth, ReadinessGate};
use crate::http::{HttpError, Pages, listen, serve};
use crate::jobs::dispatch_task::DispatchTask;
use crate::jobs::inspector::DispatchInspector;
use crate::jobs::job_feed::{JobFeed, WatchEvent, feed};
use crate::jobs::session_registry::{Inbox, open_registry};
use crate::jobs::{Concurrency, JobContext, JobSettings};
use crate::key::{JobKey, PluginKey};
use crate::leader::{Candidate, LeaderError, Term};
use crate::logging::{LogFilter, LoggingError, SidecarLogFilter};
use crate::metrics::Metrics;
use crate::queue::WorkQueue;
use crate::retry::{Policy, Retries, jitter};
use crate::session::tls::{OperatorTls, OperatorTlsError};
use crate::session::totals::SidecarTotals;
use crate::session::{SessionContext, SidecarSessions};
use crate::settings::OperatorArguments;
use crate::status::StatusWriter;
use crate::watch::kubelet::KubeletWarnings;
use crate::watch::plugin_changes::PluginChangeNotifier;
use crate::watch::{Stores, Watching};
use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client};
use patchbay_reconcile::plugin::observe::{Settings, default_sidecar_resources};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// Wake-ups of one Plugin within this time are one pass. Every millisecond is time to Ready.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// A Job's first pass is on the way to its dispatcher.
const JOB_DEBOUNCE: Duration = Duration::ZERO;
/// Everything of a term ends within this, long before anybody else may begin.
const ENDING: Duration = Duration::from_secs(2);
/// Between two attempts to read the authority.
const AUTHORITY: Policy = Policy {
    first: Duration::from_millis(250),
    limit: Duration::from_secs(10),
};
/// Between two looks at the age of the operator's own leaf.
const LEAF_CHECK: Duration = Duration::from_secs(3600);

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No probes.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The filter for sidecars is not one.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// No signals.
    #[error("listening for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The term ended.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// No leaf for ourselves.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A leaf that TLS does not take.
    #[error(transparent)]
    Tls(#[from] OperatorTlsError),
}

/// What lives as long as the process.
struct OperatorProcess {
    arguments: OperatorArguments,
    client: Client,
    metrics: Arc<Metrics>,
    totals: Arc<SidecarTotals>,
    health: Arc<ProcessHealth>,
    clock: Arc<ServerClock>,
    wall: WallClock,
    inspector: Arc<DispatchInspector>,
    sidecar_log: SidecarLogFilter,
    /// Passes and sessions.
    tasks: TaskTracker,
}

/// Runs until a signal comes or something ends that must not.
pub async fn run(arguments: OperatorArguments, log_filter: LogFilter) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let totals = Arc::new(SidecarTotals::default());
    let metrics = Arc::new(Metrics::new(Arc::clone(&totals)));
    let health = Arc::new(ProcessHealth::default());
    let clock = Arc::new(ServerClock::default());
    let listener = listen(arguments.metrics_address).await?;
    let inspector = Arc::new(DispatchInspector::default());
    let sidecar_log = SidecarLogFilter::new(&arguments.sidecar_log)?;
    let pages = Pages {
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
        inspector: Arc::clone(&inspector),
        log_filter,
        sidecar_log: sidecar_log.clone(),
    };
    let wall = WallClock::default();
    if arguments.shift_clock_seconds != 0 {
        shift_clock(&wall, &arguments).map_err(RunError::Signals)?;
    }
    let client = connect(
        arguments.kubeconfig.as_deref(),
        Arc::clone(&metrics),
        Arc::clone(&clock),
        arguments.abort_after_writes.map(CrashAfterWrites::new),
        wall.clone(),
    )
    .await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = arguments.namespace,
        "started"
    );
    let process = OperatorProcess {
        arguments,
        client,
        metrics,
        totals,
        health,
        clock,
        wall,
        inspector,
        sidecar_log,
        tasks: TaskTracker::new(),
    };
    tokio::select! {
        ended = serve_one_term(&process, &mut signals) => ended,
        never = serve(listener, pages) => match never {},
    }
}

async fn serve_one_term(process: &OperatorProcess, signals: &mut Signals) -> Result<(), RunError> {
    let candidate = process.candidate();
    let mut term = tokio::select! {
        term = candidate.begin() => term,
        name = signals.next() => {
            tracing::info!(signal = name, "ending, without having led");
            return Ok(());
        }
    };
    process.health.start_leading();
    let epoch = term.epoch;
    let ended = tokio::select! {
        ended = lead(process, epoch) => match ended {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        error = candidate.hold(&mut term) => Err(RunError::Leader(error)),
        name = signals.next() => {
            tracing::info!(signal = name, "ending");
            Ok(())
        }
    };
    // Everything was told to end with the future above; before that is so nobody else may begin.
    process.tasks.close();
    if timeout(ENDING, process.tasks.wait()).await.is_err() {
        tracing::warn!("a pass or a session has not ended with the term");
    }
    // What somebody else holds by now is not ours to release.
    if !matches!(ended, Err(RunError::Leader(LeaderError::Taken { .. }))) {
        let term: Term = term;
        candidate.release(term).await;
    }
    ended
}

/// Everything that only a leader does.
async fn lead(process: &OperatorProcess, epoch: u64) -> Result<Infallible, RunError> {
    let authority = Arc::new(process.authority().await);
    process.health.open_gate(ReadinessGate::Authority);
    let queue: Arc<WorkQueue<PluginKey>> = Arc::new(WorkQueue::new(DEBOUNCE));
    let stores = Arc::new(Stores::default());
    let changed = {
        let queue = Arc::clone(&queue);
        Box::new(move |key: &PluginKey| queue.wake(key.clone()))
    };
    let (events, recorder) = recorder(process.client.clone(), process.instance());
    let DispatchParts {
        jobs,
        inbox,
        seen,
        feed,
        job_queue,
    } = process.dispatch_parts(&stores, &events);
    let shared = Arc::new(SessionContext {
        installation: authority.installation().clone(),
        epoch,
        tls: RwLock::new(operator_tls(&authority)?),
        changed,
        metrics: Arc::clone(&process.metrics),
        totals: Arc::clone(&process.totals),
        jobs: Arc::clone(&jobs),
        sidecar_log: process.sidecar_log.clone(),
        snapshots: Mutex::default(),
    });
    let plugin_changes = Arc::new(PluginChangeNotifier::new(
        Arc::clone(&stores),
        Arc::clone(&job_queue),
        feed.clone(),
    ));
    let plugins = PluginReconciler {
        client: process.client.clone(),
        stores: Arc::clone(&stores),
        plugin_changes: Arc::clone(&plugin_changes),
        sessions: Arc::new(SidecarSessions::new(
            Arc::clone(&shared),
            process.tasks.clone(),
        )),
        identities: Arc::new(Identities::new(
            process.client.clone(),
            Arc::clone(&authority),
            Arc::clone(&process.metrics),
        )),
        kubelet: KubeletWarnings::new(process.client.clone()),
        status: StatusWriter::new(process.client.clone()),
        events: events.clone(),
        settings: process.settings(&authority),
        refusals: Mutex::new(Retries::new(REFUSED_AGAIN)),
        wall: process.wall.clone(),
    };
    let runner = Runner {
        kind: Arc::new(plugins),
        queue: Arc::clone(&queue),
        metrics: Arc::clone(&process.metrics),
        health: Arc::clone(&process.health),
        events: events.clone(),
        concurrency: usize::from(process.arguments.concurrency),
        tasks: process.tasks.clone(),
    };
    let job_runner = Runner {
        kind: Arc::new(JobReconciler::new(Arc::clone(&jobs))),
        queue: Arc::clone(&job_queue),
        metrics: Arc::clone(&process.metrics),
        health: Arc::clone(&process.health),
        events,
        concurrency: usize::from(process.arguments.job_concurrency),
        tasks: process.tasks.clone(),
    };
    let clerk = DispatchTask::new(jobs, Arc::clone(&process.health), inbox, seen);
    let watching = Watching {
        client: process.client.clone(),
        stores: Arc::clone(&stores),
        queue,
        job_queue,
        feed,
        plugin_changes,
        metrics: Arc::clone(&process.metrics),
        health: Arc::clone(&process.health),
    };
    let working = async {
        alive_until(&process.health, stores.synced()).await;
        tracing::info!(
            plugins = stores.plugins.len(),
            pods = stores.pods.len(),
            jobs = stores.jobs.len(),
            "every store is synced"
        );
        let (never, _) = tokio::join!(runner.run(), job_runner.run());
        never
    };
    tokio::select! {
        never = watching.run() => match never {},
        never = working => match never {},
        never = recorder.run() => match never {},
        error = clerk.run() => Err(RunError::Leader(error)),
        error = renew_own_leaf(&shared, &authority) => Err(error),
    }
}

/// The parts of the dispatcher of Jobs.
struct DispatchParts {
    jobs: Arc<JobContext>,
    inbox: Inbox,
    seen: mpsc::Receiver<WatchEvent>,
    feed: JobFeed,
    job_queue: Arc<WorkQueue<JobKey>>,
}

impl OperatorProcess {
    fn dispatch_parts(&self, stores: &Arc<Stores>, events: &Events) -> DispatchParts {
        let (feed, seen) = feed();
        let (sessions, inbox) = open_registry(Arc::clone(&self.metrics.jobs));
        let job_queue = Arc::new(WorkQueue::new(JOB_DEBOUNCE));
        let jobs = JobContext {
            client: self.client.clone(),
            stores: Arc::clone(stores),
            queue: Arc::clone(&job_queue),
            feed: feed.clone(),
            sessions,
            events: events.clone(),
            metrics: Arc::clone(&self.metrics.jobs),
            wall: self.wall.clone(),
            clock: Arc::clone(&self.clock),
            settings: JobSettings {
                namespace_output: self.arguments.namespace_output_bytes,
            },
            inspector: Arc::clone(&self.inspector),
            concurrency: Concurrency::default(),
        };
        DispatchParts {
            jobs: Arc::new(jobs),
            inbox,
            seen,
            feed,
            job_queue,
        }
    }

    fn instance(&self) -> &str {
        self.arguments
            .pod_name
            .as_deref()
            .unwrap_or("patchbay-operator")
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            leases: Api::namespaced(self.client.clone(), &self.arguments.namespace),
            name: self.arguments.lease.clone(),
            pod: self.arguments.pod_name.clone(),
            // A restarted process is somebody else: the epoch must grow.
            identity: format!("{}_{:08x}", self.instance(), random()),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
            wall: self.wall.clone(),
        }
    }

    async fn authority(&self) -> CertificateAuthority {
        let mut failures = 0;
        loop {
            self.health.heartbeat();
            match authority(&self.client, &self.arguments.namespace, Timestamp::now()).await {
                Ok(authority) => return authority,
                Err(error) => {
                    failures += 1;
                    let delay = AUTHORITY.delay(failures, jitter());
                    tracing::error!(%error, "there is no authority, so nothing can be done");
                    sleep(delay).await;
                }
            }
        }
    }

    fn settings(&self, authority: &CertificateAuthority) -> Settings {
        Settings {
            sidecar_image: self.arguments.sidecar_image.clone(),
            sidecar_pull_policy: self.arguments.sidecar_image_pull_policy.clone(),
            sidecar_resources: default_sidecar_resources(),
            operator_namespace: self.arguments.namespace.clone(),
            operator_labels: self.arguments.operator_labels.iter().cloned().collect(),
            installation: authority.installation().as_str().to_owned(),
            label_prefixes: self.arguments.label_prefixes(),
        }
    }
}

fn operator_tls(authority: &CertificateAuthority) -> Result<OperatorTls, RunError> {
    let leaf = authority.issue(&CertificateIdentity::Operator, Timestamp::now())?;
    Ok(OperatorTls::new(
        &leaf.certificate,
        &leaf.key,
        authority.certificate().clone(),
    )?)
}

/// The operator's leaf is never stored: each term has its own, and a long term a new one in time.
async fn renew_own_leaf(shared: &SessionContext, authority: &CertificateAuthority) -> RunError {
    let mut issued = Timestamp::now();
    loop {
        sleep(LEAF_CHECK).await;
        let now = Timestamp::now();
        if now.duration_since(issued) < RENEWED_AFTER - SignedDuration::from_hours(24) {
            continue;
        }
        match operator_tls(authority) {
            Ok(tls) => {
                *shared.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
                issued = now;
            }
            Err(error) => return error,
        }
    }
}

/// Waiting for the API server is no standstill.
async fn alive_until<T>(health: &ProcessHealth, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return done,
            () = sleep(Duration::from_secs(5)) => health.heartbeat(),
        }
    }
}

fn random() -> u32 {
    (jitter() * f64::from(u32::MAX)) as u32
}

/// Sets the clock wrong, now or when SIGUSR1 comes.
fn shift_clock(wall: &WallClock, arguments: &OperatorArguments) -> Result<(), std::io::Error> {
    let (wall, seconds) = (wall.clone(), arguments.shift_clock_seconds);
    if !arguments.shift_clock_on_signal {
        wall.shift(seconds);
        return Ok(());
    }
    let mut order = signal(SignalKind::user_defined1())?;
    tokio::spawn(async move {
        order.recv().await;
        wall.shift(seconds);
        tracing::warn!(seconds, "the clock is set wrong, as was asked for");
    });
    Ok(())
}

struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
