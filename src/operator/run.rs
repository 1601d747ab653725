//! Start, leadership, and the end: every task is joined, and the first end is the end.

use crate::certificates::authority::AuthorityError;
use crate::client::{ClientError, CrashAfterWrites, ServerClock, connect};
use crate::clock::WallClock;
use crate::health::ProcessHealth;
use crate::http::{HttpError, Pages, listen, serve};
use crate::jobs::inspector::DispatchInspector;
use crate::leader::{Candidate, LeaderError, Term};
use crate::leader_tasks::lead;
use crate::logging::{LogFilter, LoggingError, SidecarLogFilter};
use crate::metrics::Metrics;
use crate::metrics::sidecar_totals::SidecarTotals;
use crate::retry::jitter;
use crate::session::tls::OperatorTlsError;
use crate::settings::OperatorArguments;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Everything of a term ends within this, long before anybody else may begin.
const ENDING: Duration = Duration::from_secs(2);

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
pub(crate) struct OperatorProcess {
    pub(crate) arguments: OperatorArguments,
    pub(crate) client: Client,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) totals: Arc<SidecarTotals>,
    pub(crate) health: Arc<ProcessHealth>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) wall: WallClock,
    pub(crate) inspector: Arc<DispatchInspector>,
    pub(crate) sidecar_log: SidecarLogFilter,
    /// Passes and sessions.
    pub(crate) tasks: TaskTracker,
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

impl OperatorProcess {
    pub(crate) fn instance(&self) -> &str {
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
