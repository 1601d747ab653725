//! Who hears everything that the desk hears, and says whether what it answers is allowed.

use super::super::world::World;
use crate::job::conditions::{find, is_accepted};
use crate::job::desk::{Heard, JobName, Limits, Todo};
use crate::job::location::{Port, client};
use crate::job::times;
use crate::job::transition::cancelled;
use jiff::Timestamp;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An ask that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) session: u64,
    pub(super) client: Option<String>,
    pub(super) port: Port,
}

/// What a judge who hears everything that the desk hears knows.
pub(super) struct Judge {
    pub(super) world: World,
    /// What the watch has still to say: a view, or an end.
    pub(super) watch: VecDeque<Result<Job, JobName>>,
    /// The newest view that the desk was shown.
    pub(super) shown: BTreeMap<String, Job>,
    /// Claims under way: job uid to claim id, and for which client they count.
    pub(super) flying: BTreeMap<String, (String, Option<String>)>,
    /// When the desk was shown what it knows of a Job.
    pub(super) since: BTreeMap<String, u64>,
    /// Since when a Job that is not judged is in the way of asks, at the latest.
    pub(super) in_the_way: BTreeMap<String, u64>,
    pub(super) asked: BTreeMap<String, Asked>,
    /// Open session of each pod.
    pub(super) sessions: BTreeMap<u64, u64>,
    pub(super) granted: BTreeSet<String>,
    /// Jobs that rest after a write that brought no news, and their version.
    pub(super) resting: BTreeMap<String, Option<String>>,
    pub(super) most: Option<u32>,
    pub(super) per_client: Option<u32>,
    pub(super) paused: bool,
    pub(super) counter: u64,
    /// What came out of the desk, by kind.
    pub(super) came: BTreeMap<&'static str, u32>,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            world: World::with(Limits {
                claims_in_flight: 4,
                claims_in_flight_per_plugin: 3,
                asks_per_pod: 4,
            }),
            watch: VecDeque::new(),
            shown: BTreeMap::new(),
            flying: BTreeMap::new(),
            since: BTreeMap::new(),
            in_the_way: BTreeMap::new(),
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

    pub(super) fn hear(&mut self, heard: Heard<'_>) {
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
    pub(super) fn judge(&mut self, todo: &Todo) {
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
                    if earlier && self.would_have(&ask, other) && is_unjudged(other) {
                        let name = other.metadata.name.as_ref().unwrap();
                        assert!(
                            self.world.mono - self.since[name] >= JUDGED_WITHIN,
                            "{name} was passed over before it could be judged"
                        );
                        *self.came.entry("passed over").or_default() += 1;
                    }
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
    pub(super) fn can_have(&self, ask: &Asked, job: &Job) -> bool {
        let phase = job.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(Phase::Ready | Phase::Waiting))
            && is_accepted(job)
            && self.would_have(ask, job)
    }

    /// As far as it does not depend on the verdict of the plugin.
    pub(super) fn would_have(&self, ask: &Asked, job: &Job) -> bool {
        let uid = job.metadata.uid.clone().unwrap();
        let target = &job.spec.target;
        let location = client(&target.location);
        let counts_for = location.clone().or_else(|| ask.client.clone());
        !job.spec.suspend
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
    pub(super) fn running(&self) -> Vec<Option<String>> {
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

    pub(super) fn has_room(&self, client: Option<String>) -> bool {
        let running = self.running();
        let here = running.iter().filter(|known| **known == client).count();
        self.per_client
            .is_none_or(|most| client.is_none() || here < most as usize)
    }

    pub(super) fn within_limits(&self) -> bool {
        self.flying.len() <= 3
            && self
                .most
                .is_none_or(|most| self.running().len() <= most as usize)
    }

    /// Nothing that could be handed out waits beside an ask that could have it.
    pub(super) fn nobody_waits_in_vain(&mut self) {
        let full = self.flying.len() >= 3
            || self
                .most
                .is_some_and(|most| self.running().len() >= most as usize);
        let now = self.world.now;
        let shown = &self.shown;
        // Whoever's time has not come, or is over, begins anew when it has come back.
        self.in_the_way.retain(|name, _| {
            shown.get(name).is_some_and(|job| {
                is_unjudged(job) && now >= times::eligible_at(job) && !times::is_expired(job, now)
            })
        });
        if self.paused || full {
            return;
        }
        let mut held_up = 0;
        let mut in_the_way = Vec::new();
        for (id, ask) in &self.asked {
            if self.flying.values().any(|(claim_id, _)| claim_id == id) {
                continue;
            }
            // The first that it waits for to be judged.
            let before = self
                .shown
                .values()
                .filter(|job| is_unjudged(job) && self.would_have(ask, job))
                .filter(|job| {
                    let since = self.in_the_way.get(job.metadata.name.as_ref().unwrap());
                    since.is_none_or(|since| self.world.mono - since < JUDGED_WITHIN)
                })
                .min_by_key(|job| rank(job));
            for job in self.shown.values() {
                if !self.can_have(ask, job) {
                    continue;
                }
                assert!(
                    before.is_some_and(|before| rank(before) < rank(job)),
                    "ask {id} and job {:?} wait for each other",
                    job.metadata.name
                );
                held_up += 1;
            }
            in_the_way.extend(before.and_then(|job| job.metadata.name.clone()));
        }
        *self.came.entry("held up").or_default() += held_up;
        for name in in_the_way {
            self.in_the_way.entry(name).or_insert(self.world.mono);
        }
    }
}

/// Longer nobody waits for a verdict, in milliseconds.
const JUDGED_WITHIN: u64 = 5_000;

/// Whether the Job is new, or waits, and its plugin has not said whether it takes it.
fn is_unjudged(job: &Job) -> bool {
    let Some(status) = &job.status else {
        return true;
    };
    let accepted = find(status, ConditionType::Accepted).map(|accepted| accepted.status.as_str());
    matches!(status.phase, None | Some(Phase::Ready | Phase::Waiting))
        && !matches!(accepted, Some("True" | "False"))
}

pub(super) fn number(job: &Job) -> u64 {
    job.metadata
        .resource_version
        .as_deref()
        .unwrap()
        .parse()
        .unwrap()
}

pub(super) fn rank(job: &Job) -> (Timestamp, i32, Option<Timestamp>, String) {
    (
        times::start(job),
        -job.spec.priority,
        job.metadata.creation_timestamp.as_ref().map(|time| time.0),
        job.metadata.name.clone().unwrap(),
    )
}
