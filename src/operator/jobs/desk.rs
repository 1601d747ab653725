//! The one task that owns the desk: it tells the desk what happens and carries out what the desk
//! says. It never waits for a sidecar or for an answer of the API server; all that is under way is
//! owned by it and ends with it.

use super::Jobs;
use super::doors::{Came, Inbox};
use super::feed::Seen;
use super::letters::{ClaimOf, Entry, Holder, Letter};
use crate::client::ServerClock;
use crate::health::{LivenessCheck, ProcessHealth};
use crate::leader::LeaderError;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::SignedDuration;
use patchbay_protocol::session as wire;
use patchbay_reconcile::job::desk::{
    ClaimName, Desk, Heard, JobName, LedgerEntry, Limits, Outcome, PluginRefKey, PodName, Todo,
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

/// Runs the desk for one term.
pub struct Clerk {
    pub(super) jobs: Arc<Jobs>,
    health: Arc<ProcessHealth>,
    clock: Arc<ServerClock>,
    inbox: Inbox,
    seen: mpsc::Receiver<Seen>,
    desk: Desk,
    begun: Instant,
    todo: Vec<Todo>,
    writing: FuturesUnordered<BoxFuture<'static, Option<Written>>>,
    /// When a claim that is under way was chosen.
    pub(super) chosen: HashMap<String, Instant>,
    /// Open sessions and their pods.
    pods: HashMap<u64, Holder>,
    /// Whether every store has had its first list.
    synced: bool,
    /// Whether a list of Jobs is being told.
    listing: bool,
}

/// A write that has ended.
struct Written {
    job: JobName,
    claim_id: String,
    outcome: Outcome,
}

/// What happened.
enum Happened {
    Came(Came),
    Seen(Seen),
    Written(Option<Written>),
    Alarm,
    Tick,
}

impl Clerk {
    /// Before the term's first job.
    pub fn new(
        jobs: Arc<Jobs>,
        health: Arc<ProcessHealth>,
        inbox: Inbox,
        seen: mpsc::Receiver<Seen>,
    ) -> Self {
        Self {
            clock: Arc::clone(&jobs.clock),
            jobs,
            health,
            inbox,
            seen,
            desk: Desk::new(Limits::default()),
            begun: Instant::now(),
            todo: Vec::new(),
            writing: FuturesUnordered::new(),
            chosen: HashMap::new(),
            pods: HashMap::new(),
            synced: false,
            listing: false,
        }
    }

    /// Runs until the clock turns out to be wrong: whoever judges times by it must not lead.
    pub async fn run(mut self) -> LeaderError {
        self.hear(Heard::Pause);
        self.fill().await;
        self.synced = true;
        self.go_on();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let alarm = self.alarm();
            let happened = tokio::select! {
                came = self.inbox.next() => Happened::Came(came),
                Some(seen) = self.seen.recv() => Happened::Seen(seen),
                Some(written) = self.writing.next() => Happened::Written(written),
                () = sleep_until(alarm) => Happened::Alarm,
                _ = tick.tick() => Happened::Tick,
            };
            // Before anything is decided by the time of day.
            if let Err(seconds) = self.clock.check(self.jobs.wall.now()) {
                return LeaderError::Clock { seconds };
            }
            match happened {
                Happened::Came(came) => self.came(came),
                Happened::Seen(seen) => self.saw(&seen),
                Happened::Written(Some(written)) => self.hear(Heard::Written {
                    job: written.job,
                    claim_id: written.claim_id,
                    outcome: written.outcome,
                }),
                Happened::Written(None) => {}
                Happened::Alarm => self.hear(Heard::Tick),
                Happened::Tick => self.measure(),
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
                Some(seen) = self.seen.recv() => self.saw(&seen),
                () = &mut synced => break,
            }
        }
        // What was told before the end of the list.
        while let Ok(seen) = self.seen.try_recv() {
            self.saw(&seen);
        }
    }

    fn alarm(&self) -> Instant {
        let far = self.mono_ms().saturating_add(3_600_000);
        let at = self
            .desk
            .wake_at(self.jobs.wall.now(), self.mono_ms())
            .unwrap_or(far);
        self.begun + Duration::from_millis(at.min(far))
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hear(&mut self, heard: Heard<'_>) {
        let (now, mono) = (self.jobs.wall.now(), self.mono_ms());
        self.desk.hear(now, mono, heard, &mut self.todo);
        let claiming = self.desk.in_flight() > 0;
        self.jobs.turns.claiming.store(claiming, Ordering::Relaxed);
        let mut todo = std::mem::take(&mut self.todo);
        for todo in todo.drain(..) {
            self.act(todo);
        }
        // The room is used again.
        self.todo = todo;
    }

    /// Hands out again, unless something is still missing.
    fn go_on(&mut self) {
        if self.synced && !self.listing {
            self.hear(Heard::Resume);
        }
    }

    fn saw(&mut self, seen: &Seen) {
        match seen {
            // The first Job of a list moves what was observed to the end of the list: whatever
            // was chosen before the last one is heard might pass over an earlier one.
            Seen::Listing => {
                self.listing = true;
                self.hear(Heard::Pause);
            }
            Seen::Listed => {
                self.listing = false;
                self.go_on();
            }
            Seen::Job(job) => self.hear(Heard::Job(job)),
            Seen::Answer(job) => self.hear(Heard::Answer(job)),
            Seen::JobGone { key, uid } => self.hear(Heard::JobGone {
                namespace: &key.namespace,
                name: &key.name,
                uid,
            }),
            Seen::Plugin { key, limits } => {
                let limit = |limit: Option<i32>| limit.and_then(|n| u32::try_from(n).ok());
                let limits = limits.as_ref();
                self.hear(Heard::Plugin {
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

    fn came(&mut self, came: Came) {
        let (session, letter) = match came {
            Came::Letter { session, letter } => (session, letter),
            Came::Left { session } => {
                if self.pods.remove(&session).is_some() {
                    self.hear(Heard::Detached { session });
                }
                return;
            }
        };
        match letter {
            Letter::Attached {
                holder,
                ledger_epoch,
                ledger,
            } => self.attached(session, holder, ledger_epoch, ledger),
            Letter::Ask {
                claim_id,
                location,
                port,
                hold_ms,
            } => self.hear(Heard::Ask {
                session,
                claim_id,
                location,
                port,
                hold_ms,
            }),
            Letter::Withdraw { claim_id } => self.hear(Heard::Withdraw { session, claim_id }),
            Letter::Released { claim, why } => {
                if let Some(claim) = self.named(session, claim) {
                    tracing::debug!(job = claim.job.name, why, "a claim is given back");
                    self.hear(Heard::Released { session, claim });
                }
            }
            Letter::LedgerAnswer {
                claim,
                known,
                delivered,
            } => {
                if let Some(claim) = self.named(session, claim) {
                    self.hear(Heard::LedgerAnswer {
                        session,
                        claim,
                        known,
                        delivered,
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
            .filter_map(|entry| {
                Some(LedgerEntry {
                    claim: self.named(session, entry.claim)?,
                    delivered: entry.delivered,
                })
            })
            .collect();
        self.hear(Heard::Attached {
            session,
            pod: PodName {
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
    fn named(&self, session: u64, claim: ClaimOf) -> Option<ClaimName> {
        let holder = self.pods.get(&session)?;
        Some(ClaimName {
            claim_id: claim.claim_id,
            job: JobName {
                namespace: holder.plugin.namespace.clone(),
                name: claim.job,
                uid: claim.uid,
            },
        })
    }

    fn act(&mut self, todo: Todo) {
        let jobs = Arc::clone(&self.jobs);
        match todo {
            Todo::Claim {
                job,
                resource_version,
                choice,
            } => {
                self.chosen.insert(choice.claim_id.clone(), Instant::now());
                self.writing.push(Box::pin(async move {
                    let outcome = jobs.claim(&job, &resource_version, &choice).await;
                    if let Outcome::Refused(why) = &outcome {
                        jobs.tell_of_refusal(&job, why);
                    }
                    let claim_id = choice.claim_id;
                    Some(Written {
                        job,
                        claim_id,
                        outcome,
                    })
                }));
            }
            Todo::Release {
                job,
                resource_version,
                claim_id,
            } => {
                self.chosen.remove(&claim_id);
                self.writing.push(Box::pin(async move {
                    let outcome = jobs.release(&job, &resource_version, &claim_id).await;
                    Some(Written {
                        job,
                        claim_id,
                        outcome,
                    })
                }));
            }
            Todo::Lose { job, claim_id, why } => {
                self.writing.push(Box::pin(async move {
                    jobs.lose(&job, &claim_id, why).await;
                    None
                }));
            }
            Todo::Grant {
                session,
                claim,
                remaining_ms,
                held_ms,
                attempt,
            } => self.grant(session, claim, remaining_ms, held_ms, attempt),
            Todo::Nothing { session, claim_id } => {
                let nothing = wire::Nothing { claim_id };
                jobs.doors.say(session, Message::Nothing(nothing));
            }
            Todo::Doubt { session, claims } => self.doubt(session, &claims),
        }
    }

    fn measure(&mut self) {
        self.health.heartbeat_of(LivenessCheck::Dispatch);
        let metrics = &self.jobs.metrics;
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.waiting.set(gauge(self.desk.waiting()));
        metrics.asks.set(gauge(self.desk.asks()));
        let now = self.jobs.wall.now();
        let oldest = self.desk.oldest();
        let age = oldest.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        metrics.oldest.set(age.as_secs_f64().max(0.0));
        if self.chosen.len() > CHOSEN {
            // Claims that were neither granted nor given back by us.
            self.chosen.retain(|_, at| at.elapsed() < 12 * TICK);
        }
    }
}
