//! A pod: the real claim machine of its sidecar, the ledger that lives as long as its volume, and the
//! plugin process. A sidecar can die between any two things that it does.

use crate::faults::Broken;
use crate::judge::Diary;
use crate::plugin::{CallState, Plugin};
use crate::session::Up;
use crate::world::{HandOver, MS, SECOND, SimEvent, World};
use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::session::Grant;
use patchbay_protocol::session::from_sidecar::Message;
pub use patchbay_sidecar::jobs::claims::ClaimMachine;
use patchbay_sidecar::jobs::claims::entry::Entry;
use patchbay_sidecar::jobs::claims::event::{ClaimId, Effect, Event, Now, RequestId};
use std::collections::{BTreeMap, HashMap, HashSet};

pub struct Pod {
    pub plugin: usize,
    /// The object is gone, and everything in it.
    pub gone: bool,
    pub epoch: u128,
    ledger: BTreeMap<ClaimId, Entry>,
    boot: crate::clock::Boot,
    /// Counts processes of the sidecar.
    pub process: u64,
    pub sidecar: Option<Sidecar>,
    pub link: Option<usize>,
    /// Workers of a PCP controller plugin; none: it is called.
    pub workers: usize,
    pub program: Plugin,
    /// Starts that ended while no sidecar was there to see it.
    unseen: Vec<StartId>,
}

/// What dies with the sidecar's process.
pub struct Sidecar {
    pub book: ClaimMachine,
    /// The highest term that it has talked to.
    pub term: u64,
    tick_at: u64,
    pub calls: HashMap<ClaimId, CallState>,
    /// Calls that are ordered and were not made yet.
    ordered: HashSet<ClaimId>,
    /// Whose rows wait for their answer.
    pub callers: HashMap<u64, Caller>,
}

#[derive(Clone, Copy, Debug)]
pub enum Caller {
    Worker(usize),
    Call(ClaimId),
}

pub fn uid(pod: usize) -> String {
    format!("pod-uid-{pod}")
}

pub fn pod_of(uid: &str) -> usize {
    uid.strip_prefix("pod-uid-")
        .and_then(|n| n.parse().ok())
        .unwrap_or(usize::MAX)
}

impl World {
    pub fn new_pod(&mut self, plugin: usize, workers: usize) -> usize {
        let pod = self.pods.len();
        let drift = self.setting.faults.drift;
        let boot = crate::clock::Boot {
            drift: self.rng.below(2 * drift + 1) as i64 - drift as i64,
            base: self.rng.below(1_000_000_000),
        };
        self.pods.push(Pod {
            plugin,
            gone: false,
            epoch: self.rng.wide(),
            ledger: BTreeMap::new(),
            boot,
            process: 0,
            sidecar: None,
            link: None,
            workers,
            program: Plugin::default(),
            unseen: Vec::new(),
        });
        self.sidecar_start(pod);
        pod
    }

    fn millis(&self, pod: usize) -> u64 {
        self.pods[pod].boot.millis(self.now)
    }

    /// Tells the claim machine, and does what it says.
    pub fn handle_claim_event(&mut self, pod: usize, heard: Event) {
        let todo = self.book(pod, heard);
        self.act(pod, todo);
    }

    /// Tells the claim machine; what is to be done comes back.
    pub fn book(&mut self, pod: usize, heard: Event) -> Vec<Effect> {
        let mono_ms = self.millis(pod);
        let rng = &mut self.rng;
        let mut todo = Vec::new();
        if let Some(sidecar) = &mut self.pods[pod].sidecar {
            let mut fresh = || ClaimId(rng.wide());
            let now = Now {
                mono_ms,
                fresh: &mut fresh,
            };
            sidecar.book.handle(now, heard, &mut todo);
        }
        todo
    }

    /// Does what the claim machine says, in order.
    pub fn act(&mut self, pod: usize, mut todo: Vec<Effect>) {
        if self.setting.broken == Some(Broken::LedgerAfterHandOver)
            && todo
                .iter()
                .any(|todo| matches!(todo, Effect::Deliver { .. } | Effect::Call { .. }))
        {
            let (write, rest) = todo
                .into_iter()
                .partition(|todo| matches!(todo, Effect::WriteEntry(_)));
            (todo, _) = (rest, ());
            let write: Vec<Effect> = write;
            todo.extend(write);
        }
        let process = self.pods[pod].process;
        let mut failed: Vec<ClaimId> = Vec::new();
        loop {
            for next in todo.drain(..) {
                if self.pods[pod].sidecar.is_none() || self.pods[pod].process != process {
                    return;
                }
                if failed.iter().any(|claim| next.needs(*claim)) {
                    if let Effect::AnswerRow(caller, _) = next {
                        self.row_refused(pod, caller);
                    }
                    continue;
                }
                if self.fault(
                    "sidecars that died between two acts",
                    self.setting.faults.crash,
                ) {
                    return self.crash(pod);
                }
                if let Effect::WriteEntry(entry) = &next
                    && self.fault(
                        "writes of a ledger that failed",
                        self.setting.faults.not_written,
                    )
                {
                    self.tell(|| format!("pod {pod} cannot write {entry:?}"));
                    failed.push(entry.claim);
                    continue;
                }
                self.one(pod, next);
            }
            let Some(claim) = failed.pop() else { break };
            todo = self.book(pod, Event::NotWritten(claim));
        }
        self.next_tick(pod);
    }

    fn next_tick(&mut self, pod: usize) {
        let boot = self.pods[pod].boot;
        let process = self.pods[pod].process;
        let now = self.now;
        let Some(sidecar) = &mut self.pods[pod].sidecar else {
            return;
        };
        let Some(at) = sidecar.book.wake_at() else {
            return;
        };
        let at = boot.when(at).max(now + 100);
        if at < sidecar.tick_at {
            sidecar.tick_at = at;
            self.at(at - now, SimEvent::BookTick { pod, process, at });
        }
    }

    pub fn book_tick(&mut self, pod: usize, process: u64, at: u64) {
        if self.pods[pod].process != process {
            return;
        }
        if let Some(sidecar) = &mut self.pods[pod].sidecar
            && sidecar.tick_at == at
        {
            sidecar.tick_at = u64::MAX;
            self.handle_claim_event(pod, Event::Tick);
        }
    }

    fn one(&mut self, pod: usize, todo: Effect) {
        self.tell(|| format!("pod {pod} does {todo:?}"));
        let link = self.pods[pod].link;
        match todo {
            Effect::WriteEntry(entry) => {
                self.pods[pod].ledger.insert(entry.claim, *entry);
            }
            Effect::RemoveEntry(claim) => {
                self.pods[pod].ledger.remove(&claim);
            }
            Effect::RemoveSpool(_) => {}
            Effect::AnswerNoWork(request) => self.answered_nothing(pod, request),
            Effect::Deliver {
                request,
                before_ms,
                count,
                entry,
            } => {
                let order = HandOver {
                    request: Some(request),
                    before_ms,
                    count,
                    entry,
                };
                self.order(pod, order);
            }
            Effect::Call { before_ms, entry } => {
                let order = HandOver {
                    request: None,
                    before_ms,
                    count: 1,
                    entry,
                };
                self.order(pod, order);
            }
            Effect::CancelCall(claim) => {
                if let Some(sidecar) = &mut self.pods[pod].sidecar {
                    sidecar.calls.remove(&claim);
                    sidecar.ordered.remove(&claim);
                }
            }
            Effect::AnswerRow(caller, answer) => self.row_answered(pod, caller, answer),
            Effect::AnswerStatus(..) => {}
            Effect::Send(message) => {
                if let Message::WorkRequest(ask) = &message {
                    self.judge.asked(&ask.claim_id, ask.port.clone());
                }
                if let Some(link) = link {
                    self.say_up(link, Up::Message(Box::new(message)));
                }
            }
            Effect::SendRow(row) => {
                if let Some(link) = link {
                    self.say_up(link, Up::Row(row));
                }
            }
        }
    }

    /// A hand-over is ordered; it happens now or a little later.
    fn order(&mut self, pod: usize, order: HandOver) {
        if order.request.is_none()
            && let Some(sidecar) = &mut self.pods[pod].sidecar
        {
            sidecar.ordered.insert(order.entry.claim);
        }
        let process = self.pods[pod].process;
        if self.fault("hand-overs that took long", self.setting.faults.slow_hand) {
            let wait = self.rng.range(MS, 300 * MS);
            let order = Box::new(order);
            return self.at(
                wait,
                SimEvent::HandOver {
                    pod,
                    process,
                    order,
                },
            );
        }
        self.hand_over(pod, process, order);
    }

    pub fn hand_over(&mut self, pod: usize, process: u64, order: HandOver) {
        if self.pods[pod].process != process || self.pods[pod].sidecar.is_none() {
            return;
        }
        let HandOver {
            request,
            before_ms,
            count,
            entry,
        } = order;
        let claim = entry.claim;
        if request.is_none()
            && let Some(sidecar) = &mut self.pods[pod].sidecar
            && !sidecar.ordered.remove(&claim)
        {
            // It was given up before it was made.
            return;
        }
        let late = before_ms.is_some_and(|before| self.millis(pod) >= before)
            && self.setting.broken != Some(Broken::DeadlineIgnored);
        let start = self.pods[pod].program.start;
        let alive = self.pods[pod].program.alive;
        let waits = match request {
            Some(request) => self.pods[pod].program.asking(request).filter(|_| alive),
            None => alive.then_some(0),
        };
        let (Some(worker), false) = (waits, late) else {
            self.count(if late {
                "hand-overs too late"
            } else {
                "hand-overs to nobody"
            });
            if let Some(request) = request.filter(|_| late) {
                // Whoever waits is told that there is nothing, and does not come again.
                self.answered_nothing(pod, request);
            }
            return self.at(
                0,
                SimEvent::NotHanded {
                    pod,
                    process,
                    claim,
                    count,
                },
            );
        };
        if request.is_some()
            && self.fault("answers lost to a plugin", self.setting.faults.broken_pipe)
        {
            return self.request_broken(pod, worker);
        }
        let filter = match request {
            Some(_) => self.pods[pod].program.workers[worker].filter.clone(),
            None => Default::default(),
        };
        let id = claim.to_string();
        let line = Diary {
            uid: &entry.job_uid,
            claim_id: &id,
            pod,
            location: filter.client.as_deref(),
            port: filter.port.as_deref(),
            now: self.now,
        };
        self.tell(|| format!("DIARY pod {pod} {} by {id}", entry.job_uid));
        self.judge.delivered(&line, &self.server);
        match request {
            Some(_) => self.got_job(pod, start, worker, &entry),
            None => self.got_call(pod, claim, &entry),
        }
    }

    pub fn not_handed(&mut self, pod: usize, process: u64, claim: ClaimId, count: u32) {
        if self.pods[pod].process == process {
            self.handle_claim_event(pod, Event::NotDelivered(claim, count));
        }
    }

    pub fn request_gone(&mut self, pod: usize, process: u64, request: RequestId) {
        if self.pods[pod].process == process {
            self.handle_claim_event(pod, Event::RequestGone(request));
        }
    }

    /// The driver with a mistake: whoever waits gets what comes.
    pub fn maybe_take_anyway(&mut self, pod: usize, grant: &Grant, todo: &mut Vec<Effect>) {
        if self.setting.broken != Some(Broken::GrantWithoutAsk) {
            return;
        }
        let refused = |todo: &Effect| matches!(todo, Effect::Send(Message::ClaimReturned(m)) if m.why == "the ask is over");
        if !todo.iter().any(refused) {
            return;
        }
        let Some(worker) = self.pods[pod].program.any_asking() else {
            return;
        };
        todo.retain(|todo| !refused(todo));
        let filter = self.pods[pod].program.workers[worker].filter.clone();
        let Some(name) = &grant.claim else { return };
        let line = Diary {
            uid: &name.job_uid,
            claim_id: &name.claim_id,
            pod,
            location: filter.client.as_deref(),
            port: filter.port.as_deref(),
            now: self.now,
        };
        self.judge.delivered(&line, &self.server);
    }

    /// The sidecar's process dies. What it has written stays.
    pub fn crash(&mut self, pod: usize) {
        if self.pods[pod].sidecar.take().is_none() {
            return;
        }
        self.tell(|| format!("crash of the sidecar of pod {pod}"));
        if let Some(link) = self.pods[pod].link.take() {
            self.cut(link);
        }
        self.connections_broken(pod);
        if !self.pods[pod].gone {
            let wait = self.rng.range(20 * MS, SECOND);
            self.at(wait, SimEvent::SidecarStart { pod });
        }
    }

    pub fn sidecar_start(&mut self, pod: usize) {
        let known = &mut self.pods[pod];
        if known.gone || known.sidecar.is_some() {
            return;
        }
        known.process += 1;
        known.sidecar = Some(Sidecar {
            book: ClaimMachine::new(known.ledger.values().cloned().collect()),
            term: 0,
            tick_at: u64::MAX,
            calls: HashMap::new(),
            ordered: HashSet::new(),
            callers: HashMap::new(),
        });
        let per_pod = if known.workers == 0 { 3 } else { 1 };
        let unseen = std::mem::take(&mut known.unseen);
        let alive = known.program.alive.then_some(known.program.start);
        self.handle_claim_event(
            pod,
            Event::Configured {
                per_pod,
                recover_ms: 3_000,
            },
        );
        for start in unseen {
            self.handle_claim_event(pod, Event::PluginEnded(start, None));
        }
        match alive {
            Some(start) => self.plugin_runs(pod, StartId(start)),
            None => {
                let wait = self.rng.range(10 * MS, 200 * MS);
                self.at(wait, SimEvent::PluginStart { pod });
            }
        }
        // Whoever leads and has no session keeps dialling by itself.
    }

    pub fn plugin_runs(&mut self, pod: usize, start: StartId) {
        self.handle_claim_event(pod, Event::PluginStarted(start));
        if self.pods[pod].workers == 0 {
            self.handle_claim_event(pod, Event::Callable(start, true));
        }
    }

    /// The plugin process dies.
    pub fn plugin_dies(&mut self, pod: usize) {
        let known = &mut self.pods[pod];
        if !std::mem::replace(&mut known.program.alive, false) {
            return;
        }
        let start = StartId(known.program.start);
        known.program.die(&mut self.rng);
        match &mut known.sidecar {
            Some(sidecar) => {
                sidecar.calls.clear();
                sidecar.callers.clear();
                self.handle_claim_event(pod, Event::PluginEnded(start, Some(Exit::Signal(9))));
            }
            None => known.unseen.push(start),
        }
        let wait = self.rng.range(20 * MS, 2 * SECOND);
        self.at(wait, SimEvent::PluginStart { pod });
    }

    /// The node was rebooted: the same pod, an empty volume.
    pub fn lose_volume(&mut self, pod: usize) {
        self.crash(pod);
        let known = &mut self.pods[pod];
        known.program.alive = false;
        known.program.forget();
        known.unseen.clear();
        known.ledger.clear();
        known.epoch = self.rng.wide();
    }

    /// The pod is gone; another one takes its place.
    pub fn replace_pod(&mut self, pod: usize) {
        if self.calm || std::mem::replace(&mut self.pods[pod].gone, true) {
            return;
        }
        self.lose_volume(pod);
        let (plugin, workers) = (self.pods[pod].plugin, self.pods[pod].workers);
        let new = self.new_pod(plugin, workers);
        for leader in 0..self.leaders.len() {
            let wait = self.rng.range(MS, 500 * MS);
            self.at(wait, SimEvent::PodGone { leader, pod });
            let wait = self.rng.range(MS, 500 * MS);
            self.at(wait, SimEvent::Dial { leader, pod: new });
        }
    }

    /// The claims that a sidecar has not settled.
    pub fn unsettled(&self, pod: usize) -> usize {
        self.pods[pod].ledger.len()
    }

    pub fn ledger(&self, pod: usize) -> Vec<String> {
        let entries = self.pods[pod].ledger.values();
        entries
            .map(|entry| format!("{} {} {:?}", entry.claim, entry.job_uid, entry.state))
            .collect()
    }
}
