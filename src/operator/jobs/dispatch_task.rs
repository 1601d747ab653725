//! The one task that owns the dispatcher: it passes on events and carries out the effects that come of
//! them. It never waits for a sidecar or for an answer of the API server; all that is under way is
//! owned by it and ends with it.

use super::JobContext;
use super::inspector::SnapshotRequest;
use super::messages::{ClaimOf, DispatchMessage, Entry, Holder};
use super::session_registry::{Inbound, Inbox};
use crate::client::ServerClock;
use crate::health::{LivenessCheck, ProcessHealth};
use crate::leader::LeaderError;
use crate::watch::job_feed::WatchEvent;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::SignedDuration;
use patchbay_protocol::session as wire;
use patchbay_reconcile::job::dispatch::{
    ClaimRef, DialedPod, DispatchLimits, Dispatcher, Effect, Event, JobRef, PluginRefKey,
    WriteOutcome,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wire::from_operator::Message;

/// Signs of life, and gauges.
const TICK: Duration = Duration::from_secs(5);
/// Claims that are remembered although they were neither granted nor given back here.
const CHOSEN: usize = 1024;

/// Runs the dispatcher for one term.
pub struct DispatchTask {
    pub(super) jobs: Arc<JobContext>,
    health: Arc<ProcessHealth>,
    clock: Arc<ServerClock>,
    inbox: Inbox,
    seen: mpsc::Receiver<WatchEvent>,
    dispatcher: Dispatcher,
    begun: Instant,
    effects: Vec<Effect>,
    writing: FuturesUnordered<BoxFuture<'static, Option<WriteDone>>>,
    /// Requests of the debug page.
    inspections: mpsc::Receiver<SnapshotRequest>,
    /// When a claim that is under way was chosen.
    pub(super) chosen: HashMap<String, Instant>,
    /// Open sessions and their pods.
    pub(super) pods: HashMap<u64, Holder>,
    /// Whether every store has had its first list.
    synced: bool,
    /// Whether a list of Jobs is being told.
    listing: bool,
}

/// A write that has ended.
struct WriteDone {
    job: JobRef,
    claim_id: String,
    outcome: WriteOutcome,
}

enum Input {
    Inbound(Inbound),
    WatchEvent(WatchEvent),
    WriteDone(Option<WriteDone>),
    Inspection(SnapshotRequest),
    Alarm,
    Tick,
}

impl DispatchTask {
    /// Before the term's first job.
    pub fn new(
        jobs: Arc<JobContext>,
        health: Arc<ProcessHealth>,
        inbox: Inbox,
        seen: mpsc::Receiver<WatchEvent>,
    ) -> Self {
        Self {
            clock: Arc::clone(&jobs.clock),
            inspections: jobs.inspector.connect(),
            jobs,
            health,
            inbox,
            seen,
            dispatcher: Dispatcher::new(DispatchLimits::default()),
            begun: Instant::now(),
            effects: Vec::new(),
            writing: FuturesUnordered::new(),
            chosen: HashMap::new(),
            pods: HashMap::new(),
            synced: false,
            listing: false,
        }
    }

    /// Runs until the clock turns out to be wrong: an operator that judges times by it must not lead.
    pub async fn run(mut self) -> LeaderError {
        self.handle(Event::Pause);
        self.fill().await;
        self.synced = true;
        self.resume();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let alarm = self.alarm();
            let happened = tokio::select! {
                came = self.inbox.next() => Input::Inbound(came),
                Some(seen) = self.seen.recv() => Input::WatchEvent(seen),
                Some(written) = self.writing.next() => Input::WriteDone(written),
                Some(request) = self.inspections.recv() => Input::Inspection(request),
                () = sleep_until(alarm) => Input::Alarm,
                _ = tick.tick() => Input::Tick,
            };
            // Before anything is decided by the time of day.
            if let Err(seconds) = self.clock.check(self.jobs.wall.now()) {
                return LeaderError::Clock { seconds };
            }
            match happened {
                Input::Inbound(came) => self.came(came),
                Input::WatchEvent(seen) => self.observed(&seen),
                Input::WriteDone(Some(written)) => self.handle(Event::WriteFinished {
                    job: written.job,
                    claim_id: written.claim_id,
                    outcome: written.outcome,
                }),
                Input::WriteDone(None) => {}
                // A page that does not wait any more needs no answer.
                Input::Inspection(request) => drop(request.send(self.dispatcher.snapshot())),
                Input::Alarm => self.handle(Event::Tick),
                Input::Tick => self.measure(),
            }
        }
    }

    /// Hears of everything that is there. Nothing is handed out before: a job that is not known
    /// yet may come before all that are.
    async fn fill(&mut self) {
        let stores = Arc::clone(&self.jobs.stores);
        let mut synced = std::pin::pin!(stores.synced());
        loop {
            tokio::select! {
                biased;
                Some(seen) = self.seen.recv() => self.observed(&seen),
                () = &mut synced => break,
            }
        }
        // What was told before the end of the list.
        while let Ok(seen) = self.seen.try_recv() {
            self.observed(&seen);
        }
    }

    fn alarm(&self) -> Instant {
        let far = self.mono_ms().saturating_add(3_600_000);
        let at = self
            .dispatcher
            .wake_at(self.jobs.wall.now(), self.mono_ms())
            .unwrap_or(far);
        self.begun + Duration::from_millis(at.min(far))
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn handle(&mut self, event: Event<'_>) {
        let (now, mono) = (self.jobs.wall.now(), self.mono_ms());
        self.dispatcher.handle(now, mono, event, &mut self.effects);
        let claiming = self.dispatcher.in_flight() > 0;
        self.jobs
            .concurrency
            .claiming
            .store(claiming, Ordering::Relaxed);
        let mut effects = std::mem::take(&mut self.effects);
        for effects in effects.drain(..) {
            self.execute(effects);
        }
        // The room is used again.
        self.effects = effects;
    }

    /// Hands out again, unless something is still missing.
    fn resume(&mut self) {
        if self.synced && !self.listing {
            self.handle(Event::Resume);
        }
    }

    fn observed(&mut self, seen: &WatchEvent) {
        match seen {
            // The first Job of a list moves what was observed to the end of the list: whatever
            // was chosen before the last one is heard might pass over an earlier one.
            WatchEvent::Listing => {
                self.listing = true;
                self.handle(Event::Pause);
            }
            WatchEvent::Listed => {
                self.listing = false;
                self.resume();
            }
            WatchEvent::Job(job) => self.handle(Event::Job(job)),
            WatchEvent::Answer(job) => self.handle(Event::Answer(job)),
            WatchEvent::JobGone { key, uid } => self.handle(Event::JobGone {
                namespace: &key.namespace,
                name: &key.name,
                uid,
            }),
            WatchEvent::Plugin { key, limits } => {
                let limit = |limit: Option<i32>| limit.and_then(|n| u32::try_from(n).ok());
                let limits = limits.as_ref();
                self.handle(Event::Plugin {
                    key: PluginRefKey {
                        namespace: key.namespace.clone(),
                        name: key.name.clone(),
                    },
                    max_running: limit(limits.and_then(|l| l.max_running)),
                    max_running_per_client: limit(limits.and_then(|l| l.max_running_per_client)),
                });
            }
        }
    }

    fn came(&mut self, came: Inbound) {
        let (session, message) = match came {
            Inbound::Message { session, message } => (session, message),
            Inbound::Closed { session } => {
                if self.pods.remove(&session).is_some() {
                    self.handle(Event::Detached { session });
                }
                return;
            }
        };
        match message {
            DispatchMessage::Attached {
                holder,
                ledger_epoch,
                ledger,
            } => self.attached(session, holder, ledger_epoch, ledger),
            DispatchMessage::WorkRequest {
                claim_id,
                client,
                port,
                wait_ms,
            } => self.handle(Event::WorkRequest {
                session,
                claim_id,
                client,
                port,
                wait_ms,
            }),
            DispatchMessage::CancelRequest { claim_id } => {
                self.handle(Event::CancelRequest { session, claim_id })
            }
            DispatchMessage::ClaimReturned { claim, why } => {
                if let Some(claim) = self.named(session, claim) {
                    tracing::debug!(job = claim.job.name, why, "a claim is given back");
                    self.handle(Event::ClaimReturned { session, claim });
                }
            }
            DispatchMessage::ClaimQueryReply { claim, known } => {
                if let Some(claim) = self.named(session, claim) {
                    self.handle(Event::ClaimQueryReply {
                        session,
                        claim,
                        known,
                    });
                }
            }
        }
    }

    fn attached(&mut self, session: u64, holder: Holder, ledger_epoch: String, ledger: Vec<Entry>) {
        self.pods.insert(session, holder.clone());
        for entry in ledger.iter().filter(|entry| entry.delivered) {
            self.jobs.cancel_if_over(session, &holder, &entry.claim);
        }
        let ledger = ledger
            .into_iter()
            .map(|entry| entry.claim.claim_id)
            .collect();
        self.handle(Event::Attached {
            session,
            pod: DialedPod {
                plugin: PluginRefKey {
                    namespace: holder.plugin.namespace,
                    name: holder.plugin.name,
                },
                pod: holder.pod,
                uid: holder.uid,
            },
            ledger_epoch,
            ledger,
        });
    }

    /// A claim of the namespace that the session's pod is in, and of no other.
    fn named(&self, session: u64, claim: ClaimOf) -> Option<ClaimRef> {
        let holder = self.pods.get(&session)?;
        Some(ClaimRef {
            claim_id: claim.claim_id,
            job: JobRef {
                namespace: holder.plugin.namespace.clone(),
                name: claim.job,
                uid: claim.uid,
            },
        })
    }

    fn execute(&mut self, effects: Effect) {
        let jobs = Arc::clone(&self.jobs);
        match effects {
            Effect::Claim {
                job,
                resource_version,
                choice,
            } => {
                self.chosen.insert(choice.claim_id.clone(), Instant::now());
                self.writing.push(Box::pin(async move {
                    let outcome = jobs.claim(&job, &resource_version, &choice).await;
                    if let WriteOutcome::Refused(why) = &outcome {
                        jobs.tell_of_refusal(&job, why);
                    }
                    let claim_id = choice.claim_id;
                    Some(WriteDone {
                        job,
                        claim_id,
                        outcome,
                    })
                }));
            }
            Effect::Release {
                job,
                resource_version,
                claim_id,
            } => {
                self.chosen.remove(&claim_id);
                self.writing.push(Box::pin(async move {
                    let outcome = jobs.release(&job, &resource_version, &claim_id).await;
                    Some(WriteDone {
                        job,
                        claim_id,
                        outcome,
                    })
                }));
            }
            Effect::Lose { job, claim_id, why } => {
                self.writing.push(Box::pin(async move {
                    jobs.lose(&job, &claim_id, why).await;
                    None
                }));
            }
            Effect::Grant {
                session,
                claim,
                remaining_ms,
                waited_ms,
                attempt,
            } => self.grant(session, claim, remaining_ms, waited_ms, attempt),
            Effect::NoWork { session, claim_id } => {
                let nothing = wire::NoWork { claim_id };
                jobs.sessions.say(session, Message::NoWork(nothing));
            }
            Effect::ClaimQuery { session, claims } => self.query_claims(session, &claims),
        }
    }

    fn measure(&mut self) {
        self.health.heartbeat_of(LivenessCheck::Dispatch);
        let metrics = &self.jobs.metrics;
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.waiting.set(gauge(self.dispatcher.waiting()));
        metrics.asks.set(gauge(self.dispatcher.requests()));
        let now = self.jobs.wall.now();
        let oldest = self.dispatcher.oldest();
        let age = oldest.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        metrics.oldest.set(age.as_secs_f64().max(0.0));
        if self.chosen.len() > CHOSEN {
            // Claims that were neither granted nor given back by us.
            self.chosen.retain(|_, at| at.elapsed() < 12 * TICK);
        }
    }
}
