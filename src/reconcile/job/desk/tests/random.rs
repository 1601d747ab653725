//! Anything in any order: what the desk promises holds after every event.

use super::world::{World, attached, name_of};
use crate::job::conditions::is_accepted;
use crate::job::desk::{ClaimName, Heard, JobName, Limits, Outcome, Todo};
use crate::job::location::{Port, client};
use crate::job::samples::at;
use crate::job::times;
use crate::job::transition::{
    Loss, RowOutcome, cancel, cancelled, claim, expire, lose, ready, resume, start, store_row,
    suspend,
};
use jiff::Timestamp;
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const CLIENTS: [&str; 4] = ["", "10.0.0.1", "10.0.0.2", "host"];
const PORTS: [&str; 3] = ["", "1", "2"];

#[derive(Clone, Debug)]
enum Event {
    Make {
        name: usize,
        client: usize,
        port: usize,
        start: i64,
        expire: Option<i64>,
        priority: i32,
        again: bool,
    },
    Delete {
        name: usize,
        told: bool,
    },
    Change {
        name: usize,
        how: u8,
    },
    /// The watch catches up by so many events.
    Watch {
        events: usize,
    },
    Attach {
        pod: u64,
        known: bool,
        epoch: bool,
    },
    Detach {
        pod: u64,
    },
    Ask {
        pod: u64,
        client: usize,
        port: usize,
        hold: u32,
    },
    Withdraw {
        pod: u64,
    },
    Release {
        pod: u64,
    },
    /// Carries out one of the things to do.
    Do {
        which: usize,
        lost_answer: bool,
    },
    Limits {
        most: Option<u32>,
        per_client: Option<u32>,
    },
    Time {
        millis: u64,
        wall: i64,
    },
    Pause {
        on: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let name = 0..NAMES.len();
    prop_oneof![
        6 => (name.clone(), 0..CLIENTS.len(), 0..PORTS.len(), -20i64..20, proptest::option::of(1i64..30), 0..3i32, any::<bool>())
            .prop_map(|(name, client, port, start, expire, priority, again)| Event::Make { name, client, port, start, expire, priority, again }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, told)| Event::Delete { name, told }),
        5 => (name, 0..9u8).prop_map(|(name, how)| Event::Change { name, how }),
        12 => (1..6usize).prop_map(|events| Event::Watch { events }),
        1 => (0..3u64, any::<bool>(), proptest::bool::weighted(0.8)).prop_map(|(pod, known, epoch)| Event::Attach { pod, known, epoch }),
        1 => (0..3u64).prop_map(|pod| Event::Detach { pod }),
        12 => (0..3u64, 0..CLIENTS.len(), 0..PORTS.len(), prop_oneof![Just(0), 1..60_000u32]).prop_map(|(pod, client, port, hold)| Event::Ask { pod, client, port, hold }),
        1 => (0..3u64).prop_map(|pod| Event::Withdraw { pod }),
        1 => (0..3u64).prop_map(|pod| Event::Release { pod }),
        16 => (0..8usize, proptest::bool::weighted(0.2)).prop_map(|(which, lost_answer)| Event::Do { which, lost_answer }),
        1 => (proptest::option::of(1..5u32), proptest::option::of(1..5u32)).prop_map(|(most, per_client)| Event::Limits { most, per_client }),
        3 => (0..3_000u64, -200i64..3_000).prop_map(|(millis, wall)| Event::Time { millis, wall }),
        1 => proptest::bool::weighted(0.3).prop_map(|on| Event::Pause { on }),
    ]
}

/// An ask that has no answer yet.
#[derive(Clone, Debug)]
struct Asked {
    session: u64,
    client: Option<String>,
    port: Port,
}

/// What a judge who hears everything that the desk hears knows.
struct Judge {
    world: World,
    /// What the watch has still to say: a view, or an end.
    watch: VecDeque<Result<Job, JobName>>,
    /// The newest view that the desk was shown.
    shown: BTreeMap<String, Job>,
    /// Claims under way: job uid to claim id, and for which client they count.
    flying: BTreeMap<String, (String, Option<String>)>,
    asked: BTreeMap<String, Asked>,
    /// Open session of each pod.
    sessions: BTreeMap<u64, u64>,
    granted: BTreeSet<String>,
    /// Jobs that rest after a write that brought no news, and their version.
    resting: BTreeMap<String, Option<String>>,
    most: Option<u32>,
    per_client: Option<u32>,
    paused: bool,
    counter: u64,
    /// What came out of the desk, by kind.
    came: BTreeMap<&'static str, u32>,
}

impl Judge {
    fn new() -> Self {
        Self {
            world: World::with(Limits {
                claims_in_flight: 4,
                claims_in_flight_per_plugin: 3,
                asks_per_pod: 4,
            }),
            watch: VecDeque::new(),
            shown: BTreeMap::new(),
            flying: BTreeMap::new(),
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            granted: BTreeSet::new(),
            resting: BTreeMap::new(),
            most: None,
            per_client: None,
            paused: false,
            counter: 0,
            came: BTreeMap::new(),
        }
    }

    fn hear(&mut self, heard: Heard<'_>) {
        let before = self.world.todo.len();
        self.world.hear(heard);
        let new: Vec<Todo> = self.world.todo[before..].to_vec();
        for todo in &new {
            self.judge(todo);
        }
        self.nobody_waits_in_vain();
        assert_eq!(self.world.desk.in_flight(), self.flying.len());
        assert_eq!(self.world.desk.asks(), self.asked.len());
    }

    /// What comes out of the desk is allowed.
    fn judge(&mut self, todo: &Todo) {
        let kind = match todo {
            Todo::Claim { .. } => "claim",
            Todo::Release { .. } => "release",
            Todo::Lose { .. } => "lose",
            Todo::Grant { .. } => "grant",
            Todo::Nothing { .. } => "nothing",
            Todo::Doubt { .. } => "doubt",
        };
        *self.came.entry(kind).or_default() += 1;
        match todo {
            Todo::Claim {
                job,
                resource_version,
                choice,
            } => {
                let ask = self.asked[&choice.claim_id].clone();
                assert_eq!(self.sessions[&(ask.session % 100)], ask.session);
                assert!(!self.paused, "a claim while paused");
                let view = &self.shown[&job.name];
                assert_eq!(view.metadata.uid.as_ref(), Some(&job.uid));
                assert_eq!(
                    view.metadata.resource_version.as_ref(),
                    Some(resource_version)
                );
                assert!(self.can_have(&ask, view), "{ask:?} was given {view:?}");
                for other in self.shown.values() {
                    let earlier = rank(other) < rank(view);
                    assert!(
                        !(earlier && self.can_have(&ask, other)),
                        "{:?} was passed over for {:?}",
                        other.metadata.name,
                        view.metadata.name
                    );
                }
                let counts_for = client(&view.spec.target.location).or_else(|| ask.client.clone());
                let flight = (choice.claim_id.clone(), counts_for);
                let before = self.flying.insert(job.uid.clone(), flight);
                assert_eq!(before, None, "two claims under way for one job");
                assert!(self.within_limits(), "more than the limits allow");
            }
            Todo::Grant {
                session,
                claim,
                remaining_ms,
                ..
            } => {
                let ask = self.asked.remove(&claim.claim_id).expect("nobody asked");
                assert_eq!(ask.session, *session);
                assert!(self.granted.insert(claim.claim_id.clone()), "granted twice");
                let view = &self.shown[&claim.job.name];
                let status = view.status.as_ref().unwrap();
                assert_eq!(status.claim.as_ref().unwrap().claim_id, claim.claim_id);
                assert!(status.phase.unwrap().is_held());
                assert!(!times::is_expired(view, self.world.now), "granted too late");
                assert!(self.world.now >= times::start(view), "granted too early");
                assert_eq!(*remaining_ms == 0, view.spec.expire_time.is_none());
            }
            Todo::Nothing { claim_id, .. } => {
                // Also for asks that were refused at the door.
                self.asked.remove(claim_id);
            }
            Todo::Release { claim_id, job, .. } => {
                let view = &self.shown[&job.name];
                let status = view.status.as_ref().unwrap();
                assert_eq!(status.phase, Some(Phase::Claimed));
                assert_eq!(&status.claim.as_ref().unwrap().claim_id, claim_id);
            }
            Todo::Lose { .. } | Todo::Doubt { .. } => {}
        }
    }

    /// By what the desk was shown.
    fn can_have(&self, ask: &Asked, job: &Job) -> bool {
        let Some(status) = &job.status else {
            return false;
        };
        let uid = job.metadata.uid.clone().unwrap();
        let target = &job.spec.target;
        let location = client(&target.location);
        let counts_for = location.clone().or_else(|| ask.client.clone());
        matches!(status.phase, Some(Phase::Ready | Phase::Waiting))
            && is_accepted(job)
            && !job.spec.suspend
            && !cancelled(job)
            && !self.flying.contains_key(&uid)
            && self.resting.get(&uid) != Some(&job.metadata.resource_version)
            && self.world.now >= times::eligible_at(job)
            && !times::is_expired(job, self.world.now)
            && (location.is_none() || ask.client.is_none() || location == ask.client)
            && Port::new(&target.port).fits(ask.port)
            && self.has_room(counts_for)
    }

    /// Jobs in the hands of pods, and for whom.
    fn running(&self) -> Vec<Option<String>> {
        let held = self.shown.values().filter_map(|job| {
            let status = job.status.as_ref()?;
            let uid = job.metadata.uid.as_ref()?;
            let claim = status.claim.as_ref()?;
            if !status.phase?.is_held() || self.flying.contains_key(uid) {
                return None;
            }
            let target = client(&job.spec.target.location);
            Some(target.or_else(|| claim.client_location.clone()))
        });
        let flying = self.flying.values().map(|(_, client)| client.clone());
        held.chain(flying).collect()
    }

    fn has_room(&self, client: Option<String>) -> bool {
        let running = self.running();
        let here = running.iter().filter(|known| **known == client).count();
        self.per_client
            .is_none_or(|most| client.is_none() || here < most as usize)
    }

    fn within_limits(&self) -> bool {
        self.flying.len() <= 3
            && self
                .most
                .is_none_or(|most| self.running().len() <= most as usize)
    }

    /// Nothing that could be handed out waits beside an ask that could have it.
    fn nobody_waits_in_vain(&self) {
        let full = self.flying.len() >= 3
            || self
                .most
                .is_some_and(|most| self.running().len() >= most as usize);
        if self.paused || full {
            return;
        }
        for (id, ask) in &self.asked {
            if self.flying.values().any(|(claim_id, _)| claim_id == id) {
                continue;
            }
            for job in self.shown.values() {
                assert!(
                    !self.can_have(ask, job),
                    "ask {id} and job {:?} wait for each other",
                    job.metadata.name
                );
            }
        }
    }

    fn show(&mut self, job: &Job, watch: bool) {
        let name = job.metadata.name.clone().unwrap();
        let newer = self
            .shown
            .get(&name)
            .is_none_or(|known| number(known) < number(job));
        if newer {
            self.shown.insert(name, job.clone());
        }
        if watch {
            self.hear(Heard::Job(job));
        }
    }

    fn stored(&mut self, job: Job) {
        self.watch.push_back(Ok(job));
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Make {
                name,
                client,
                port,
                start,
                expire,
                priority,
                again,
            } => self.make(
                NAMES[*name],
                *client,
                *port,
                *start,
                *expire,
                *priority,
                *again,
            ),
            Event::Delete { name, told } => self.delete(NAMES[*name], *told),
            Event::Change { name, how } => self.change(NAMES[*name], *how),
            Event::Watch { events } => self.catch_up(*events),
            Event::Attach { pod, known, epoch } => self.attach(*pod, *known, *epoch),
            Event::Detach { pod } => self.detach(*pod),
            Event::Ask {
                pod,
                client,
                port,
                hold,
            } => self.ask(*pod, CLIENTS[*client], PORTS[*port], *hold),
            Event::Withdraw { pod } => {
                let Some(session) = self.sessions.get(pod).copied() else {
                    return;
                };
                let id = self
                    .asked
                    .iter()
                    .find(|(_, ask)| ask.session == session)
                    .map(|(id, _)| id.clone());
                if let Some(claim_id) = id {
                    self.asked.remove(&claim_id);
                    self.hear(Heard::Withdraw { session, claim_id });
                }
            }
            Event::Release { pod } => self.release(*pod),
            Event::Do { which, lost_answer } => self.carry_out(*which, *lost_answer),
            Event::Limits { most, per_client } => {
                self.most = *most;
                self.per_client = *per_client;
                self.hear(Heard::Plugin {
                    key: super::world::key(),
                    max_running: *most,
                    max_running_per_client: *per_client,
                });
            }
            Event::Time { millis, wall } => {
                self.world.mono += millis;
                let by = jiff::SignedDuration::from_millis(*wall);
                self.world.now = self.world.now.checked_add(by).unwrap();
                self.hear_tick_after_rest();
            }
            Event::Pause { on } => {
                self.paused = *on;
                self.hear(if *on { Heard::Pause } else { Heard::Resume });
            }
        }
    }

    /// Lets enough time pass that nothing rests any more.
    fn hear_tick_after_rest(&mut self) {
        if !self.resting.is_empty() {
            self.world.mono += 5_000;
            self.resting.clear();
        }
        // Asks end at this tick; the desk says which.
        self.hear(Heard::Tick);
    }

    #[allow(clippy::too_many_arguments)]
    fn make(
        &mut self,
        name: &str,
        client: usize,
        port: usize,
        start: i64,
        expire: Option<i64>,
        priority: i32,
        again: bool,
    ) {
        if let Some(old) = self.world.jobs.get(name).cloned() {
            if !again {
                return;
            }
            self.watch.push_back(Err(name_of(&old)));
        }
        let seconds = self.world.now.duration_since(at(0)).as_secs();
        let begin = at(seconds + start);
        let mut spec = json!({
            "startTime": begin.to_string(),
            "priority": priority,
            "target": {"location": CLIENTS[client], "port": PORTS[port]},
            "deliveryPolicy": "AtLeastOnce", "backoffLimit": 9,
            "backoff": {"initialSeconds": 1, "maxSeconds": 2},
        });
        if let Some(expire) = expire {
            spec["expireTime"] = json!(at(seconds + start + expire).to_string());
        }
        let job = self.world.make(name, spec);
        self.stored(job);
    }

    fn delete(&mut self, name: &str, told: bool) {
        if let Some(old) = self.world.jobs.remove(name) {
            self.world.version += 1;
            self.watch.push_back(Err(name_of(&old)));
            if told {
                self.catch_up(usize::MAX);
            }
        }
    }

    /// Somebody else writes.
    fn change(&mut self, name: &str, how: u8) {
        let Some(job) = self.world.jobs.get(name).cloned() else {
            return;
        };
        let now = self.world.now;
        let held = job
            .status
            .as_ref()
            .and_then(|status| status.claim.clone())
            .map(|claim| claim.claim_id)
            .unwrap_or_default();
        let loss = Loss {
            message: "gone".to_owned(),
            exit: None,
        };
        let row = crate::job::samples::row(1, "x", RowOutcome::Succeeded);
        self.counter += 1;
        let foreign = crate::job::transition::Choice {
            pod_uid: format!("pod-{}", self.counter % 3),
            ledger_epoch: "epoch".to_owned(),
            ..crate::job::samples::choice(&format!("foreign-{}", self.counter))
        };
        let mut changed = job.clone();
        let status = match how {
            0 => suspend(&job, now),
            1 => resume(&job, now),
            2 => cancel(&job, now),
            3 => expire(&job, now),
            4 => ready(&job, now),
            5 => lose(&job, None, &loss, now, 0.0),
            6 => store_row(&job, &held, &row, now, 0.0).map(|(status, _)| status),
            // The plugin begins; only what was granted is ever begun.
            7 if self.granted.contains(&held) => start(&job, &held, now),
            // Another leader.
            8 => claim(&job, &foreign, now),
            _ => {
                changed.spec.priority += 1;
                self.world.store(changed.clone());
                let job = self.world.jobs[name].clone();
                return self.stored(job);
            }
        };
        if let Ok(status) = status {
            changed.status = Some(status);
            let stored = self.world.store(changed);
            self.stored(stored);
        }
    }

    fn catch_up(&mut self, events: usize) {
        for _ in 0..events.min(self.watch.len()) {
            match self.watch.pop_front() {
                Some(Ok(job)) => self.show(&job, true),
                Some(Err(gone)) => {
                    let known = self.shown.get(&gone.name);
                    if known.is_some_and(|job| job.metadata.uid.as_ref() == Some(&gone.uid)) {
                        self.shown.remove(&gone.name);
                    }
                    self.hear(Heard::JobGone {
                        namespace: &gone.namespace,
                        name: &gone.name,
                        uid: &gone.uid,
                    });
                }
                None => {}
            }
        }
    }

    fn attach(&mut self, pod: u64, known: bool, epoch: bool) {
        self.forget_asks(pod);
        self.counter += 1;
        let session = self.counter * 100 + pod;
        self.sessions.insert(pod, session);
        let uid = format!("pod-{pod}");
        let ledger: Vec<ClaimName> = self
            .shown
            .values()
            .filter_map(|job| {
                let claim = job.status.as_ref()?.claim.as_ref()?;
                // What was begun stands in the ledger, whatever else does.
                let begun = job.status.as_ref()?.phase == Some(Phase::Running);
                (claim.holder_pod_uid == uid && (known || begun)).then(|| ClaimName {
                    claim_id: claim.claim_id.clone(),
                    job: name_of(job),
                })
            })
            .collect();
        let epoch = if epoch { "epoch" } else { "another" };
        self.hear(attached(session, epoch, &ledger));
    }

    fn detach(&mut self, pod: u64) {
        self.forget_asks(pod);
        if let Some(session) = self.sessions.remove(&pod) {
            self.hear(Heard::Detached { session });
        }
    }

    fn forget_asks(&mut self, pod: u64) {
        if let Some(session) = self.sessions.get(&pod) {
            self.asked.retain(|_, ask| ask.session != *session);
        }
    }

    fn ask(&mut self, pod: u64, location: &str, port: &str, hold_ms: u32) {
        let Some(session) = self.sessions.get(&pod).copied() else {
            return;
        };
        self.counter += 1;
        let claim_id = format!("ask-{}", self.counter);
        let open = self
            .asked
            .values()
            .filter(|ask| ask.session == session)
            .count();
        if open < 4 {
            let ask = Asked {
                session,
                client: client(location),
                port: Port::new(port),
            };
            self.asked.insert(claim_id.clone(), ask);
        }
        self.hear(Heard::Ask {
            session,
            claim_id,
            location: Some(location.to_owned()),
            port: Some(port.to_owned()),
            hold_ms,
        });
    }

    fn release(&mut self, pod: u64) {
        let Some(session) = self.sessions.get(&pod).copied() else {
            return;
        };
        let uid = format!("pod-{pod}");
        let claim = self.shown.values().find_map(|job| {
            let status = job.status.as_ref()?;
            let claim = status.claim.as_ref()?;
            let mine = claim.holder_pod_uid == uid && status.phase == Some(Phase::Claimed);
            mine.then(|| ClaimName {
                claim_id: claim.claim_id.clone(),
                job: name_of(job),
            })
        });
        if let Some(claim) = claim {
            self.hear(Heard::Released { session, claim });
        }
    }

    fn carry_out(&mut self, which: usize, lost_answer: bool) {
        if self.world.todo.is_empty() {
            return;
        }
        let todo = self.world.todo.remove(which % self.world.todo.len());
        match &todo {
            Todo::Claim { job, choice, .. } => {
                self.write(&todo, job, &choice.claim_id, lost_answer)
            }
            Todo::Release { job, claim_id, .. } => self.write(&todo, job, claim_id, lost_answer),
            Todo::Lose { job, claim_id, .. } => {
                let loss = Loss {
                    message: "lost".to_owned(),
                    exit: None,
                };
                let found = self.world.jobs.get(&job.name).cloned();
                if let Some(mut found) = found.filter(|f| f.metadata.uid.as_ref() == Some(&job.uid))
                    && let Ok(status) = lose(&found, Some(claim_id), &loss, self.world.now, 0.0)
                {
                    found.status = Some(status);
                    let stored = self.world.store(found);
                    self.stored(stored);
                }
            }
            Todo::Doubt { session, claims } => {
                let session = *session;
                if self.sessions.values().all(|open| *open != session) {
                    return;
                }
                for claim in claims.clone() {
                    let known = which.is_multiple_of(2);
                    self.hear(Heard::LedgerAnswer {
                        session,
                        claim,
                        known,
                        delivered: known,
                    });
                }
            }
            Todo::Grant { .. } | Todo::Nothing { .. } => {}
        }
    }

    fn write(&mut self, todo: &Todo, job: &JobName, claim_id: &str, lost_answer: bool) {
        let mut outcome = self.world.write(todo);
        if let Outcome::Won(won) = &outcome {
            self.stored((**won).clone());
        }
        if lost_answer {
            // Read back: the newest view says whose it is.
            let found = self
                .world
                .jobs
                .get(&job.name)
                .filter(|found| found.metadata.uid.as_ref() == Some(&job.uid));
            outcome = Outcome::Lost(found.cloned().map(Box::new));
        }
        self.flying
            .retain(|uid, (id, _)| !(*uid == job.uid && *id == claim_id));
        match &outcome {
            Outcome::Won(view) | Outcome::Lost(Some(view)) => {
                let name = view.metadata.name.clone().unwrap();
                let known = self
                    .shown
                    .get(&name)
                    .filter(|known| known.metadata.uid == view.metadata.uid)
                    .cloned();
                // A view of a Job that the desk does not know says nothing to it.
                if let Some(known) = known {
                    let view = (**view).clone();
                    self.show(&view, false);
                    let after = self.shown[&name].metadata.resource_version.clone();
                    if let Todo::Claim {
                        resource_version, ..
                    } = todo
                        && known.metadata.resource_version == after
                        && after.as_ref() == Some(resource_version)
                    {
                        self.resting.insert(job.uid.clone(), after);
                    }
                }
            }
            Outcome::Lost(None) => {
                let known = self.shown.get(&job.name);
                if known.is_some_and(|known| known.metadata.uid.as_ref() == Some(&job.uid)) {
                    self.shown.remove(&job.name);
                }
            }
            Outcome::Refused(_) => {}
        }
        self.tell(job, claim_id, outcome);
    }

    fn tell(&mut self, job: &JobName, claim_id: &str, outcome: Outcome) {
        self.hear(Heard::Written {
            job: job.clone(),
            claim_id: claim_id.to_owned(),
            outcome,
        });
    }
}

fn number(job: &Job) -> u64 {
    job.metadata
        .resource_version
        .as_deref()
        .unwrap()
        .parse()
        .unwrap()
}

fn rank(job: &Job) -> (Timestamp, i32, Option<Timestamp>, String) {
    (
        times::start(job),
        -job.spec.priority,
        job.metadata.creation_timestamp.as_ref().map(|time| time.0),
        job.metadata.name.clone().unwrap(),
    )
}

proptest! {
    #[test]
    fn whatever_happens_the_desk_keeps_its_promises(events in proptest::collection::vec(event(), 1..200)) {
        let mut judge = Judge::new();
        for pod in 0..3 {
            judge.attach(pod, true, true);
        }
        for event in &events {
            judge.happen(event);
        }
        judge.end();
    }
}

/// The test above would hold as well if nothing ever happened.
#[test]
fn the_random_events_bring_out_everything_that_a_desk_can_say() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let events = proptest::collection::vec(event(), 150..200);
    let mut came: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..60 {
        let mut judge = Judge::new();
        for pod in 0..3 {
            judge.attach(pod, true, true);
        }
        for event in &events.new_tree(&mut runner).unwrap().current() {
            judge.happen(event);
        }
        for (kind, count) in judge.came {
            *came.entry(kind).or_default() += count;
        }
    }
    for (kind, least) in [
        ("claim", 300),
        ("grant", 100),
        ("nothing", 100),
        ("release", 20),
        ("doubt", 5),
        ("lose", 5),
    ] {
        let count = came.get(kind).copied().unwrap_or_default();
        assert!(count >= least, "{kind}: {count} in {came:?}");
    }
}

impl Judge {
    /// When everything is over nothing is left.
    fn end(&mut self) {
        self.paused = false;
        self.hear(Heard::Resume);
        for _ in 0..10_000 {
            if self.world.todo.is_empty() && self.watch.is_empty() {
                break;
            }
            self.carry_out(0, false);
            self.catch_up(1);
        }
        assert_eq!(self.world.todo, [], "the desk does not come to rest");
        for pod in 0..3 {
            self.detach(pod);
        }
        for name in NAMES {
            self.delete(name, true);
        }
        self.carry_out(0, false);
        self.world.desk.is_empty();
    }
}
