//! What a leader does with the API server: the driver's contract about outcomes that are not
//! known, step by step, since nothing may wait here.

use crate::faults::Broken;
use crate::leader::{is_claimed_with, object_name};
use crate::server::{Call, Reply, number, uid_of, version_of};
use crate::session::Down;
use crate::world::{MS, SECOND, SimEvent, World};
use patchbay_api::job_status::Phase;
use patchbay_api::{Job, JobStatus, Reason};
use patchbay_protocol::session as wire;
use patchbay_reconcile::job::dispatch::{JobRef, LossCause, WriteOutcome};
use patchbay_reconcile::job::output::fits_inline;
use patchbay_reconcile::job::transition::{self, Choice, Loss, NotNow, RowOutcome, StoredRow};
use patchbay_sidecar::jobs::claims::entry::RowEnd;
use patchbay_sidecar::jobs::claims::event::{ClaimId, SendRow};
use std::sync::Arc;

/// What a sidecar says of a claim.
#[derive(Clone, Debug)]
pub enum Word {
    Started,
    Row(Box<SendRow>),
    LossCause(String),
}

/// What is written.
#[derive(Clone, Debug)]
pub enum Kind {
    Claim {
        job: JobRef,
        choice: Choice,
    },
    Release {
        job: JobRef,
        claim_id: String,
    },
    Pass,
    Lose {
        claim_id: String,
        why: LossCause,
    },
    Word {
        link: usize,
        claim: ClaimId,
        word: Word,
    },
}

/// One write, until its outcome is known.
#[derive(Debug)]
pub struct Op {
    pub kind: Kind,
    name: u32,
    uid: String,
    /// The version that a claim or a release applies to.
    version: u64,
    /// What a change begins from, and whether it was read past the watch.
    newest: Option<Arc<Job>>,
    live: bool,
    /// The object that holds the row, and the one that is being created.
    stored: Option<String>,
    storing: Option<String>,
    /// The answer that is waited for.
    turn: u64,
}

/// How a change ended.
enum End {
    Done(Arc<Job>),
    NotNow(NotNow, Arc<Job>),
    ProcessGone,
}

impl World {
    fn begin(&mut self, leader: usize, op: Op) -> u64 {
        let known = &mut self.leaders[leader];
        known.last_op += 1;
        known.ops.insert(known.last_op, op);
        known.last_op
    }

    pub fn begin_once(&mut self, leader: usize, kind: Kind, version: &str) {
        let (Kind::Claim { job, .. } | Kind::Release { job, .. }) = &kind else {
            return;
        };
        let op = Op {
            name: number(&job.name),
            uid: job.uid.clone(),
            version: version.parse().unwrap_or(0),
            newest: None,
            live: false,
            stored: None,
            storing: None,
            turn: 0,
            kind,
        };
        let op = self.begin(leader, op);
        self.once(leader, op);
    }

    pub fn begin_change(&mut self, leader: usize, name: u32, uid: String, kind: Kind) {
        let known = self.leaders[leader]
            .known
            .get(&name)
            .filter(|job| !has_ended(job))
            .cloned();
        let op = Op {
            kind,
            name,
            uid,
            version: 0,
            newest: known,
            live: false,
            stored: None,
            storing: None,
            turn: 0,
        };
        let op = self.begin(leader, op);
        self.change(leader, op);
    }

    /// Words of one claim are worked on one after the other.
    pub fn word(
        &mut self,
        leader: usize,
        link: usize,
        claim: ClaimId,
        name: u32,
        uid: String,
        word: Word,
    ) {
        let queue = self.leaders[leader].words.entry((link, claim)).or_default();
        queue.push_back(word.clone());
        if queue.len() == 1 {
            self.begin_change(leader, name, uid, Kind::Word { link, claim, word });
        }
    }

    /// Sends a request; what the network and the server do to it is drawn here.
    fn send(&mut self, leader: usize, op: u64, call: Call) {
        let Some(known) = self.leaders[leader].ops.get_mut(&op) else {
            return;
        };
        known.turn += 1;
        let turn = known.turn;
        let from = Some((leader, op, turn));
        let faults = self.setting.faults.clone();
        let lag = self.rng.range(300, 2 * MS);
        let unknown = || SimEvent::Answer {
            leader,
            op,
            turn,
            reply: Box::new(Reply::Unknown),
        };
        if self.fault("requests lost before their arrival", faults.lost_before) {
            let wait = self.rng.range(MS, 2 * SECOND);
            return self.at(wait, unknown());
        }
        if self.fault("answers lost after the commit", faults.lost_after) {
            let wait = self.rng.range(5 * MS, 2 * SECOND);
            self.at(lag, SimEvent::Arrive { from: None, call });
            return self.at(wait, unknown());
        }
        if self.fault("requests that commit late", faults.late) {
            let wait = self.rng.range(MS, SECOND);
            self.at(wait, unknown());
            let later = wait + self.rng.range(0, 3 * SECOND);
            return self.at(later, SimEvent::Arrive { from: None, call });
        }
        self.at(lag, SimEvent::Arrive { from, call });
    }

    pub fn answer(&mut self, leader: usize, op: u64, turn: u64, reply: Reply) {
        let known = &mut self.leaders[leader];
        if !known.alive {
            return;
        }
        let Some(found) = known.ops.get_mut(&op).filter(|found| found.turn == turn) else {
            return;
        };
        let once = matches!(found.kind, Kind::Claim { .. } | Kind::Release { .. });
        match reply {
            Reply::Stored => {
                found.stored = found.storing.take();
                self.change(leader, op);
            }
            Reply::Written(job) => {
                self.saw(leader, &job);
                match once {
                    true => {
                        self.end_once(leader, op, WriteOutcome::Applied(Box::new((*job).clone())))
                    }
                    false => self.end_change(leader, op, End::Done(job)),
                }
            }
            Reply::ProcessGone => self.gone(leader, op, once),
            Reply::Conflict if once && self.setting.broken == Some(Broken::ConflictIsLost) => {
                self.end_once(leader, op, WriteOutcome::Conflict(None));
            }
            Reply::Conflict => self.read(leader, op),
            Reply::Unknown => {
                self.count("outcomes read back");
                if once && self.setting.broken == Some(Broken::UnknownIsLost) {
                    return self.end_once(leader, op, WriteOutcome::Conflict(None));
                }
                let wait = self.rng.range(75 * MS, 200 * MS);
                self.at(wait, SimEvent::Again { leader, op, turn });
            }
            Reply::Read(None) => self.gone(leader, op, once),
            Reply::Read(Some(job)) => {
                self.saw(leader, &job);
                match once {
                    true => self.judge_read(leader, op, job),
                    false => {
                        if let Some(found) = self.leaders[leader].ops.get_mut(&op) {
                            found.newest = Some(job);
                            found.live = true;
                        }
                        self.change(leader, op);
                    }
                }
            }
        }
    }

    fn gone(&mut self, leader: usize, op: u64, once: bool) {
        match once {
            true => self.end_once(leader, op, WriteOutcome::Conflict(None)),
            false => self.end_change(leader, op, End::ProcessGone),
        }
    }

    /// After a pause the truth is asked for.
    pub fn again(&mut self, leader: usize, op: u64, turn: u64) {
        let known = &self.leaders[leader];
        if known.alive && known.ops.get(&op).is_some_and(|found| found.turn == turn) {
            self.read(leader, op);
        }
    }

    fn read(&mut self, leader: usize, op: u64) {
        let name = self.leaders[leader].ops[&op].name;
        self.send(leader, op, Call::Get { name });
    }

    /// One change of exactly one version.
    fn once(&mut self, leader: usize, op: u64) {
        let known = &self.leaders[leader];
        let found = &known.ops[&op];
        let Some(job) = known.known.get(&found.name).cloned() else {
            return self.end_once(leader, op, WriteOutcome::Conflict(None));
        };
        if uid_of(&job) != found.uid || version_of(&job) != found.version {
            let outcome = verdict(found, &job);
            return self.end_once(leader, op, outcome);
        }
        let now = known.wall.at(self.now);
        let status = match &found.kind {
            Kind::Claim { choice, .. } => transition::claim(&job, choice, now),
            Kind::Release { claim_id, .. } => transition::release(&job, claim_id, now),
            _ => return,
        };
        match status {
            Ok(status) => self.replace(leader, op, &job, status),
            Err(_) => {
                self.count("claims that do not apply any more");
                let outcome = WriteOutcome::Conflict(Some(Box::new((*job).clone())));
                self.end_once(leader, op, outcome);
            }
        }
    }

    fn judge_read(&mut self, leader: usize, op: u64, job: Arc<Job>) {
        let found = &self.leaders[leader].ops[&op];
        if uid_of(&job) != found.uid || version_of(&job) != found.version {
            let outcome = verdict(found, &job);
            self.end_once(leader, op, outcome);
        } else {
            // Unchanged: the lost write may still arrive. The same write again is decided by the
            // version.
            self.once(leader, op);
        }
    }

    fn replace(&mut self, leader: usize, op: u64, job: &Job, status: JobStatus) {
        let found = &self.leaders[leader].ops[&op];
        let (name, uid) = (found.name, found.uid.clone());
        let (version, status) = (version_of(job), Box::new(status));
        self.send(
            leader,
            op,
            Call::Put {
                name,
                uid,
                version,
                status,
            },
        );
    }

    fn end_once(&mut self, leader: usize, op: u64, outcome: WriteOutcome) {
        let Some(op) = self.leaders[leader].ops.remove(&op) else {
            return;
        };
        if matches!(outcome, WriteOutcome::Conflict(_)) {
            self.count("claims lost to somebody else");
        }
        let (job, claim_id) = match op.kind {
            Kind::Claim { job, choice } => (job, choice.claim_id),
            Kind::Release { job, claim_id } => (job, claim_id),
            _ => return,
        };
        let wait = self.rng.range(0, 400);
        let outcome = Box::new(outcome);
        self.at(
            wait,
            SimEvent::Written {
                leader,
                job,
                claim_id,
                outcome,
            },
        );
    }

    /// A change from the newest version, again after every conflict.
    fn change(&mut self, leader: usize, op: u64) {
        let draw = self.rng.unit();
        let known = &self.leaders[leader];
        let Some(found) = known.ops.get(&op) else {
            return;
        };
        let Some(job) = found.newest.clone() else {
            return self.read(leader, op);
        };
        let stale = !found.live && self.setting.broken != Some(Broken::CopyIsBelieved);
        if uid_of(&job) != found.uid {
            return match stale {
                true => self.read(leader, op),
                false => self.end_change(leader, op, End::ProcessGone),
            };
        }
        let now = known.wall.at(self.now);
        let mut object = None;
        let status = match &found.kind {
            Kind::Pass => crate::pass::change(&job, now, self.holder_gone(&job), draw),
            Kind::Lose { claim_id, why } => {
                let loss = Loss {
                    message: why.message().to_owned(),
                    exit: None,
                };
                transition::lose(&job, Some(claim_id), &loss, now, draw)
            }
            Kind::Word { link, claim, word } => {
                let id = claim.to_string();
                if !self.may_speak(*link, &id, &job) {
                    Err(NotNow::Stale)
                } else {
                    match word {
                        Word::Started => transition::start(&job, &id, now),
                        Word::LossCause(message) => {
                            let loss = Loss {
                                message: message.clone(),
                                exit: None,
                            };
                            transition::lose(&job, Some(&id), &loss, now, draw)
                        }
                        Word::Row(row) => {
                            let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
                            let number = i32::try_from(row.row.number).unwrap_or(i32::MAX);
                            let outside = !fits_inline(&job, row.row.bytes);
                            let name = object_name(&job, attempt, number);
                            if outside && found.stored.as_ref() != Some(&name) {
                                object = Some(name);
                            }
                            let stored = stored_row(&row.row, outside || found.stored.is_some());
                            transition::store_row(&job, &id, &stored, now, draw)
                                .map(|(status, _)| status)
                        }
                    }
                }
            }
            _ => return,
        };
        match status {
            Ok(status) if job.status.as_ref() == Some(&status) => {
                self.end_change(leader, op, End::Done(job));
            }
            Ok(status) => {
                if let Some(object) = object {
                    let uid = found.uid.clone();
                    if self.setting.broken == Some(Broken::SucceededBeforeStored) {
                        let call = Call::Store { object, uid };
                        self.at(5 * MS, SimEvent::Arrive { from: None, call });
                    } else {
                        if let Some(found) = self.leaders[leader].ops.get_mut(&op) {
                            found.storing = Some(object.clone());
                        }
                        return self.store(leader, op, object, uid);
                    }
                }
                self.replace(leader, op, &job, status);
            }
            // What a copy says may be old news: the answer is for good.
            Err(_) if stale && matches!(found.kind, Kind::Word { .. }) => self.read(leader, op),
            Err(why) => self.end_change(leader, op, End::NotNow(why, job)),
        }
    }

    fn store(&mut self, leader: usize, op: u64, object: String, uid: String) {
        // Created until it is there; a repeat finds its own.
        self.send(leader, op, Call::Store { object, uid });
    }

    fn may_speak(&self, link: usize, claim_id: &str, job: &Job) -> bool {
        let pod = self.links[link].pod;
        let claim = job.status.as_ref().and_then(|status| status.claim.as_ref());
        claim.is_some_and(|claim| {
            claim.claim_id == claim_id && claim.holder_pod_uid == crate::pod::uid(pod)
        })
    }

    fn end_change(&mut self, leader: usize, op: u64, end: End) {
        let Some(op) = self.leaders[leader].ops.remove(&op) else {
            return;
        };
        let phase = |job: &Job| job.status.as_ref().and_then(|status| status.phase);
        match &op.kind {
            Kind::Pass => {
                if let End::Done(job) = &end {
                    self.tell_holder(leader, job);
                } else {
                    self.consider(leader, op.name);
                }
            }
            Kind::Word { link, claim, word } => {
                let (link, claim) = (*link, *claim);
                let id = claim.to_string();
                let mine = |job: &Job| self.may_speak(link, &id, job).then(|| phase(job)).flatten();
                match (word, &end) {
                    (Word::Started, _) => {}
                    (Word::Row(row), End::Done(job)) => {
                        let last = row.row.end != RowEnd::More;
                        let phase = phase(job);
                        self.say_stored(link, claim, &op.uid, row.row.number, last, phase);
                    }
                    (Word::Row(_), End::NotNow(NotNow::NotEligible(_), _)) => {
                        self.count("sessions ended for a missing row");
                        self.cut(link);
                    }
                    (Word::Row(row), End::NotNow(_, job)) => {
                        let phase = mine(job);
                        self.say_stored(link, claim, &op.uid, row.row.number, true, phase);
                    }
                    (Word::Row(row), End::ProcessGone) => {
                        self.say_stored(link, claim, &op.uid, row.row.number, true, None);
                    }
                    (Word::LossCause(_), End::Done(job)) => {
                        let phase = phase(job);
                        self.say_stored(link, claim, &op.uid, 0, true, phase);
                    }
                    (Word::LossCause(_), End::NotNow(_, job)) => {
                        let phase = mine(job);
                        self.say_stored(link, claim, &op.uid, 0, true, phase);
                    }
                    (Word::LossCause(_), End::ProcessGone) => {
                        self.say_stored(link, claim, &op.uid, 0, true, None);
                    }
                }
                self.next_word(leader, link, claim, op.name, op.uid);
            }
            _ => {}
        }
    }

    fn next_word(&mut self, leader: usize, link: usize, claim: ClaimId, name: u32, uid: String) {
        let words = &mut self.leaders[leader].words;
        let Some(queue) = words.get_mut(&(link, claim)) else {
            return;
        };
        queue.pop_front();
        match queue.front().cloned() {
            Some(word) => self.begin_change(leader, name, uid, Kind::Word { link, claim, word }),
            None => {
                words.remove(&(link, claim));
            }
        }
    }

    /// A pass has ended a job that a pod has: it is told.
    fn tell_holder(&mut self, leader: usize, job: &Job) {
        let Some(status) = &job.status else { return };
        let over = status.phase.is_some_and(Phase::is_terminal);
        if let Some(claim) = status.claim.as_ref().filter(|_| over) {
            let pod = crate::pod::pod_of(&claim.holder_pod_uid);
            if let Some(link) = self.leaders[leader].links.get(&pod).copied() {
                let (claim_id, uid) = (claim.claim_id.clone(), uid_of(job).to_owned());
                self.say_cancel(link, &claim_id, &uid);
            }
        }
    }

    fn say_stored(
        &mut self,
        link: usize,
        claim: ClaimId,
        uid: &str,
        row: u32,
        settled: bool,
        phase: Option<Phase>,
    ) {
        let stored = wire::RowStored {
            claim: Some(wire::ClaimName {
                claim_id: claim.to_string(),
                job_uid: uid.to_owned(),
            }),
            row,
            settled,
            phase: phase.map(Phase::as_str).unwrap_or_default().to_owned(),
        };
        self.say_down(link, Down::RowStored(stored));
    }
}

pub fn has_ended(job: &Job) -> bool {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    phase.is_some_and(Phase::is_terminal)
}

/// What a Job that has another version than the write's says about its outcome.
fn verdict(op: &Op, job: &Job) -> WriteOutcome {
    let done = match &op.kind {
        Kind::Claim { choice, .. } => is_claimed_with(job, &choice.claim_id),
        Kind::Release { claim_id, .. } => !is_claimed_with(job, claim_id),
        _ => false,
    };
    if uid_of(job) != op.uid {
        WriteOutcome::Conflict(None)
    } else if done {
        WriteOutcome::Applied(Box::new(job.clone()))
    } else {
        WriteOutcome::Conflict(Some(Box::new(job.clone())))
    }
}

fn stored_row(row: &patchbay_sidecar::jobs::claims::entry::Row, outside: bool) -> StoredRow {
    let content = vec![b'x'; row.bytes as usize];
    StoredRow {
        row: row.number,
        bytes: row.bytes,
        text: row.text,
        inline: (!outside).then_some(content),
        chunks: u32::from(outside),
        sha256_of_all: [row.number as u8; 32],
        total_bytes: row.bytes,
        preview: String::new(),
        outcome: match &row.end {
            RowEnd::More => RowOutcome::More,
            RowEnd::Succeeded => RowOutcome::Succeeded,
            RowEnd::Failed { reason, message } => RowOutcome::Failed {
                reason: Reason::parse(reason).unwrap_or(Reason::PluginError),
                message: message.clone(),
            },
        },
        truncated: false,
    }
}
