//! A leader: the real dispatcher, a copy of what its watch has shown, and the ends of its sessions. What
//! it does with the API server stands in `writes.rs`, the pass over a Job in `pass.rs`.

use crate::clock::Wall;
use crate::faults::Broken;
use crate::pass::Due;
use crate::server::{Entry, NAMESPACE, job_name, number, plugin_name, uid_of, version_of};
use crate::session::{Down, Up};
use crate::world::{MS, SECOND, SimEvent, World};
use crate::writes::{Kind, Op, Word};
use patchbay_api::Job;
use patchbay_protocol::session as wire;
use patchbay_reconcile::job::dispatch::{
    ClaimRef, DialedPod, DispatchLimits, Dispatcher, Effect, Event, JobRef, PluginRefKey,
    WriteOutcome,
};
use patchbay_sidecar::jobs::claims::event::ClaimId;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use wire::from_sidecar::Message;

pub struct Leader {
    pub alive: bool,
    pub term: u64,
    pub wall: Wall,
    pub dispatcher: Dispatcher,
    begun: u64,
    /// What the watch and answers have shown.
    pub known: BTreeMap<u32, Arc<Job>>,
    /// How far the watch has come.
    seen: u64,
    position: u64,
    pub watch_due: bool,
    /// Its watch shows nothing before.
    pub deaf_until: u64,
    /// The open session of each pod.
    pub links: BTreeMap<usize, usize>,
    pub ops: HashMap<u64, Op>,
    pub last_op: u64,
    /// Words about claims that wait for the one before.
    pub words: HashMap<(usize, ClaimId), VecDeque<Word>>,
    pub passes: HashMap<u32, u64>,
    tick_at: u64,
}

/// Name of the JobOutput object that holds a row.
pub fn object_name(job: &Job, attempt: i32, row: i32) -> String {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{attempt}-{row}-0")
}

pub fn is_claimed_with(job: &Job, claim_id: &str) -> bool {
    let Some(status) = &job.status else {
        return false;
    };
    status.phase.is_some_and(|phase| phase.is_held())
        && status
            .claim
            .as_ref()
            .is_some_and(|claim| claim.claim_id == claim_id)
}

impl Leader {
    pub fn forget_words(&mut self, link: usize) {
        self.words.retain(|(of, _), _| *of != link);
        self.ops
            .retain(|_, op| !matches!(op.kind, Kind::Word { link: of, .. } if of == link));
    }

    /// Takes in the answer of a write or a read; whether it was news.
    fn put(&mut self, name: u32, job: &Arc<Job>) -> bool {
        let version = version_of(job);
        match self.known.get(&name) {
            // It was deleted since.
            None if version <= self.seen => return false,
            Some(known) if version_of(known) >= version => return false,
            _ => {}
        }
        self.known.insert(name, job.clone());
        true
    }
}

impl World {
    /// A new leader begins with a list of everything. Another one may not know of it yet.
    pub fn new_leader(&mut self) {
        self.term += 1;
        let leader = self.leaders.len();
        let position = self.server.end_of_log();
        let ahead = match self.setting.faults.clock_step > 0.0 && !self.calm {
            true => self.rng.below(100) as i64 * 1_000 - 50_000,
            false => 0,
        };
        self.leaders.push(Leader {
            alive: true,
            term: self.term,
            wall: Wall { ahead },
            dispatcher: Dispatcher::new(DispatchLimits::default()),
            begun: self.now,
            known: BTreeMap::new(),
            seen: self.server.version(),
            position,
            watch_due: false,
            deaf_until: 0,
            links: BTreeMap::new(),
            ops: HashMap::new(),
            last_op: 0,
            words: HashMap::new(),
            passes: HashMap::new(),
            tick_at: u64::MAX,
        });
        for (plugin, most) in self.setting.per_client.clone().into_iter().enumerate() {
            let key = PluginRefKey {
                namespace: NAMESPACE.to_owned(),
                name: plugin_name(plugin),
            };
            let (max_running, max_running_per_client) = (None, most);
            self.tell_dispatcher(
                leader,
                Event::Plugin {
                    key,
                    max_running,
                    max_running_per_client,
                },
            );
        }
        self.list(leader);
        for pod in 0..self.pods.len() {
            let wait = self.rng.range(0, 200 * MS);
            self.at(wait, SimEvent::Dial { leader, pod });
        }
    }

    /// Reads everything anew, as after a watch that came to its end.
    pub fn list(&mut self, leader: usize) {
        self.tell(|| format!("L{leader} lists"));
        self.leaders[leader].position = self.server.end_of_log();
        let listed = self.server.objects.clone();
        let version = self.server.version();
        let before = std::mem::take(&mut self.leaders[leader].known);
        for (name, job) in &listed {
            let newer = before.get(name).filter(|b| version_of(b) > version_of(job));
            self.leaders[leader]
                .known
                .insert(*name, newer.unwrap_or(job).clone());
        }
        self.leaders[leader].seen = self.leaders[leader].seen.max(version);
        // Nothing is handed out before the list is complete.
        self.tell_dispatcher(leader, Event::Pause);
        for (name, job) in &listed {
            self.tell_dispatcher(leader, Event::Job(job));
            self.consider(leader, *name);
        }
        for (name, job) in before {
            if listed
                .get(&name)
                .is_none_or(|now| uid_of(now) != uid_of(&job))
            {
                let (namespace, uid) = (NAMESPACE, uid_of(&job));
                let name = &job_name(name);
                self.tell_dispatcher(
                    leader,
                    Event::JobGone {
                        namespace,
                        name,
                        uid,
                    },
                );
            }
        }
        self.tell_dispatcher(leader, Event::Resume);
    }

    pub fn watch(&mut self, leader: usize) {
        self.leaders[leader].watch_due = false;
        if !self.leaders[leader].alive {
            return;
        }
        let end = self.server.end_of_log();
        let mut position = self.leaders[leader].position.max(self.server.first);
        while position < end {
            let entry = self.server.log[(position - self.server.first) as usize].clone();
            position += 1;
            self.leaders[leader].position = position;
            match entry {
                Entry::Put(name, job) => {
                    let known = &mut self.leaders[leader];
                    known.seen = known.seen.max(version_of(&job));
                    let newer = known
                        .known
                        .get(&name)
                        .is_some_and(|k| version_of(k) >= version_of(&job));
                    if !newer {
                        known.known.insert(name, job.clone());
                        self.consider(leader, name);
                    }
                    self.tell(|| crate::world::told(&format!("watch L{leader}"), &job));
                    self.tell_dispatcher(leader, Event::Job(&job));
                }
                Entry::ProcessGone { name, uid, version } => {
                    let known = &mut self.leaders[leader];
                    known.seen = known.seen.max(version);
                    if known.known.get(&name).is_some_and(|job| uid_of(job) == uid) {
                        known.known.remove(&name);
                    }
                    let (namespace, uid) = (NAMESPACE, &*uid);
                    let name = &job_name(name);
                    self.tell_dispatcher(
                        leader,
                        Event::JobGone {
                            namespace,
                            name,
                            uid,
                        },
                    );
                }
            }
            if self.rng.chance(0.02) {
                // The rest comes a little later.
                break;
            }
        }
        let read = self
            .leaders
            .iter()
            .filter(|l| l.alive)
            .map(|l| l.position)
            .min();
        self.server.trim(read.unwrap_or(end));
        if self.leaders[leader].position < end {
            self.leaders[leader].watch_due = true;
            let wait = self.rng.range(100, 5 * MS);
            self.at(wait, SimEvent::Watch { leader });
        }
    }

    /// Puts the answer of a write, or of a read, where it is needed.
    pub fn saw(&mut self, leader: usize, job: &Arc<Job>) {
        let name = number(job.metadata.name.as_deref().unwrap_or_default());
        if self.leaders[leader].put(name, job) {
            let wait = self.rng.range(0, 400);
            self.at(
                wait,
                SimEvent::Seen {
                    leader,
                    job: job.clone(),
                },
            );
            self.consider(leader, name);
        }
    }

    pub fn seen(&mut self, leader: usize, job: &Job) {
        self.tell(|| crate::world::told(&format!("answer L{leader}"), job));
        self.tell_dispatcher(leader, Event::Answer(job));
    }

    pub fn written(&mut self, leader: usize, job: JobRef, claim_id: String, outcome: WriteOutcome) {
        if !self.leaders[leader].alive {
            return;
        }
        let wall = self.leaders[leader].wall;
        let view = match &outcome {
            WriteOutcome::Applied(job) | WriteOutcome::Conflict(Some(job)) => Some(version_of(job)),
            WriteOutcome::Conflict(None) | WriteOutcome::Refused(_) => None,
        };
        self.tell(|| {
            format!(
                "L{leader} landed {} {} {outcome:.60?} view {view:?}",
                job.uid,
                &claim_id[..8]
            )
        });
        self.judge
            .landed(leader, &job.uid, &claim_id, self.now, view);
        if self.setting.broken == Some(Broken::ExpiryNotLookedAtAgain) {
            // The clock as it was when the claim was begun.
            let begun = Wall {
                ahead: wall.ahead - 2 * SECOND as i64,
            };
            self.leaders[leader].wall = begun;
            self.tell_dispatcher(
                leader,
                Event::WriteFinished {
                    job,
                    claim_id,
                    outcome,
                },
            );
            self.leaders[leader].wall = wall;
            return;
        }
        self.tell_dispatcher(
            leader,
            Event::WriteFinished {
                job,
                claim_id,
                outcome,
            },
        );
    }

    pub fn mono(&self, leader: usize) -> u64 {
        (self.now - self.leaders[leader].begun) / MS
    }

    /// Tells the dispatcher of a leader, and does what it says.
    pub fn tell_dispatcher(&mut self, leader: usize, heard: Event<'_>) {
        if !self.leaders[leader].alive {
            return;
        }
        let mono = self.mono(leader);
        let known = &mut self.leaders[leader];
        let now = known.wall.at(self.now);
        let mut todo = Vec::new();
        known.dispatcher.handle(now, mono, heard, &mut todo);
        for todo in todo {
            self.todo(leader, todo);
        }
        let known = &mut self.leaders[leader];
        if let Some(at) = known.dispatcher.wake_at(now, mono) {
            let at = (known.begun + at * MS).max(self.now + 1);
            if at < known.tick_at {
                known.tick_at = at;
                self.at(at - self.now, SimEvent::DispatcherTick { leader, at });
            }
        }
    }

    pub fn dispatcher_tick(&mut self, leader: usize, at: u64) {
        if self.leaders[leader].tick_at == at {
            self.leaders[leader].tick_at = u64::MAX;
            self.tell_dispatcher(leader, Event::Tick);
        }
    }

    fn todo(&mut self, leader: usize, todo: Effect) {
        self.tell(|| format!("L{leader} {todo:?}"));
        match todo {
            Effect::Claim {
                job,
                resource_version,
                choice,
            } => {
                let wall = self.leaders[leader].wall;
                let pod = crate::pod::pod_of(&choice.pod_uid);
                let plugin = plugin_name(self.pods[pod].plugin);
                let version = resource_version.parse().unwrap_or(0);
                self.judge
                    .chose(leader, wall, self.now, &job, version, &plugin, &choice);
                let kind = Kind::Claim { job, choice };
                self.begin_once(leader, kind, &resource_version);
            }
            Effect::Release {
                job,
                resource_version,
                claim_id,
            } => {
                self.count("releases");
                self.begin_once(leader, Kind::Release { job, claim_id }, &resource_version);
            }
            Effect::Lose { job, claim_id, why } => {
                self.count("claims lost with a volume");
                let name = number(&job.name);
                self.begin_change(leader, name, job.uid, Kind::Lose { claim_id, why });
            }
            Effect::Grant {
                session,
                claim,
                remaining_ms,
                waited_ms,
                attempt,
            } => {
                self.grant(leader, session, claim, remaining_ms, waited_ms, attempt);
            }
            Effect::NoWork { session, claim_id } => {
                self.say_down(
                    session as usize - 1,
                    Down::NoWork(wire::NoWork { claim_id }),
                );
            }
            Effect::ClaimQuery { session, claims } => {
                self.count("doubts");
                let claims = claims.into_iter().map(|claim| wire::LedgerEntry {
                    claim: Some(wire::ClaimName {
                        claim_id: claim.claim_id,
                        job_uid: claim.job.uid,
                    }),
                    job: claim.job.name,
                    delivered: false,
                });
                let doubt = wire::ClaimQuery {
                    claims: claims.collect(),
                };
                self.say_down(session as usize - 1, Down::ClaimQuery(doubt));
            }
        }
    }

    fn grant(
        &mut self,
        leader: usize,
        session: u64,
        claim: ClaimRef,
        remaining_ms: u64,
        waited_ms: u64,
        attempt: i32,
    ) {
        let link = session as usize - 1;
        let known = self.leaders[leader].known.get(&number(&claim.job.name));
        let stands = known.is_some_and(|job| {
            uid_of(job) == claim.job.uid && is_claimed_with(job, &claim.claim_id)
        });
        if !stands {
            let claim_id = claim.claim_id;
            return self.say_down(link, Down::NoWork(wire::NoWork { claim_id }));
        }
        self.count("grants");
        let wall = self.leaders[leader].wall;
        // A driver that shows the dispatcher an old clock has a clock all the same.
        let shown = match self.setting.broken {
            Some(Broken::ExpiryNotLookedAtAgain) => 2 * SECOND as i64,
            _ => 0,
        };
        let wall = Wall {
            ahead: wall.ahead + shown,
        };
        self.judge.granted(&claim.claim_id, wall, self.now);
        self.say_down(
            link,
            Down::Grant(wire::Grant {
                claim: Some(wire::ClaimName {
                    claim_id: claim.claim_id,
                    job_uid: claim.job.uid,
                }),
                job: claim.job.name,
                spec_json: b"{}".to_vec(),
                remaining_ms,
                waited_ms,
                attempt: u32::try_from(attempt).unwrap_or(1),
                active_deadline_ms: 0,
                output_max_bytes: 1 << 20,
                start_time: String::new(),
            }),
        );
    }

    /// A leader takes a message of a sidecar in.
    pub fn heard_up(&mut self, link: usize, message: Up) {
        self.tell(|| match &message {
            Up::Hello { ledger, .. } => format!("up link {link} Hello {ledger:?}"),
            Up::Message(message) => format!("up link {link} {message:?}"),
            Up::Row(row) => format!("up link {link} row {row:?}"),
        });
        let (leader, pod) = (self.links[link].leader, self.links[link].pod);
        let session = link as u64 + 1;
        let message = match message {
            Up::Hello { epoch, ledger } => {
                return self.greeted(leader, link, pod, epoch, ledger);
            }
            Up::Row(row) => {
                let (claim, name) = (row.claim, number(&row.job));
                let uid = row.job_uid.clone();
                return self.word(leader, link, claim, name, uid, Word::Row(row));
            }
            Up::Message(message) => *message,
        };
        match message {
            Message::WorkRequest(ask) => {
                let (claim_id, wait_ms) = (ask.claim_id, ask.wait_ms);
                let (client, port) = (ask.client, ask.port);
                self.tell_dispatcher(
                    leader,
                    Event::WorkRequest {
                        session,
                        claim_id,
                        client,
                        port,
                        wait_ms,
                    },
                );
            }
            Message::CancelRequest(withdraw) => {
                let claim_id = withdraw.claim_id;
                self.tell_dispatcher(leader, Event::CancelRequest { session, claim_id });
            }
            Message::ClaimReturned(released) => {
                if let Some(claim) = named(released.claim, &released.job) {
                    self.count("claims given back");
                    self.tell_dispatcher(leader, Event::ClaimReturned { session, claim });
                }
            }
            Message::ClaimQueryReply(answer) => {
                if let Some(claim) = named(answer.claim, &answer.job) {
                    let known = answer.known;
                    self.tell_dispatcher(
                        leader,
                        Event::ClaimQueryReply {
                            session,
                            claim,
                            known,
                        },
                    );
                }
            }
            Message::Started(started) => {
                if let Some(claim) = named(started.claim, &started.job) {
                    self.spoken(leader, link, claim, Word::Started);
                }
            }
            Message::Lost(lost) => {
                if let Some(claim) = named(lost.claim, &lost.job) {
                    self.spoken(leader, link, claim, Word::LossCause(lost.message));
                }
            }
            _ => {}
        }
    }

    fn spoken(&mut self, leader: usize, link: usize, claim: ClaimRef, word: Word) {
        if let Some(id) = ClaimId::parse(&claim.claim_id) {
            self.word(
                leader,
                link,
                id,
                number(&claim.job.name),
                claim.job.uid,
                word,
            );
        }
    }

    fn greeted(
        &mut self,
        leader: usize,
        link: usize,
        pod: usize,
        epoch: String,
        ledger: Vec<wire::LedgerEntry>,
    ) {
        self.links[link].attached = true;
        let mut entries = Vec::new();
        for entry in ledger {
            let delivered = entry.delivered;
            let Some(claim) = named(entry.claim, &entry.job) else {
                continue;
            };
            // A job that came to its end while no session was open.
            let over = self.leaders[leader]
                .known
                .get(&number(&claim.job.name))
                .is_some_and(|job| {
                    job.status.as_ref().is_some_and(|status| {
                        matches!(&*status.reason, "Cancelled" | "DeadlineExceeded")
                            && status
                                .claim
                                .as_ref()
                                .is_some_and(|c| c.claim_id == claim.claim_id)
                    })
                });
            if over && delivered {
                self.say_cancel(link, &claim.claim_id, &claim.job.uid);
            }
            entries.push(claim.claim_id);
        }
        let plugin = PluginRefKey {
            namespace: NAMESPACE.to_owned(),
            name: plugin_name(self.pods[pod].plugin),
        };
        let pod = DialedPod {
            plugin,
            pod: format!("pod-{pod}"),
            uid: crate::pod::uid(pod),
        };
        let session = link as u64 + 1;
        let (ledger_epoch, ledger) = (epoch, entries);
        self.tell_dispatcher(
            leader,
            Event::Attached {
                session,
                pod,
                ledger_epoch,
                ledger,
            },
        );
    }

    pub fn say_cancel(&mut self, link: usize, claim_id: &str, uid: &str) {
        let cancel = wire::Cancel {
            claim: Some(wire::ClaimName {
                claim_id: claim_id.to_owned(),
                job_uid: uid.to_owned(),
            }),
            reason: "Cancelled".to_owned(),
        };
        self.say_down(link, Down::Cancel(cancel));
    }

    /// Looks whether a pass has something to do for a Job, now or at some time.
    pub fn consider(&mut self, leader: usize, name: u32) {
        let known = &self.leaders[leader];
        let Some(job) = known.known.get(&name) else {
            return;
        };
        let holder_gone = self.holder_gone(job);
        let wait = match crate::pass::due(job, known.wall.at(self.now), holder_gone) {
            Due::Never => return,
            Due::Now => 0,
            Due::At(time) => known.wall.when(time).saturating_sub(self.now),
        };
        let wait = wait + self.rng.range(100, 3 * MS);
        let at = self.now + wait;
        let due = self.leaders[leader].passes.get(&name);
        if due.is_none_or(|due| *due > at || *due < self.now) {
            self.leaders[leader].passes.insert(name, at);
            self.at(wait, SimEvent::Pass { leader, name });
        }
    }

    pub fn leader_ends(&mut self, leader: usize) {
        if !std::mem::replace(&mut self.leaders[leader].alive, false) {
            return;
        }
        let links: Vec<usize> = self.leaders[leader].links.values().copied().collect();
        for link in links {
            self.links[link].leader_open = false;
            self.cut(link);
        }
        let known = &mut self.leaders[leader];
        known.known.clear();
        known.ops.clear();
        known.words.clear();
        known.dispatcher = Dispatcher::new(DispatchLimits::default());
    }

    /// Somebody leads, at the end of a run: the last leader, and nobody else.
    pub fn one_leader(&mut self) {
        let last = self.leaders.len() - 1;
        for leader in 0..last {
            if self.leaders[leader].alive {
                self.at(
                    self.setting.faults.reign.min(SECOND),
                    SimEvent::LeaderEnds { leader },
                );
            }
        }
        if !self.leaders[last].alive {
            self.new_leader();
        }
    }
}

fn named(claim: Option<wire::ClaimName>, job: &str) -> Option<ClaimRef> {
    let claim = claim?;
    Some(ClaimRef {
        claim_id: claim.claim_id,
        job: JobRef {
            namespace: NAMESPACE.to_owned(),
            name: job.to_owned(),
            uid: claim.job_uid,
        },
    })
}
