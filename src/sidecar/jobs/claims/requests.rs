//! From a request of the plugin, or a free place for a call, to a job.

use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{self, Grant};

use super::ClaimMachine;
use super::entry::{Digest, Entry, Kind, State, names_a_job};
use super::event::{ClaimId, Effect, Filter, Now, RequestId};

/// Why a job is lost that a plugin came for once more.
const TOO_LATE: &str =
    "its expireTime passed before the plugin, whose connection had broken, could take it";

/// How long a work request waits at the operator while the plugin keeps getting nothing, in milliseconds:
/// plugins may ask in a loop without sleep.
pub(super) const WAITS_MS: [u64; 3] = [200, 400, 750];
/// How late the answer of the operator may be; later the plugin is told that there is no job. With the longest hold it makes
/// the second after which a plugin gets its "no job" in any case.
pub(super) const SLACK_MS: u64 = 250;
/// A work request whose plugin was answered in the meantime is kept for the next request of its kind. So
/// a slow operator is not asked in vain again and again.
const ORPHAN_MS: u64 = 5_000;
/// A job that came for such a work request is returned after this.
const KEEP_MS: u64 = 2_000;
/// Pause after an answer that should have taken longer.
pub(super) const REST_MS: u64 = 1_000;
/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) filter: Filter,
    /// When it is told that there is no job.
    pub(super) answer_at_ms: u64,
    /// What was asked for it in this session.
    pub(super) work_request: Option<ClaimId>,
    /// The operator has nothing; only the pause is waited for.
    pub(super) rests: bool,
}

/// What was asked of the operator.
#[derive(Debug)]
pub(super) struct OpenWorkRequest {
    pub(super) purpose: Purpose,
    pub(super) sent_ms: u64,
    pub(super) wait_ms: u64,
}

/// For what.
#[derive(Debug)]
pub(super) enum Purpose {
    Request { filter: Filter, waiter: Recipient },
    Call,
}

/// Which request of the plugin gets the job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recipient {
    Request(RequestId),
    /// That request has gone; another one of its kind may take the job until this moment.
    NoneUntil(u64),
}

impl OpenWorkRequest {
    pub(super) fn wake_at(&self) -> Option<u64> {
        match self.purpose {
            Purpose::Request {
                waiter: Recipient::Request(_),
                ..
            } => None,
            Purpose::Request {
                waiter: Recipient::NoneUntil(until),
                ..
            } => Some(until),
            Purpose::Call => None,
        }
    }

    fn is_orphaned(&self, of: &Filter) -> bool {
        matches!(&self.purpose, Purpose::Request { filter, waiter: Recipient::NoneUntil(_) } if filter == of)
    }
}

impl ClaimMachine {
    pub(super) fn request(
        &mut self,
        now: &mut Now<'_>,
        request: RequestId,
        filter: Filter,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(claim) = self.claim_of(request) {
            return self.deliver_again(now, claim, request, effects);
        }
        let limit = now.mono_ms + self.wait_ms + SLACK_MS;
        let known = self.waiters.remove(&request);
        let mut work_request = known.and_then(|waiter| {
            let same = waiter.filter == filter;
            if !same {
                self.orphan(now, waiter.work_request);
            }
            waiter.work_request.filter(|_| same)
        });
        if let Some(granted) = self.waiting_for(&filter, now.mono_ms) {
            self.orphan(now, work_request);
            return self.deliver_waiting(granted, request, effects);
        }
        if work_request.is_none() {
            work_request = self.work_requests.iter().find_map(|(claim, work_request)| {
                work_request.is_orphaned(&filter).then_some(*claim)
            });
        }
        if let Some(OpenWorkRequest {
            purpose: Purpose::Request { waiter, .. },
            ..
        }) = work_request.and_then(|claim| self.work_requests.get_mut(&claim))
        {
            *waiter = Recipient::Request(request);
        }
        let waiter = Waiter {
            filter,
            answer_at_ms: limit,
            work_request,
            rests: false,
        };
        self.waiters.insert(request, waiter);
    }

    /// The claim that this request was answered with.
    fn claim_of(&self, request: RequestId) -> Option<ClaimId> {
        let mut entries = self.entries.values();
        entries
            .find(|entry| {
                entry.request() == Some(request)
                    && matches!(entry.state, State::Delivered { .. })
                    && entry.spec.is_some()
            })
            .map(|entry| entry.claim)
    }

    /// The plugin did not get the answer. It may have it as long as it could have had it first.
    fn deliver_again(
        &mut self,
        now: &Now<'_>,
        claim: ClaimId,
        request: RequestId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.entries.get(&claim) else {
            return;
        };
        if entry.deadline_ms.is_none_or(|at| now.mono_ms < at) {
            let entry = entry.clone();
            self.deliver(request, entry, effects);
        } else {
            self.lose(
                claim,
                super::entry::ProcessEnd::Unseen,
                TOO_LATE.to_owned(),
                effects,
            );
            effects.push(Effect::AnswerNoWork(request));
        }
    }

    /// A job that came for a request of this kind and found nobody.
    fn waiting_for(&self, filter: &Filter, now_ms: u64) -> Option<ClaimId> {
        let mut entries = self.entries.values();
        let found = entries.find(|entry| {
            matches!(entry.state, State::Granted { .. })
                && self.kept.get(&entry.claim) == Some(filter)
                && entry.deadline_ms.is_none_or(|at| now_ms < at)
        });
        found.map(|entry| entry.claim)
    }

    fn deliver_waiting(&mut self, claim: ClaimId, request: RequestId, effects: &mut Vec<Effect>) {
        let Some(start_id) = self.current else { return };
        self.kept.remove(&claim);
        let state = State::Delivered {
            start_id: start_id.0,
            gone: None,
        };
        let entry = self.change(claim, effects, |entry| {
            entry.state = state;
            entry.kind = Kind::Command { request };
        });
        if let Some(entry) = entry.cloned() {
            self.wait_ms = WAITS_MS[0];
            // It was kept for somebody, never handed to anybody.
            self.deliveries.insert(claim, 0);
            self.deliver(request, entry, effects);
        }
    }

    fn deliver(&mut self, request: RequestId, entry: Entry, effects: &mut Vec<Effect>) {
        // What an earlier process of the sidecar did is not known.
        let count = self.deliveries.entry(entry.claim).or_insert(1);
        *count += 1;
        effects.push(Effect::Deliver {
            request,
            before_ms: entry.deadline_ms,
            count: *count,
            entry: Box::new(entry),
        });
    }

    /// Nobody waits for this work request any more.
    pub(super) fn orphan(&mut self, now: &Now<'_>, work_request: Option<ClaimId>) {
        if let Some(OpenWorkRequest {
            purpose: Purpose::Request { waiter, .. },
            ..
        }) = work_request.and_then(|claim| self.work_requests.get_mut(&claim))
        {
            *waiter = Recipient::NoneUntil(now.mono_ms + ORPHAN_MS);
        }
    }

    pub(super) fn request_gone(&mut self, now: &mut Now<'_>, request: RequestId) {
        if let Some(waiter) = self.waiters.remove(&request) {
            self.orphan(now, waiter.work_request);
        }
    }

    pub(super) fn no_work(&mut self, now: &mut Now<'_>, claim: ClaimId, effects: &mut Vec<Effect>) {
        let Some(work_request) = self.work_requests.remove(&claim) else {
            return;
        };
        let held = now.mono_ms >= work_request.sent_ms + work_request.wait_ms;
        match work_request.purpose {
            Purpose::Request {
                waiter: Recipient::Request(request),
                ..
            } => {
                let Some(waiter) = self.waiters.get_mut(&request) else {
                    return;
                };
                waiter.work_request = None;
                let due = waiter.answer_at_ms.saturating_sub(SLACK_MS);
                if now.mono_ms >= due {
                    self.answer_no_work(request, effects);
                } else if !held {
                    // Sooner than asked: the operator has enough to do.
                    waiter.rests = true;
                    waiter.answer_at_ms = due;
                }
                // Else the work request was older than the request: it is asked again for the rest.
            }
            Purpose::Request { .. } => {}
            // A standing work request has no end of its own.
            Purpose::Call => self.calls_requested_from = now.mono_ms + REST_MS,
        }
    }

    pub(super) fn answer_no_work(&mut self, request: RequestId, effects: &mut Vec<Effect>) {
        self.waiters.remove(&request);
        let longer = WAITS_MS.iter().find(|hold| **hold > self.wait_ms);
        self.wait_ms = *longer.unwrap_or(&WAITS_MS[WAITS_MS.len() - 1]);
        effects.push(Effect::AnswerNoWork(request));
    }

    pub(super) fn granted(&mut self, now: &mut Now<'_>, grant: Grant, effects: &mut Vec<Effect>) {
        let Some(name) = grant.claim.clone() else {
            return;
        };
        let Some(claim) = ClaimId::parse(&name.claim_id) else {
            return;
        };
        if self.entries.contains_key(&claim) || self.past.iter().any(|past| past.claim == claim) {
            // Told twice. To give it back now would be a lie.
            return;
        }
        let work_request = self.work_requests.remove(&claim);
        let deadline_ms = match (&work_request, grant.remaining_ms) {
            (Some(work_request), remaining) if remaining > 0 => Some(
                work_request
                    .sent_ms
                    .saturating_add(grant.waited_ms)
                    .saturating_add(remaining),
            ),
            _ => None,
        };
        let spec = std::str::from_utf8(&grant.spec_json).ok();
        let refused = match (&work_request, self.current, spec) {
            (None, _, _) => Some("the ask is over"),
            (_, None, _) => Some("the plugin process is gone"),
            _ if self.shutting_down => Some("the sidecar ends"),
            _ if self.stopping => Some("the plugin process is being stopped"),
            _ if !names_a_job(&name.job_uid, &grant.job) => Some("the grant names no Job"),
            (_, _, None) => Some("the Job's spec is not text"),
            _ if deadline_ms.is_some_and(|at| now.mono_ms >= at) => Some("it came too late"),
            _ => None,
        };
        if let Some(why) = refused {
            return self.refuse(now, work_request, name, grant.job, why, effects);
        }
        let (Some(work_request), Some(start_id), Some(spec)) = (work_request, self.current, spec)
        else {
            return;
        };
        let delivered = State::Delivered {
            start_id: start_id.0,
            gone: None,
        };
        let (kind, state) = match &work_request.purpose {
            Purpose::Call => (Kind::Call, delivered),
            Purpose::Request { waiter, .. } => match waiter {
                Recipient::Request(request) => (Kind::Command { request: *request }, delivered),
                Recipient::NoneUntil(_) => (
                    Kind::Command {
                        request: RequestId(0),
                    },
                    State::Granted {
                        keep_until_ms: now.mono_ms + KEEP_MS,
                    },
                ),
            },
        };
        let entry = Entry {
            claim,
            job_uid: name.job_uid,
            job: grant.job,
            attempt: grant.attempt,
            state,
            kind,
            deadline_ms,
            spec: Some(spec.into()),
            start_time: grant.start_time,
            active_deadline_ms: grant.active_deadline_ms,
            output_max_bytes: grant.output_max_bytes,
            started: false,
            next_row: 1,
            kept_bytes: 0,
            digest: Digest::default(),
            pending: Vec::new(),
            known_rows: Default::default(),
        };
        self.undo.push((claim, None));
        self.entries.insert(claim, entry.clone());
        effects.push(Effect::WriteEntry(Box::new(entry.clone())));
        self.deliveries.insert(claim, 0);
        match work_request.purpose {
            Purpose::Call => {
                self.deliveries.insert(claim, 1);
                let (before_ms, entry) = (deadline_ms, Box::new(entry));
                effects.push(Effect::Call { before_ms, entry });
            }
            Purpose::Request {
                waiter: Recipient::Request(request),
                ..
            } => {
                self.waiters.remove(&request);
                self.wait_ms = WAITS_MS[0];
                self.deliver(request, entry, effects);
            }
            Purpose::Request { filter, .. } => {
                self.kept.insert(claim, filter);
            }
        }
    }

    /// Gives a grant back that nobody can take.
    fn refuse(
        &mut self,
        now: &Now<'_>,
        work_request: Option<OpenWorkRequest>,
        claim: session::ClaimName,
        job: String,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        match work_request.map(|work_request| work_request.purpose) {
            Some(Purpose::Request {
                waiter: Recipient::Request(request),
                ..
            }) => {
                if let Some(waiter) = self.waiters.get_mut(&request) {
                    (waiter.work_request, waiter.rests) = (None, true);
                }
            }
            Some(Purpose::Call) => self.calls_requested_from = now.mono_ms + REST_MS,
            Some(Purpose::Request { .. }) | None => {}
        }
        let claim_returned = session::ClaimReturned {
            claim: Some(claim),
            job,
            why: why.to_owned(),
        };
        self.say(Up::ClaimReturned(claim_returned), effects);
    }

    /// The plugin was to get it and did not. Only a claim that was handed to nobody else can be
    /// returned.
    pub(super) fn not_delivered(
        &mut self,
        now: &mut Now<'_>,
        claim: ClaimId,
        count: u32,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.entries.get(&claim) else {
            return;
        };
        let unseen = matches!(entry.state, State::Delivered { .. })
            && entry.next_row == 1
            && !entry.started
            && count == 1
            && self.deliveries.get(&claim) == Some(&1);
        // Told that there is nothing, the plugin does not come again for a job that went out before.
        let late = matches!(entry.state, State::Delivered { .. })
            && entry.spec.is_some()
            && self.deliveries.get(&claim) == Some(&count)
            && entry.deadline_ms.is_some_and(|at| now.mono_ms >= at);
        if unseen {
            self.release(claim, "the plugin did not wait for it any more", effects);
            self.calls_requested_from = now.mono_ms + REST_MS;
        } else if late {
            self.lose(
                claim,
                super::entry::ProcessEnd::Unseen,
                TOO_LATE.to_owned(),
                effects,
            );
        }
    }
}
