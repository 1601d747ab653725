//! Who hears everything that the dispatcher hears, and says whether what it answers is allowed.

use super::super::world::World;
use crate::job::conditions::{find, is_accepted};
use crate::job::dispatch::{DispatchLimits, Effect, Event, JobRef};
use crate::job::location::{Port, named_client};
use crate::job::times;
use crate::job::transition::cancelled;
use jiff::Timestamp;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) session: u64,
    pub(super) client: Option<String>,
    pub(super) port: Port,
}

/// What a judge who hears everything that the dispatcher hears knows.
pub(super) struct Judge {
    pub(super) world: World,
    /// What the watch has still to say: a view, or an end.
    pub(super) watch: VecDeque<Result<Job, JobRef>>,
    /// The newest view that the dispatcher was shown.
    pub(super) shown: BTreeMap<String, Job>,
    /// Claims under way: job uid to claim id, and for which client they count.
    pub(super) claiming: BTreeMap<String, (String, Option<String>)>,
    /// When the dispatcher was shown what it knows of a Job.
    pub(super) since: BTreeMap<String, u64>,
    /// Since when a Job that is not accepted is in the way of requests, at the latest.
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
    /// What came out of the dispatcher, by kind.
    pub(super) received_at: BTreeMap<&'static str, u32>,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            world: World::with(DispatchLimits {
                claims_in_flight: 4,
                claims_in_flight_per_plugin: 3,
                requests_per_pod: 4,
            }),
            watch: VecDeque::new(),
            shown: BTreeMap::new(),
            claiming: BTreeMap::new(),
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
            received_at: BTreeMap::new(),
        }
    }

    pub(super) fn handle(&mut self, event: Event<'_>) {
        let before = self.world.effects.len();
        self.world.handle(event);
        let new: Vec<Effect> = self.world.effects[before..].to_vec();
        for effects in &new {
            self.judge(effects);
        }
        self.nobody_waits_in_vain();
        assert_eq!(self.world.dispatcher.in_flight(), self.claiming.len());
        assert_eq!(self.world.dispatcher.requests(), self.asked.len());
    }

    /// What comes out of the dispatcher is allowed.
    pub(super) fn judge(&mut self, effects: &Effect) {
        let kind = match effects {
            Effect::Claim { .. } => "claim",
            Effect::Release { .. } => "release",
            Effect::Lose { .. } => "lose",
            Effect::Grant { .. } => "grant",
            Effect::NoWork { .. } => "nothing",
            Effect::ClaimQuery { .. } => "doubt",
        };
        *self.received_at.entry(kind).or_default() += 1;
        match effects {
            Effect::Claim {
                job,
                resource_version,
                choice,
            } => {
                let request = self.asked[&choice.claim_id].clone();
                assert_eq!(self.sessions[&(request.session % 100)], request.session);
                assert!(!self.paused, "a claim while paused");
                let view = &self.shown[&job.name];
                assert_eq!(view.metadata.uid.as_ref(), Some(&job.uid));
                assert_eq!(
                    view.metadata.resource_version.as_ref(),
                    Some(resource_version)
                );
                assert!(
                    self.can_have(&request, view),
                    "{request:?} was given {view:?}"
                );
                for other in self.shown.values() {
                    let earlier = rank(other) < rank(view);
                    assert!(
                        !(earlier && self.can_have(&request, other)),
                        "{:?} was passed over for {:?}",
                        other.metadata.name,
                        view.metadata.name
                    );
                    if earlier && self.would_have(&request, other) && is_pending_acceptance(other) {
                        let name = other.metadata.name.as_ref().unwrap();
                        assert!(
                            self.world.mono - self.since[name] >= ACCEPTANCE_TIMEOUT_MS,
                            "{name} was passed over before it could be judged"
                        );
                        *self.received_at.entry("passed over").or_default() += 1;
                    }
                }
                let counts_for =
                    named_client(&view.spec.target.client).or_else(|| request.client.clone());
                let pending = (choice.claim_id.clone(), counts_for);
                let before = self.claiming.insert(job.uid.clone(), pending);
                assert_eq!(before, None, "two claims under way for one job");
                assert!(self.within_limits(), "more than the limits allow");
            }
            Effect::Grant {
                session,
                claim,
                remaining_ms,
                ..
            } => {
                let request = self.asked.remove(&claim.claim_id).expect("nobody asked");
                assert_eq!(request.session, *session);
                assert!(self.granted.insert(claim.claim_id.clone()), "granted twice");
                let view = &self.shown[&claim.job.name];
                let status = view.status.as_ref().unwrap();
                assert_eq!(status.claim.as_ref().unwrap().claim_id, claim.claim_id);
                assert!(status.phase.unwrap().is_held());
                assert!(!times::is_expired(view, self.world.now), "granted too late");
                assert!(self.world.now >= times::start(view), "granted too early");
                assert_eq!(*remaining_ms == 0, view.spec.expire_time.is_none());
            }
            Effect::NoWork { claim_id, .. } => {
                // Also for requests that were refused at the door.
                self.asked.remove(claim_id);
            }
            Effect::Release { claim_id, job, .. } => {
                let view = &self.shown[&job.name];
                let status = view.status.as_ref().unwrap();
                assert_eq!(status.phase, Some(Phase::Claimed));
                assert_eq!(&status.claim.as_ref().unwrap().claim_id, claim_id);
            }
            Effect::Lose { .. } | Effect::ClaimQuery { .. } => {}
        }
    }

    /// By what the dispatcher was shown.
    pub(super) fn can_have(&self, request: &Asked, job: &Job) -> bool {
        let phase = job.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(Phase::Ready | Phase::Waiting))
            && is_accepted(job)
            && self.would_have(request, job)
    }

    /// As far as it does not depend on the verdict of the plugin.
    pub(super) fn would_have(&self, request: &Asked, job: &Job) -> bool {
        let uid = job.metadata.uid.clone().unwrap();
        let target = &job.spec.target;
        let client = named_client(&target.client);
        let counts_for = client.clone().or_else(|| request.client.clone());
        !job.spec.suspend
            && !cancelled(job)
            && !self.claiming.contains_key(&uid)
            && self.resting.get(&uid) != Some(&job.metadata.resource_version)
            && self.world.now >= times::eligible_at(job)
            && !times::is_expired(job, self.world.now)
            && (client.is_none() || request.client.is_none() || client == request.client)
            && Port::new(&target.port).fits(request.port)
            && self.has_room(counts_for)
    }

    /// Jobs claimed by pods, and for whom.
    pub(super) fn running(&self) -> Vec<Option<String>> {
        let claimed = self.shown.values().filter_map(|job| {
            let status = job.status.as_ref()?;
            let uid = job.metadata.uid.as_ref()?;
            let claim = status.claim.as_ref()?;
            if !status.phase?.is_held() || self.claiming.contains_key(uid) {
                return None;
            }
            let target = named_client(&job.spec.target.client);
            Some(target.or_else(|| claim.client_location.clone()))
        });
        let claiming = self.claiming.values().map(|(_, client)| client.clone());
        claimed.chain(claiming).collect()
    }

    pub(super) fn has_room(&self, client: Option<String>) -> bool {
        let running = self.running();
        let here = running.iter().filter(|known| **known == client).count();
        self.per_client
            .is_none_or(|most| client.is_none() || here < most as usize)
    }

    pub(super) fn within_limits(&self) -> bool {
        self.claiming.len() <= 3
            && self
                .most
                .is_none_or(|most| self.running().len() <= most as usize)
    }

    /// Nothing that could be dispatched waits beside a request that could have it.
    pub(super) fn nobody_waits_in_vain(&mut self) {
        let full = self.claiming.len() >= 3
            || self
                .most
                .is_some_and(|most| self.running().len() >= most as usize);
        let now = self.world.now;
        let shown = &self.shown;
        // A job before its start or after its expiry starts waiting again when it comes back.
        self.in_the_way.retain(|name, _| {
            shown.get(name).is_some_and(|job| {
                is_pending_acceptance(job)
                    && now >= times::eligible_at(job)
                    && !times::is_expired(job, now)
            })
        });
        if self.paused || full {
            return;
        }
        let mut blocked = 0;
        let mut in_the_way = Vec::new();
        for (id, request) in &self.asked {
            if self.claiming.values().any(|(claim_id, _)| claim_id == id) {
                continue;
            }
            // The first that it waits for to be accepted.
            let before = self
                .shown
                .values()
                .filter(|job| is_pending_acceptance(job) && self.would_have(request, job))
                .filter(|job| {
                    let since = self.in_the_way.get(job.metadata.name.as_ref().unwrap());
                    since.is_none_or(|since| self.world.mono - since < ACCEPTANCE_TIMEOUT_MS)
                })
                .min_by_key(|job| rank(job));
            for job in self.shown.values() {
                if !self.can_have(request, job) {
                    continue;
                }
                assert!(
                    before.is_some_and(|before| rank(before) < rank(job)),
                    "ask {id} and job {:?} wait for each other",
                    job.metadata.name
                );
                blocked += 1;
            }
            in_the_way.extend(before.and_then(|job| job.metadata.name.clone()));
        }
        *self.received_at.entry("held up").or_default() += blocked;
        for name in in_the_way {
            self.in_the_way.entry(name).or_insert(self.world.mono);
        }
    }
}

/// Longer nobody waits for a verdict, in milliseconds.
const ACCEPTANCE_TIMEOUT_MS: u64 = 5_000;

/// Whether the Job is new, or waits, and its plugin has not said whether it takes it.
fn is_pending_acceptance(job: &Job) -> bool {
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
