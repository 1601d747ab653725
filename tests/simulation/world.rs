//! Everything that takes part, the queue of what happens next, and the one loop that lets it
//! happen. No thread, no real clock: the same seed gives the same run.

use crate::faults::{Broken, Faults};
use crate::judge::Judge;
use crate::leader::Leader;
use crate::pod::Pod;
use crate::random::Rng;
use crate::server::{Call, Commit, Plan, Reply, Server, number, uid_of};
use crate::session::{Down, Link, Up};
use crate::writes::has_ended;
use patchbay_api::Job;
use patchbay_reconcile::job::dispatch::{JobRef, WriteOutcome};
use patchbay_sidecar::jobs::claims::entry::Entry;
use patchbay_sidecar::jobs::claims::event::{ClaimId, RequestId};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// Something that happens at its time.
pub enum SimEvent {
    /// A request reaches the API server.
    Arrive {
        from: Option<(usize, u64, u64)>,
        call: Call,
    },
    /// Its answer reaches the leader.
    Answer {
        leader: usize,
        op: u64,
        turn: u64,
        reply: Box<Reply>,
    },
    /// A leader goes on with a write whose outcome is not known.
    Again {
        leader: usize,
        op: u64,
        turn: u64,
    },
    /// A leader reads its watch.
    Watch {
        leader: usize,
    },
    /// The answer of a write comes to the dispatcher.
    Seen {
        leader: usize,
        job: Arc<Job>,
    },
    /// The outcome of a write comes to the dispatcher.
    Written {
        leader: usize,
        job: JobRef,
        claim_id: String,
        outcome: Box<WriteOutcome>,
    },
    DispatcherTick {
        leader: usize,
        at: u64,
    },
    Pass {
        leader: usize,
        name: u32,
    },
    /// A leader hears that a pod is gone.
    PodGone {
        leader: usize,
        pod: usize,
    },
    Up {
        link: usize,
        message: Box<Up>,
    },
    Down {
        link: usize,
        message: Box<Down>,
    },
    /// The leader's end of a session finds out that it is over.
    LeaderNotices {
        link: usize,
    },
    PodNotices {
        link: usize,
    },
    Dial {
        leader: usize,
        pod: usize,
    },
    BookTick {
        pod: usize,
        process: u64,
        at: u64,
    },
    HandOver {
        pod: usize,
        process: u64,
        order: Box<HandOver>,
    },
    NotHanded {
        pod: usize,
        process: u64,
        claim: ClaimId,
        count: u32,
    },
    RequestGone {
        pod: usize,
        process: u64,
        request: RequestId,
    },
    /// A worker of a plugin goes on.
    Worker {
        pod: usize,
        start: u64,
        worker: usize,
        turn: u64,
    },
    CallStep {
        pod: usize,
        process: u64,
        claim: ClaimId,
    },
    SidecarStart {
        pod: usize,
    },
    PluginStart {
        pod: usize,
    },
    Replace {
        pod: usize,
    },
    Collect {
        uid: String,
    },
    LeaderEnds {
        leader: usize,
    },
    Users,
    Weather,
}

/// A [`patchbay_sidecar::jobs::claims::event::Effect::Deliver`] or `Call` on its way.
pub struct HandOver {
    /// Absent for a call.
    pub request: Option<RequestId>,
    pub before_ms: Option<u64>,
    pub count: u32,
    pub entry: Box<Entry>,
}

struct Timed {
    at: u64,
    order: u64,
    what: SimEvent,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    // The earliest is the greatest: the heap gives that one.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Pods of each Plugin: workers of a PCP controller plugin, or 0 for one that is called.
    pub pods: Vec<Vec<usize>>,
    /// Clients that jobs are for and workers ask for; with none, everybody asks for everything.
    pub clients: Vec<String>,
    pub ports: Vec<String>,
    /// Most jobs for one client at a time, by Plugin.
    pub per_client: Vec<Option<u32>>,
    /// Jobs that have not ended are kept at about so many; 0: none are made.
    pub crowd: usize,
    /// Length of the work on a job, in milliseconds, at most.
    pub work_ms: u64,
    pub faults: Faults,
    pub broken: Option<Broken>,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    order: u64,
    queue: BinaryHeap<Timed>,
    pub setting: Setting,
    pub server: Server,
    pub leaders: Vec<Leader>,
    pub pods: Vec<Pod>,
    pub links: Vec<Link>,
    pub judge: Judge,
    pub counts: BTreeMap<&'static str, u64>,
    /// The API server answers nothing before.
    pub away_until: u64,
    /// No further faults, and no further jobs.
    pub calm: bool,
    pub term: u64,
    pub names: u32,
    pub last_caller: u64,
    /// Says what happens, for whoever looks for a mistake (`SIM_TRACE=1`).
    tells: bool,
    /// Jobs that have not ended.
    pub open: usize,
    /// Those that have, with the time of their end.
    pub finished: VecDeque<(u64, u32, String)>,
}

impl World {
    pub fn new(seed: u64, setting: Setting) -> World {
        let mut world = World {
            now: 0,
            rng: Rng::new(seed),
            order: 0,
            queue: BinaryHeap::new(),
            server: Server::default(),
            leaders: Vec::new(),
            pods: Vec::new(),
            links: Vec::new(),
            judge: Judge::default(),
            counts: BTreeMap::new(),
            away_until: 0,
            calm: false,
            term: 0,
            names: 0,
            last_caller: 0,
            tells: std::env::var_os("SIM_TRACE").is_some(),
            open: 0,
            finished: VecDeque::new(),
            setting,
        };
        for (plugin, most) in world.setting.per_client.clone().into_iter().enumerate() {
            if most.is_some() {
                world.judge.limited.push(crate::server::plugin_name(plugin));
            }
        }
        for (plugin, pods) in world.setting.pods.clone().into_iter().enumerate() {
            for workers in pods {
                world.new_pod(plugin, workers);
            }
        }
        world.new_leader();
        if world.setting.crowd > 0 {
            world.at(0, SimEvent::Users);
        }
        world.at(50 * MS, SimEvent::Weather);
        world
    }

    /// Something will happen, so many microseconds from now.
    pub fn at(&mut self, wait: u64, what: SimEvent) {
        self.order += 1;
        let (at, order) = (self.now + wait, self.order);
        self.queue.push(Timed { at, order, what });
    }

    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>12} {}", self.now, text());
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Whether this fault happens now.
    pub fn fault(&mut self, what: &'static str, probability: f64) -> bool {
        let happens = !self.calm && self.rng.chance(probability);
        if happens {
            self.count(what);
        }
        happens
    }

    /// Runs until `done` or until this much time has gone by; whether it was done.
    pub fn run(&mut self, most: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + most;
        loop {
            if done(self) {
                return true;
            }
            match self.queue.peek() {
                Some(next) if next.at <= end => {}
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            if let Some(next) = self.queue.pop() {
                self.now = self.now.max(next.at);
                self.happen(next.what);
            }
        }
    }

    fn happen(&mut self, what: SimEvent) {
        match what {
            SimEvent::Arrive { from, call } => self.arrive(from, call),
            SimEvent::Answer {
                leader,
                op,
                turn,
                reply,
            } => self.answer(leader, op, turn, *reply),
            SimEvent::Again { leader, op, turn } => self.again(leader, op, turn),
            SimEvent::Watch { leader } => self.watch(leader),
            SimEvent::Seen { leader, job } => self.seen(leader, &job),
            SimEvent::Written {
                leader,
                job,
                claim_id,
                outcome,
            } => {
                self.written(leader, job, claim_id, *outcome);
            }
            SimEvent::DispatcherTick { leader, at } => self.dispatcher_tick(leader, at),
            SimEvent::Pass { leader, name } => self.pass(leader, name),
            SimEvent::PodGone { leader, pod } => self.pod_gone(leader, pod),
            SimEvent::Up { link, message } => self.up(link, *message),
            SimEvent::Down { link, message } => self.down(link, *message),
            SimEvent::LeaderNotices { link } => self.leader_notices(link),
            SimEvent::PodNotices { link } => self.pod_notices(link),
            SimEvent::Dial { leader, pod } => self.dial(leader, pod),
            SimEvent::BookTick { pod, process, at } => self.book_tick(pod, process, at),
            SimEvent::HandOver {
                pod,
                process,
                order,
            } => self.hand_over(pod, process, *order),
            SimEvent::NotHanded {
                pod,
                process,
                claim,
                count,
            } => {
                self.not_handed(pod, process, claim, count);
            }
            SimEvent::RequestGone {
                pod,
                process,
                request,
            } => {
                self.request_gone(pod, process, request);
            }
            SimEvent::Worker {
                pod,
                start,
                worker,
                turn,
            } => self.worker(pod, start, worker, turn),
            SimEvent::CallStep {
                pod,
                process,
                claim,
            } => self.call_step(pod, process, claim),
            SimEvent::SidecarStart { pod } => self.sidecar_start(pod),
            SimEvent::PluginStart { pod } => self.plugin_start(pod),
            SimEvent::Replace { pod } => self.replace_pod(pod),
            SimEvent::Collect { uid } => self.server.collect(&uid),
            SimEvent::LeaderEnds { leader } => self.leader_ends(leader),
            SimEvent::Users => self.users(),
            SimEvent::Weather => self.weather(),
        }
    }

    fn arrive(&mut self, from: Option<(usize, u64, u64)>, call: Call) {
        let away = self.now < self.away_until;
        let reply = if away {
            Reply::Unknown
        } else {
            let (reply, commit) = self.server.serve(call);
            self.committed(commit);
            reply
        };
        if let Some((leader, op, turn)) = from {
            let wait = self.rng.range(300, 2 * MS);
            self.at(
                wait,
                SimEvent::Answer {
                    leader,
                    op,
                    turn,
                    reply: Box::new(reply),
                },
            );
        }
    }

    /// The API server has changed something: the judge sees it, and watches will.
    pub fn committed(&mut self, commit: Option<Commit>) {
        if let Some(commit) = commit {
            self.tell(|| told("commit", &commit.after));
            self.judge.committed(&commit, &self.server);
            if !has_ended(&commit.before) && has_ended(&commit.after) {
                self.open -= 1;
                let name = number(commit.after.metadata.name.as_deref().unwrap_or_default());
                self.finished
                    .push_back((self.now, name, uid_of(&commit.after).to_owned()));
            }
        }
        self.watches();
    }

    /// Lets everybody who watches read soon.
    pub fn watches(&mut self) {
        for leader in 0..self.leaders.len() {
            if self.leaders[leader].alive && !self.leaders[leader].watch_due {
                self.leaders[leader].watch_due = true;
                let lag = self.setting.faults.lag(&mut self.rng, self.calm);
                let held = self.leaders[leader].deaf_until.saturating_sub(self.now);
                self.at(lag.max(held), SimEvent::Watch { leader });
            }
        }
    }

    /// A user creates a Job under a new name.
    pub fn create(&mut self, plan: &Plan) -> u32 {
        self.names += 1;
        let name = self.names;
        self.create_as(name, plan);
        name
    }

    pub fn create_as(&mut self, name: u32, plan: &Plan) {
        let job = self.server.create(name, self.now, plan);
        self.tell(|| told("create", &job));
        self.judge.created(name, &job);
        self.open += 1;
        self.watches();
    }

    pub fn delete(&mut self, name: u32) {
        if let Some(job) = self.server.delete(name) {
            self.tell(|| told("delete", &job));
            self.judge.deleted(&job);
            self.open -= usize::from(!has_ended(&job));
            let uid = uid_of(&job).to_owned();
            let wait = self.rng.range(0, 2 * SECOND);
            self.at(wait, SimEvent::Collect { uid });
            self.watches();
        }
    }
}

/// A Job in one line.
pub fn told(what: &str, job: &Job) -> String {
    let status = job.status.as_ref();
    format!(
        "{what} {} {} @{:?} {:?} claim {:?} suspend {} start {:?} expire {:?} at {}:{}",
        uid_of(job),
        job.metadata.name.as_deref().unwrap_or_default(),
        job.metadata.resource_version,
        status.and_then(|s| s.phase),
        status
            .and_then(|s| s.claim.as_ref())
            .map(|c| (&c.claim_id[..8], &c.holder_pod_uid)),
        job.spec.suspend,
        job.spec
            .start_time
            .as_ref()
            .map(|t| t.0.as_microsecond() - crate::server::BASE),
        job.spec
            .expire_time
            .as_ref()
            .map(|t| t.0.as_microsecond() - crate::server::BASE),
        job.spec.target.client,
        job.spec.target.port,
    )
}
