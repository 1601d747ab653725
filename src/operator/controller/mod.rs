//! Runs passes: takes due objects from the queue, a bounded number at a time, and wraps around
//! each pass what no pass contains itself — timing, metrics, back-off, the one warning event.

pub mod executor;
pub mod job;
pub mod plugin;

use crate::events::{EventContent, Events, Subject};
use crate::health::{LivenessCheck, ProcessHealth};
use crate::key::ObjectKey;
use crate::metrics::{Metrics, ReconcileLabels, StepLabels, WatchLabels};
use crate::queue::WorkQueue;
use crate::retry::{Policy, Retries};
use patchbay_api::Reason;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// First and longest wait after failures.
const RETRY: Policy = Policy {
    first: Duration::from_millis(250),
    limit: Duration::from_secs(60),
};
/// A pass that takes longer is given up; its writes are each safe to have happened or not.
const LONGEST: Duration = Duration::from_secs(60);
/// Number of consecutive failures that are worth an event; one is a blip.
const TELL_AFTER: u32 = 3;
/// Signs of life.
const TICK: Duration = Duration::from_secs(5);

/// How a pass ended well.
#[derive(Debug, PartialEq, Eq)]
pub enum ReconcileOutcome {
    /// Everything is as it should be, or was made so.
    Applied,
    /// A named thing is missing; a watch or the next time wakes us.
    Waiting,
    /// The user must change something; status says what.
    Refused,
    /// The object is gone.
    Gone,
}

impl ReconcileOutcome {
    const fn as_str(&self) -> &'static str {
        match self {
            ReconcileOutcome::Applied => "applied",
            ReconcileOutcome::Waiting => "waiting",
            ReconcileOutcome::Refused => "refused",
            ReconcileOutcome::Gone => "gone",
        }
    }
}

/// What a pass hands back.
#[derive(Debug)]
pub struct Reconciled {
    pub outcome: ReconcileOutcome,
    /// Look again at this time, whatever happens.
    pub next: Option<Instant>,
}

/// Times the steps of one pass.
pub struct StepTimer {
    kind: &'static str,
    metrics: Arc<Metrics>,
    step: Option<(&'static str, Instant)>,
}

impl StepTimer {
    fn new(kind: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            kind,
            metrics,
            step: None,
        }
    }

    /// The pass enters `step`; the one before has ended.
    pub fn enter(&mut self, step: &'static str) {
        self.end();
        self.step = Some((step, Instant::now()));
    }

    fn end(&mut self) {
        if let Some((step, begun)) = self.step.take() {
            let labels = StepLabels {
                kind: self.kind,
                step,
            };
            self.metrics
                .steps
                .get_or_create(&labels)
                .observe(begun.elapsed().as_secs_f64());
        }
    }

    fn name(&self) -> &'static str {
        self.step.map_or("begin", |(step, _)| step)
    }
}

impl Drop for StepTimer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A kind of object that is worked on.
pub trait Reconciler: Send + Sync + 'static {
    /// Name for metrics and logs.
    const NAME: &'static str;
    /// Whose signs of life its runner gives.
    const LIVENESS: LivenessCheck;
    /// Why a pass fails.
    type Error: std::error::Error + Send + 'static;

    /// One pass. May be dropped between any two writes.
    fn reconcile(
        &self,
        key: &ObjectKey,
        steps: &mut StepTimer,
    ) -> impl Future<Output = Result<Reconciled, Self::Error>> + Send;

    /// Whom to tell about a failure; nobody when the object is gone.
    fn subject(&self, key: &ObjectKey) -> Option<Subject>;
}

pub struct Runner<R> {
    /// What a pass does.
    pub kind: Arc<R>,
    /// Who is due.
    pub queue: Arc<WorkQueue<ObjectKey>>,
    pub metrics: Arc<Metrics>,
    /// Hears signs of life.
    pub health: Arc<ProcessHealth>,
    pub events: Events,
    /// Passes at a time.
    pub concurrency: usize,
    /// Counts passes that live, the aborted ones too.
    pub tasks: TaskTracker,
}

impl<R: Reconciler> Runner<R> {
    const LABELS: WatchLabels = WatchLabels { kind: R::NAME };

    /// Runs for ever.
    pub async fn run(self) -> Infallible {
        let mut retries = Retries::new(RETRY);
        let mut passes: JoinSet<(ObjectKey, Result<Reconciled, ReconcileFailure>)> = JoinSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                key = self.queue.next(), if passes.len() < self.concurrency => {
                    let pass = reconcile(Arc::clone(&self.kind), key, Arc::clone(&self.metrics));
                    passes.spawn(self.tasks.track_future(pass));
                }
                Some(ended) = passes.join_next() => match ended {
                    Ok((key, result)) => {
                        self.ended(&mut retries, key, result);
                        self.health.heartbeat_of(R::LIVENESS);
                    }
                    // A panic: the process is not to be trusted any more.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                _ = tick.tick() => {
                    self.health.heartbeat_of(R::LIVENESS);
                    let depth = i64::try_from(self.queue.depth()).unwrap_or(i64::MAX);
                    self.metrics.queue_depth.get_or_create(&Self::LABELS).set(depth);
                }
            }
        }
    }

    fn ended(
        &self,
        retries: &mut Retries<ObjectKey>,
        key: ObjectKey,
        result: Result<Reconciled, ReconcileFailure>,
    ) {
        let outcome = match result {
            Ok(passed) => {
                retries.succeeded(&key);
                if let Some(next) = passed.next {
                    self.queue.wake_at(key.clone(), next);
                }
                passed.outcome.as_str()
            }
            Err(failure) => {
                let delay = retries.failed(&key);
                tracing::warn!(
                    kind = R::NAME,
                    namespace = key.namespace,
                    name = key.name,
                    step = failure.step,
                    error = failure.message,
                    again_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                    "the pass failed"
                );
                if retries.in_a_row(&key) >= TELL_AFTER {
                    self.tell(&key, failure);
                }
                self.queue.wake_at(key.clone(), Instant::now() + delay);
                "failed"
            }
        };
        let labels = ReconcileLabels {
            kind: R::NAME,
            outcome,
        };
        self.metrics.reconciles.get_or_create(&labels).inc();
        let failing = i64::try_from(retries.failing()).unwrap_or(i64::MAX);
        self.metrics
            .failing
            .get_or_create(&Self::LABELS)
            .set(failing);
        self.queue.done(&key);
    }

    fn tell(&self, key: &ObjectKey, failure: ReconcileFailure) {
        if let Some(subject) = self.kind.subject(key) {
            let words = EventContent {
                warning: true,
                action: "Reconcile".to_owned(),
                reason: Reason::ReconcileFailed.as_str().to_owned(),
                note: failure.message,
                pod: None,
            };
            self.events.publish(&subject, words);
        }
    }
}

struct ReconcileFailure {
    step: &'static str,
    message: String,
}

async fn reconcile<R: Reconciler>(
    kind: Arc<R>,
    key: ObjectKey,
    metrics: Arc<Metrics>,
) -> (ObjectKey, Result<Reconciled, ReconcileFailure>) {
    let mut steps = StepTimer::new(R::NAME, metrics);
    let span = tracing::info_span!(
        "reconcile",
        kind = R::NAME,
        namespace = key.namespace,
        name = key.name
    );
    let reconciling = kind.reconcile(&key, &mut steps).instrument(span);
    let result = match timeout(LONGEST, reconciling).await {
        Ok(Ok(passed)) => {
            tracing::debug!(
                kind = R::NAME,
                namespace = key.namespace,
                name = key.name,
                outcome = passed.outcome.as_str(),
                "reconciled"
            );
            Ok(passed)
        }
        Ok(Err(error)) => Err(ReconcileFailure {
            step: steps.name(),
            message: error.to_string(),
        }),
        Err(_) => Err(ReconcileFailure {
            step: steps.name(),
            message: format!("given up after {} s", LONGEST.as_secs()),
        }),
    };
    (key, result)
}
