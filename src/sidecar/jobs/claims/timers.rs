//! What time brings about, and asking for whatever is wanted now.

use patchbay_protocol::session;
use patchbay_protocol::session::from_sidecar::Message as Up;

use super::ClaimMachine;
use super::entry::{ProcessEnd, State};
use super::event::{ClaimId, Effect, Filter, Now, RequestId};
use super::requests::{OpenWorkRequest, Purpose, Recipient, SLACK_MS};

/// A work request for a call stands at the operator until it is cancelled.
const STANDING: u64 = 0;
/// Claims that are not settled, at most: a greeting names them all.
const CLAIMS: usize = 2048;

impl ClaimMachine {
    /// What time brings about: answers, work requests that are over, jobs that nobody fetched.
    pub(super) fn run_timers(&mut self, now: &mut Now<'_>, effects: &mut Vec<Effect>) {
        let due: Vec<RequestId> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| now.mono_ms >= waiter.answer_at_ms || self.is_closed())
            .map(|(request, _)| *request)
            .collect();
        for request in due {
            let work_request = self
                .waiters
                .get(&request)
                .and_then(|waiter| waiter.work_request);
            self.orphan(now, work_request);
            self.answer_no_work(request, effects);
        }
        let takes_calls = self.takes_calls();
        let over: Vec<ClaimId> = self
            .work_requests
            .iter()
            .filter(|(_, work_request)| {
                self.is_closed()
                    || self.current.is_none()
                    || work_request.wake_at().is_some_and(|at| now.mono_ms >= at)
                    || (matches!(work_request.purpose, Purpose::Call) && !takes_calls)
            })
            .map(|(claim, _)| *claim)
            .collect();
        for claim in over {
            self.cancel_request(claim, effects);
        }
        let fallow: Vec<ClaimId> = self
            .entries
            .values()
            .filter(|entry| match entry.state {
                State::Granted { keep_until_ms } => {
                    self.is_closed()
                        || self.current.is_none()
                        || now.mono_ms >= keep_until_ms
                        || entry.deadline_ms.is_some_and(|at| now.mono_ms >= at)
                }
                _ => false,
            })
            .map(|entry| entry.claim)
            .collect();
        for claim in fallow {
            self.release(claim, "the plugin did not ask again", effects);
        }
        let lost: Vec<(ClaimId, ProcessEnd)> = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                State::Delivered {
                    gone: Some(gone), ..
                } if now.mono_ms >= gone.lost_at_ms => Some((entry.claim, gone.ended)),
                _ => None,
            })
            .collect();
        for (claim, ended) in lost {
            let message = format!(
                "the plugin process {ended} while it had the job, and none came back to answer within {} s",
                self.recover_ms / 1000
            );
            self.lose(claim, ended, message, effects);
        }
    }

    /// The work request is over; a grant that is on its way will be returned.
    pub(super) fn cancel_request(&mut self, claim: ClaimId, effects: &mut Vec<Effect>) {
        if self.work_requests.remove(&claim).is_some() {
            let cancel_request = session::CancelRequest {
                claim_id: claim.to_string(),
            };
            self.say(Up::CancelRequest(cancel_request), effects);
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() + self.work_requests.len() >= CLAIMS
    }

    fn takes_calls(&self) -> bool {
        self.callable && self.current.is_some() && !self.is_closed()
    }

    /// Whether a further work request for a call is due.
    pub(super) fn wants_call(&self) -> bool {
        if !self.takes_calls() || self.session.is_none() || self.is_full() {
            return false;
        }
        let work_requests = self.work_requests.values();
        let standing = work_requests
            .filter(|work_request| matches!(work_request.purpose, Purpose::Call))
            .count();
        standing + self.calls() < self.per_pod as usize
    }

    /// Asks for every request that waits and every free place.
    pub(super) fn send_work_requests(&mut self, now: &mut Now<'_>, effects: &mut Vec<Effect>) {
        if self.session.is_none() || self.current.is_none() || self.is_closed() {
            return;
        }
        let waiting: Vec<(RequestId, Filter, u64)> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.work_request.is_none() && !waiter.rests)
            .map(|(request, waiter)| (*request, waiter.filter.clone(), waiter.answer_at_ms))
            .collect();
        for (request, filter, answer_at) in waiting {
            if self.is_full() {
                break;
            }
            let rest = answer_at.saturating_sub(now.mono_ms + SLACK_MS).max(1);
            let purpose = Purpose::Request {
                filter: filter.clone(),
                waiter: Recipient::Request(request),
            };
            let claim = self.work_request(now, purpose, filter, rest, effects);
            if let Some(waiter) = self.waiters.get_mut(&request) {
                waiter.work_request = Some(claim);
            }
        }
        while self.wants_call() && now.mono_ms >= self.calls_requested_from {
            self.work_request(now, Purpose::Call, Filter::default(), STANDING, effects);
        }
    }

    fn work_request(
        &mut self,
        now: &mut Now<'_>,
        purpose: Purpose,
        filter: Filter,
        wait_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> ClaimId {
        let claim = (now.fresh)();
        let work_request = OpenWorkRequest {
            purpose,
            sent_ms: now.mono_ms,
            wait_ms,
        };
        self.work_requests.insert(claim, work_request);
        let work_request = session::WorkRequest {
            claim_id: claim.to_string(),
            client: filter.client,
            port: filter.port,
            wait_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX),
        };
        self.say(Up::WorkRequest(work_request), effects);
        claim
    }
}
