//! One term of the leader: its parts, and that they run until it is over.

use crate::certificates::authority::CertificateAuthority;
use crate::certificates::leaf::RENEWED_AFTER;
use crate::certificates::name::CertificateIdentity;
use crate::certificates::secrets::{Identities, authority};
use crate::controller::job::JobReconciler;
use crate::controller::plugin::{PluginReconciler, REFUSED_AGAIN};
use crate::controller::{Reconciler, Runner};
use crate::events::{Events, Recorder, recorder};
use crate::health::{ProcessHealth, ReadinessGate};
use crate::jobs::dispatch_task::DispatchTask;
use crate::jobs::session_registry::{Inbox, open_registry};
use crate::jobs::{Concurrency, JobContext, JobSettings};
use crate::key::{JobKey, ObjectKey, PluginKey};
use crate::queue::WorkQueue;
use crate::retry::{Policy, Retries, jitter};
use crate::run::{OperatorProcess, RunError};
use crate::session::tls::OperatorTls;
use crate::session::{SessionContext, SidecarSessions};
use crate::status::StatusWriter;
use crate::watch::job_feed::{JobFeed, WatchEvent, feed};
use crate::watch::kubelet::KubeletWarnings;
use crate::watch::plugin_changes::PluginChangeNotifier;
use crate::watch::{Stores, Watching};
use jiff::{SignedDuration, Timestamp};
use patchbay_reconcile::plugin::observe::{Settings, default_sidecar_resources};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Wake-ups of one Plugin within this time are one pass. Every millisecond is time to Ready.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// A Job's first pass is on the way to its dispatcher.
const JOB_DEBOUNCE: Duration = Duration::ZERO;
/// Between two attempts to read the authority.
const AUTHORITY: Policy = Policy {
    first: Duration::from_millis(250),
    limit: Duration::from_secs(10),
};
/// Between two looks at the age of the operator's own leaf.
const LEAF_CHECK: Duration = Duration::from_secs(3600);

/// Everything that only a leader does.
pub(crate) async fn lead(process: &OperatorProcess, epoch: u64) -> Result<Infallible, RunError> {
    let authority = Arc::new(process.authority().await);
    process.health.open_gate(ReadinessGate::Authority);
    let term = LeaderTerm::new(process, authority, epoch)?;
    let plugins = term.plugin_runner();
    let jobs = term.job_runner();
    let watching = term.watching();
    let LeaderTerm {
        stores,
        dispatch,
        inbox,
        seen,
        sessions,
        authority,
        recorder,
        ..
    } = term;
    let dispatch_task = DispatchTask::new(dispatch, Arc::clone(&process.health), inbox, seen);
    let reconciling = async {
        alive_until(&process.health, stores.synced()).await;
        tracing::info!(
            plugins = stores.plugins.len(),
            pods = stores.pods.len(),
            jobs = stores.jobs.len(),
            "every store is synced"
        );
        let (never, _) = tokio::join!(plugins.run(), jobs.run());
        never
    };
    tokio::select! {
        never = watching.run() => match never {},
        never = reconciling => match never {},
        never = recorder.run() => match never {},
        error = dispatch_task.run() => Err(RunError::Leader(error)),
        error = renew_own_leaf(&sessions, &authority) => Err(error),
    }
}

/// What the parts of one term share.
struct LeaderTerm<'a> {
    process: &'a OperatorProcess,
    authority: Arc<CertificateAuthority>,
    stores: Arc<Stores>,
    plugin_queue: Arc<WorkQueue<PluginKey>>,
    job_queue: Arc<WorkQueue<JobKey>>,
    feed: JobFeed,
    plugin_changes: Arc<PluginChangeNotifier>,
    dispatch: Arc<JobContext>,
    sessions: Arc<SessionContext>,
    events: Events,
    /// What goes to the dispatch task.
    inbox: Inbox,
    seen: mpsc::Receiver<WatchEvent>,
    recorder: Recorder,
}

impl<'a> LeaderTerm<'a> {
    fn new(
        process: &'a OperatorProcess,
        authority: Arc<CertificateAuthority>,
        epoch: u64,
    ) -> Result<Self, RunError> {
        let stores = Arc::new(Stores::default());
        let plugin_queue = Arc::new(WorkQueue::new(DEBOUNCE));
        let job_queue = Arc::new(WorkQueue::new(JOB_DEBOUNCE));
        let (events, recorder) = recorder(process.client.clone(), process.instance());
        let (feed, seen) = feed();
        let (registry, inbox) = open_registry(Arc::clone(&process.metrics.jobs));
        let dispatch = Arc::new(JobContext {
            client: process.client.clone(),
            stores: Arc::clone(&stores),
            queue: Arc::clone(&job_queue),
            feed: feed.clone(),
            sessions: registry,
            events: events.clone(),
            metrics: Arc::clone(&process.metrics.jobs),
            wall: process.wall.clone(),
            clock: Arc::clone(&process.clock),
            settings: JobSettings {
                namespace_output: process.arguments.namespace_output_bytes,
            },
            inspector: Arc::clone(&process.inspector),
            concurrency: Concurrency::default(),
        });
        let wake = Arc::clone(&plugin_queue);
        let sessions = Arc::new(SessionContext {
            installation: authority.installation().clone(),
            epoch,
            tls: RwLock::new(operator_tls(&authority)?),
            changed: Box::new(move |key: &PluginKey| wake.wake(key.clone())),
            metrics: Arc::clone(&process.metrics),
            totals: Arc::clone(&process.totals),
            jobs: Arc::clone(&dispatch),
            sidecar_log: process.sidecar_log.clone(),
            snapshots: Mutex::default(),
        });
        let plugin_changes = Arc::new(PluginChangeNotifier::new(
            Arc::clone(&stores),
            Arc::clone(&job_queue),
            feed.clone(),
        ));
        Ok(Self {
            process,
            authority,
            stores,
            plugin_queue,
            job_queue,
            feed,
            plugin_changes,
            dispatch,
            sessions,
            events,
            inbox,
            seen,
            recorder,
        })
    }

    fn plugin_runner(&self) -> Runner<PluginReconciler> {
        let process = self.process;
        let reconciler = PluginReconciler {
            client: process.client.clone(),
            stores: Arc::clone(&self.stores),
            plugin_changes: Arc::clone(&self.plugin_changes),
            sessions: Arc::new(SidecarSessions::new(
                Arc::clone(&self.sessions),
                process.tasks.clone(),
            )),
            identities: Arc::new(Identities::new(
                process.client.clone(),
                Arc::clone(&self.authority),
                Arc::clone(&process.metrics),
            )),
            kubelet: KubeletWarnings::new(process.client.clone()),
            status: StatusWriter::new(process.client.clone()),
            events: self.events.clone(),
            settings: process.settings(&self.authority),
            refusals: Mutex::new(Retries::new(REFUSED_AGAIN)),
            wall: process.wall.clone(),
        };
        self.runner(
            reconciler,
            &self.plugin_queue,
            process.arguments.concurrency,
        )
    }

    fn job_runner(&self) -> Runner<JobReconciler> {
        let reconciler = JobReconciler::new(Arc::clone(&self.dispatch));
        let concurrency = self.process.arguments.job_concurrency;
        self.runner(reconciler, &self.job_queue, concurrency)
    }

    fn runner<R: Reconciler>(
        &self,
        reconciler: R,
        queue: &Arc<WorkQueue<ObjectKey>>,
        concurrency: u16,
    ) -> Runner<R> {
        Runner {
            kind: Arc::new(reconciler),
            queue: Arc::clone(queue),
            metrics: Arc::clone(&self.process.metrics),
            health: Arc::clone(&self.process.health),
            events: self.events.clone(),
            concurrency: usize::from(concurrency),
            tasks: self.process.tasks.clone(),
        }
    }

    fn watching(&self) -> Watching {
        Watching {
            client: self.process.client.clone(),
            stores: Arc::clone(&self.stores),
            queue: Arc::clone(&self.plugin_queue),
            job_queue: Arc::clone(&self.job_queue),
            feed: self.feed.clone(),
            plugin_changes: Arc::clone(&self.plugin_changes),
            metrics: Arc::clone(&self.process.metrics),
            health: Arc::clone(&self.process.health),
        }
    }
}

impl OperatorProcess {
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
