//! The judge. It knows the diaries of the plugins, the history of the API server and what leaders
//! have chosen, and nothing of how they came to it.

use crate::clock::Wall;
use crate::server::{Commit, Server, uid_of, version_of};
use patchbay_api::job::DeliveryPolicy;
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job};
use patchbay_reconcile::job::dispatch::JobRef;
use patchbay_reconcile::job::times;
use patchbay_reconcile::job::transition::Choice;
use std::collections::{BTreeMap, HashMap};

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    Duplicate,
    Expired,
    TooEarly,
    OtherClient,
    Inversion,
    Backwards,
    NotEnded,
    NotStored,
    Unaccounted,
}

impl Wrong {
    pub const ALL: [Wrong; 9] = [
        Wrong::Duplicate,
        Wrong::Expired,
        Wrong::TooEarly,
        Wrong::OtherClient,
        Wrong::Inversion,
        Wrong::Backwards,
        Wrong::NotEnded,
        Wrong::NotStored,
        Wrong::Unaccounted,
    ];
}

/// One line of a plugin's diary, as the plugin and the clocks around it know it.
pub struct Diary<'a> {
    pub uid: &'a str,
    pub claim_id: &'a str,
    pub pod: usize,
    /// For which client and port the plugin had asked.
    pub location: Option<&'a str>,
    pub port: Option<&'a str>,
    pub now: u64,
}

/// What is kept of one Job.
#[derive(Debug)]
struct Record {
    name: u32,
    location: String,
    port: String,
    at_least_once: bool,
    backoff_limit: i32,
    /// In microseconds since 1970.
    start: i64,
    expire: Option<i64>,
    /// Claims under which plugins got it.
    delivered: Vec<String>,
    /// Claims that were written.
    claims: u32,
    /// Rows that plugins gave as the end of it.
    succeeded: bool,
}

/// A Job that could be handed out, as the API server has it.
#[derive(Debug)]
struct Eligible {
    /// Not before these moments, by the versions that said so.
    from: Vec<(u64, i64)>,
    expire: i64,
    port: String,
}

impl Eligible {
    /// Whether it could be handed out at this moment, as it was at this version.
    fn is(&self, observed: u64, clock: i64) -> bool {
        let seen = self
            .from
            .iter()
            .rev()
            .find(|(version, _)| *version <= observed);
        seen.is_some_and(|(_, at)| *at <= clock) && clock < self.expire
    }
}

/// A claim that a leader has chosen to write.
#[derive(Clone, Debug)]
struct Flight {
    claim_id: String,
    version: u64,
    landed: Option<u64>,
    /// The write was refused or impossible; the leader waits before the next.
    cooled: bool,
}

/// Whose clock was looked at, and when a grant was said.
#[derive(Clone, Copy, Debug)]
struct Granted {
    wall: Wall,
    at: u64,
}

type Ladder = BTreeMap<(i64, String), Eligible>;

#[derive(Default)]
pub struct Judge {
    records: HashMap<String, Record>,
    /// By plugin, then by client; none is the empty text.
    eligible: HashMap<String, HashMap<String, Ladder>>,
    /// By leader, then by Job.
    flights: HashMap<usize, HashMap<String, Flight>>,
    /// Choices that passed somebody over, until they are written.
    suspected: HashMap<(String, String), String>,
    granted: HashMap<String, Granted>,
    ports: HashMap<String, Option<String>>,
    pub deliveries: u64,
    pub found: Vec<(Wrong, String)>,
    /// Plugins where a client may have only so many jobs: there the order counts per client.
    pub limited: Vec<String>,
}

fn is_true(job: &Job, type_: ConditionType) -> bool {
    let status = job.status.as_ref();
    status.is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == type_.as_str() && c.status == "True")
    })
}

fn phase(job: &Job) -> Option<Phase> {
    job.status.as_ref().and_then(|status| status.phase)
}

fn claim_id(job: &Job) -> Option<&str> {
    let claim = job.status.as_ref()?.claim.as_ref()?;
    Some(&claim.claim_id)
}

/// Whether the object says that it can be handed out, once its time comes.
fn is_open(job: &Job) -> bool {
    matches!(phase(job), Some(Phase::Ready | Phase::Waiting))
        && is_true(job, ConditionType::Accepted)
        && !job.spec.suspend
        && job
            .metadata
            .annotations
            .as_ref()
            .is_none_or(|a| a.is_empty())
}

impl Judge {
    pub fn wrong(&mut self, what: Wrong, text: String) {
        if self.found.len() < 200 {
            self.found.push((what, text));
        }
    }

    pub fn created(&mut self, name: u32, job: &Job) {
        let record = Record {
            name,
            location: job.spec.target.client.clone(),
            port: job.spec.target.port.clone(),
            at_least_once: job.spec.delivery_policy == DeliveryPolicy::AtLeastOnce,
            backoff_limit: job.spec.backoff_limit,
            start: times::start(job).as_microsecond(),
            expire: times::expire(job).map(|time| time.as_microsecond()),
            delivered: Vec::new(),
            claims: 0,
            succeeded: false,
        };
        self.records.insert(uid_of(job).to_owned(), record);
    }

    pub fn deleted(&mut self, job: &Job) {
        self.close(job);
    }

    fn ladder(&mut self, job: &Job) -> &mut Ladder {
        let plugin = self
            .eligible
            .entry(job.spec.plugin_ref.name.clone())
            .or_default();
        plugin.entry(job.spec.target.client.clone()).or_default()
    }

    fn close(&mut self, job: &Job) {
        let key = (times::start(job).as_microsecond(), uid_of(job).to_owned());
        self.ladder(job).remove(&key);
    }

    /// The API server has committed something.
    pub fn committed(&mut self, commit: &Commit, server: &Server) {
        let (before, after) = (&*commit.before, &*commit.after);
        match (is_open(before), is_open(after)) {
            (true, false) => self.close(before),
            (_, true) => {
                let key = (
                    times::start(after).as_microsecond(),
                    uid_of(after).to_owned(),
                );
                let at = times::eligible_at(after).as_microsecond();
                let version = version_of(after);
                let eligible = Eligible {
                    from: Vec::new(),
                    expire: times::expire(after).map_or(i64::MAX, |time| time.as_microsecond()),
                    port: after.spec.target.port.clone(),
                };
                let ladder = self.ladder(after);
                let known = ladder.entry(key).or_insert(eligible);
                if known.from.last().is_none_or(|(_, last)| *last != at) {
                    known.from.push((version, at));
                }
            }
            (false, false) => {}
        }
        self.directions(before, after);
        if claim_id(before) != claim_id(after) && claim_id(after).is_some() {
            self.claimed(after);
        }
        if phase(before) != Some(Phase::Succeeded) && phase(after) == Some(Phase::Succeeded) {
            self.succeeded(after, server);
        }
    }

    /// Nothing leaves an end, and no phase goes where it must not.
    fn directions(&mut self, before: &Job, after: &Job) {
        use Phase::*;
        let (from, to) = (phase(before), phase(after));
        let fits = from == to
            || match (from, to) {
                (None, Some(Waiting | Ready | Invalid | Suspended | Failed)) => true,
                (Some(Waiting), Some(Ready | Claimed | Suspended | Failed | Invalid)) => true,
                (Some(Ready), Some(Claimed | Suspended | Failed)) => true,
                (Some(Suspended), Some(Waiting | Ready | Failed)) => true,
                (Some(Claimed), Some(Running | Ready | Succeeded | Failed)) => true,
                (Some(Running), Some(Succeeded | Failed)) => true,
                (Some(Claimed | Running), Some(Waiting)) => {
                    before.spec.delivery_policy == DeliveryPolicy::AtLeastOnce
                }
                _ => false,
            };
        if !fits {
            let text = format!("{} went from {from:?} to {to:?}", uid_of(after));
            self.wrong(Wrong::Backwards, text);
        }
        if let (Some(a), Some(b)) = (claim_id(before), claim_id(after))
            && a != b
        {
            let text = format!("{}: claim {b} followed {a} directly", uid_of(after));
            self.wrong(Wrong::Backwards, text);
        }
    }

    fn claimed(&mut self, job: &Job) {
        let uid = uid_of(job).to_owned();
        let id = claim_id(job).unwrap_or_default().to_owned();
        if let Some(text) = self.suspected.remove(&(id.clone(), uid.clone())) {
            self.wrong(Wrong::Inversion, text);
        }
        let attempt = job.status.as_ref().map_or(0, |status| status.attempt);
        let Some(record) = self.records.get_mut(&uid) else {
            return;
        };
        record.claims += 1;
        if attempt > 1 && !record.at_least_once || attempt > record.backoff_limit + 1 {
            let text = format!("{uid} is claimed for attempt {attempt}");
            self.wrong(Wrong::Duplicate, text);
        }
    }

    fn succeeded(&mut self, job: &Job, server: &Server) {
        let uid = uid_of(job);
        let output = job
            .status
            .as_ref()
            .and_then(|status| status.output.as_ref());
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        let mut missing = output.is_none_or(|output| output.row_count == 0);
        for row in output.into_iter().flat_map(|output| &output.rows) {
            let object = crate::leader::object_name(job, attempt, row.row);
            let outside = row.chunks > 0;
            missing |= outside && server.owner_of_output(&object) != Some(uid);
            missing |= !outside && row.content.is_none();
        }
        if missing {
            let text = format!("{uid} succeeded before its output was stored: {output:?}");
            self.wrong(Wrong::NotStored, text);
        }
        let told = self.records.get(uid).is_some_and(|record| record.succeeded);
        if !told {
            let text = format!("{uid} succeeded and no plugin said so");
            self.wrong(Wrong::Unaccounted, text);
        }
    }

    pub fn asked(&mut self, claim_id: &str, port: Option<String>) {
        self.ports.insert(claim_id.to_owned(), port);
    }

    /// A leader has chosen a Job. An inversion is a Job with an earlier start that was eligible at
    /// the version that the leader had seen, and still is, and that is neither held nor in flight.
    #[allow(clippy::too_many_arguments)]
    pub fn chose(
        &mut self,
        leader: usize,
        wall: Wall,
        now: u64,
        job: &JobRef,
        version: u64,
        plugin: &str,
        choice: &Choice,
    ) {
        let clock = wall.at(now).as_microsecond();
        let observed: u64 = choice.observed_resource_version.parse().unwrap_or(0);
        let port = self.ports.get(&choice.claim_id).cloned().flatten();
        let wanted = choice.client_location.as_deref();
        if let Some(record) = self.records.get(&job.uid) {
            let limited = self.limited.iter().any(|name| name == plugin);
            let (start, of) = (record.start, record.location.as_str());
            let flights = self.flights.get(&leader);
            let mut passed = None;
            for (location, ladder) in self.eligible.get(plugin).into_iter().flatten() {
                let fits = wanted.is_none_or(|wanted| location.is_empty() || wanted == location);
                if !fits || limited && location != of {
                    continue;
                }
                passed = ladder
                    .range(..(start, String::new()))
                    .find(|((_, uid), other)| {
                        let flight = flights.and_then(|flights| flights.get(uid));
                        other.is(observed, clock)
                            && port.as_deref().is_none_or(|port| {
                                port.is_empty() || other.port.is_empty() || other.port == port
                            })
                            && !flight.is_some_and(|flight| match flight.landed {
                                None => true,
                                Some(at) => flight.cooled && now < at + 5_100_000,
                            })
                    })
                    .map(|((_, uid), _)| uid.clone())
                    .or(passed);
            }
            if let Some(other) = passed {
                let text = format!(
                    "{} was chosen by leader {leader} at {now}, having observed {observed}, while {other} was eligible",
                    job.uid
                );
                self.suspected
                    .insert((choice.claim_id.clone(), job.uid.clone()), text);
            }
        }
        let flight = Flight {
            claim_id: choice.claim_id.clone(),
            version,
            landed: None,
            cooled: false,
        };
        self.flights
            .entry(leader)
            .or_default()
            .insert(job.uid.clone(), flight);
    }

    /// A leader knows how the write about this claim ended, and of which version the news is. The
    /// return of an older claim can end while a newer one is in flight.
    pub fn landed(
        &mut self,
        leader: usize,
        uid: &str,
        claim_id: &str,
        now: u64,
        view: Option<u64>,
    ) {
        let flights = self.flights.get_mut(&leader);
        if let Some(flight) = flights.and_then(|flights| flights.get_mut(uid))
            && flight.claim_id == claim_id
        {
            flight.landed = Some(now);
            flight.cooled = view == Some(flight.version);
        }
    }

    pub fn granted(&mut self, claim_id: &str, wall: Wall, at: u64) {
        self.granted
            .insert(claim_id.to_owned(), Granted { wall, at });
    }

    /// A plugin has got a job.
    pub fn delivered(&mut self, line: &Diary<'_>, server: &Server) {
        self.deliveries += 1;
        let Some(record) = self.records.get_mut(line.uid) else {
            return self.wrong(Wrong::Unaccounted, format!("{} never was", line.uid));
        };
        record.delivered.push(line.claim_id.to_owned());
        let times = record.delivered.len();
        let again = record
            .delivered
            .iter()
            .filter(|id| *id == line.claim_id)
            .count()
            > 1;
        let most = if record.at_least_once {
            record.backoff_limit + 1
        } else {
            1
        };
        let (start, expire) = (record.start, record.expire);
        let (location, port, name) = (record.location.clone(), record.port.clone(), record.name);
        if again || times > usize::try_from(most).unwrap_or(1) {
            let ids = record.delivered.clone();
            let text = format!("{} reached plugins {times} times: {ids:?}", line.uid);
            self.wrong(Wrong::Duplicate, text);
        }
        if location != line.location.unwrap_or(&location) && !location.is_empty() {
            let text = format!("{} for {location} reached {:?}", line.uid, line.location);
            self.wrong(Wrong::OtherClient, text);
        }
        if !port.is_empty()
            && line
                .port
                .is_some_and(|asked| !asked.is_empty() && asked != port)
        {
            let text = format!("{} for port {port} reached {:?}", line.uid, line.port);
            self.wrong(Wrong::OtherClient, text);
        }
        match self.granted.get(line.claim_id).copied() {
            None => {
                let text = format!("{} was handed over without a grant", line.uid);
                self.wrong(Wrong::Unaccounted, text);
            }
            Some(granted) => {
                // Decisions follow the leader's clock, as it was set when it last looked.
                let clock = granted.wall.at(line.now).as_microsecond();
                // What a clock that is too slow by 200 parts in a million adds.
                let drift = (line.now - granted.at) as i64 / 5_000;
                if expire.is_some_and(|expire| clock - drift >= expire) {
                    let late = clock - expire.unwrap_or(0);
                    let text = format!("{} reached pod {} {late} us too late", line.uid, line.pod);
                    self.wrong(Wrong::Expired, text);
                }
                if clock < start {
                    let early = start - clock;
                    let text =
                        format!("{} reached pod {} {early} us too early", line.uid, line.pod);
                    self.wrong(Wrong::TooEarly, text);
                }
            }
        }
        // The object must say that this claim holds it, or held it when it ended.
        if let Some(job) = server.objects.get(&name)
            && uid_of(job) == line.uid
        {
            let held = phase(job).is_some_and(|p| p.is_held() || p.is_terminal());
            if !held || claim_id(job) != Some(line.claim_id) {
                let text = format!(
                    "{} reached a plugin by {} while it is {:?} by {:?}",
                    line.uid,
                    line.claim_id,
                    phase(job),
                    claim_id(job)
                );
                self.wrong(Wrong::Unaccounted, text);
            }
        }
    }

    pub fn has_reached_a_plugin(&self, uid: &str) -> bool {
        let record = self.records.get(uid);
        record.is_some_and(|record| !record.delivered.is_empty())
    }

    /// Jobs that reached a plugin.
    pub fn jobs_delivered(&self) -> usize {
        self.records
            .values()
            .filter(|record| !record.delivered.is_empty())
            .count()
    }

    /// A plugin gives the last row of a job that it has done.
    pub fn done(&mut self, uid: &str) {
        if let Some(record) = self.records.get_mut(uid) {
            record.succeeded = true;
        }
    }

    /// Faults have stopped long ago: everything has ended, as what became of it says.
    pub fn end(&mut self, server: &Server) {
        for job in server.objects.values() {
            let uid = uid_of(job);
            let Some(record) = self.records.get(uid) else {
                continue;
            };
            let reason = job
                .status
                .as_ref()
                .map_or("", |status| status.reason.as_str());
            let text = match phase(job) {
                Some(phase) if phase.is_terminal() => {
                    let times = record.delivered.len();
                    if phase == Phase::Succeeded && times == 0
                        || reason == "Expired" && times > 0 && !record.at_least_once
                        || times > record.claims as usize
                    {
                        let text =
                            format!("{uid} is {phase}/{reason} and was delivered {times} times");
                        self.wrong(Wrong::Unaccounted, text);
                    }
                    continue;
                }
                phase => format!(
                    "{} {uid} is {phase:?}/{reason} by {:?} of {:?}, delivered as {:?}",
                    record.name,
                    claim_id(job),
                    job.status
                        .as_ref()
                        .and_then(|s| s.claim.as_ref())
                        .map(|c| &c.holder_pod_uid),
                    record.delivered,
                ),
            };
            self.wrong(Wrong::NotEnded, text);
        }
    }
}
