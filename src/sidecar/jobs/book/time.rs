//! What time brings about, and asking for whatever is wanted now.

use patchbay_protocol::session;
use patchbay_protocol::session::from_sidecar::Message as Up;

use super::Book;
use super::asks::{Ask, Purpose, SLACK_MS};
use super::entry::{Ended, State};
use super::words::{ClaimId, Filter, Now, RequestId, Todo};

/// An ask for a call stands at the operator until it is withdrawn.
const STANDING: u64 = 0;
/// Claims that are not settled, at most: a greeting names them all.
const CLAIMS: usize = 2048;

impl Book {
    /// What time brings about: answers, asks that are over, jobs that nobody fetched.
    pub(super) fn settle_time(&mut self, now: &mut Now<'_>, todo: &mut Vec<Todo>) {
        let due: Vec<RequestId> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| now.mono_ms >= waiter.answer_at_ms || self.is_closed())
            .map(|(request, _)| *request)
            .collect();
        for request in due {
            let ask = self.waiters.get(&request).and_then(|waiter| waiter.ask);
            self.disown(now, ask);
            self.answer_nothing(request, todo);
        }
        let takes_calls = self.takes_calls();
        let over: Vec<ClaimId> = self
            .asks
            .iter()
            .filter(|(_, ask)| {
                self.is_closed()
                    || self.current.is_none()
                    || ask.wake_at().is_some_and(|at| now.mono_ms >= at)
                    || (matches!(ask.purpose, Purpose::Call) && !takes_calls)
            })
            .map(|(claim, _)| *claim)
            .collect();
        for claim in over {
            self.withdraw(claim, todo);
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
            self.release(claim, "the plugin did not ask again", todo);
        }
        let lost: Vec<(ClaimId, Ended)> = self
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
            self.lose(claim, ended, message, todo);
        }
    }

    /// The ask is over; a grant that is on its way will be given back.
    pub(super) fn withdraw(&mut self, claim: ClaimId, todo: &mut Vec<Todo>) {
        if self.asks.remove(&claim).is_some() {
            let withdraw = session::Withdraw {
                claim_id: claim.to_string(),
            };
            self.say(Up::Withdraw(withdraw), todo);
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() + self.asks.len() >= CLAIMS
    }

    fn takes_calls(&self) -> bool {
        self.callable && self.current.is_some() && !self.is_closed()
    }

    /// Whether a further ask for a call is due.
    pub(super) fn wants_call(&self) -> bool {
        if !self.takes_calls() || self.session.is_none() || self.is_full() {
            return false;
        }
        let asks = self.asks.values();
        let standing = asks
            .filter(|ask| matches!(ask.purpose, Purpose::Call))
            .count();
        standing + self.calls() < self.per_pod as usize
    }

    /// Asks for every request that waits and every free place.
    pub(super) fn keep_asking(&mut self, now: &mut Now<'_>, todo: &mut Vec<Todo>) {
        if self.session.is_none() || self.current.is_none() || self.is_closed() {
            return;
        }
        let waiting: Vec<(RequestId, Filter, u64)> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.ask.is_none() && !waiter.rests)
            .map(|(request, waiter)| (*request, waiter.filter.clone(), waiter.answer_at_ms))
            .collect();
        for (request, filter, answer_at) in waiting {
            if self.is_full() {
                break;
            }
            let rest = answer_at.saturating_sub(now.mono_ms + SLACK_MS).max(1);
            let purpose = Purpose::Request {
                filter: filter.clone(),
                waiter: Ok(request),
            };
            let claim = self.ask(now, purpose, filter, rest, todo);
            if let Some(waiter) = self.waiters.get_mut(&request) {
                waiter.ask = Some(claim);
            }
        }
        while self.wants_call() && now.mono_ms >= self.call_asks_from {
            self.ask(now, Purpose::Call, Filter::default(), STANDING, todo);
        }
    }

    fn ask(
        &mut self,
        now: &mut Now<'_>,
        purpose: Purpose,
        filter: Filter,
        hold_ms: u64,
        todo: &mut Vec<Todo>,
    ) -> ClaimId {
        let claim = (now.fresh)();
        let ask = Ask {
            purpose,
            sent_ms: now.mono_ms,
            hold_ms,
        };
        self.asks.insert(claim, ask);
        let ask = session::Ask {
            claim_id: claim.to_string(),
            location: filter.location,
            port: filter.port,
            hold_ms: u32::try_from(hold_ms).unwrap_or(u32::MAX),
        };
        self.say(Up::Ask(ask), todo);
        claim
    }
}
