//! Jobs whose time has come and that were not accepted yet: they keep their place in the order and
//! cannot be had. Otherwise the first one that is accepted would be dispatched first, and which one
//! that is only says in which order somebody looked at them.

use super::Dispatcher;
use super::entry::{JobState, NEVER, NO_DEADLINE};

/// So long a Job that is not accepted blocks requests, in milliseconds. Its plugin is there, or it would
/// not request, so the verdict is one pass and one write away: milliseconds, and some seconds on a
/// loaded API server or behind many other passes. One that stays without a verdict for longer may
/// stay so for ever, and the order is not worth that nothing is dispatched. There may be many such:
/// when one is passed over, so are all that have stood there for as long, each when it is its turn.
const ACCEPTANCE_TIMEOUT_MS: u64 = 5_000;

impl Dispatcher {
    /// Notes which Jobs stand in the way of which buckets. `true` when the time of one has gone by:
    /// it has left its place.
    pub(super) fn block(&mut self, queue: u32, blocked: &[(u32, u32)]) -> bool {
        let mut moved = false;
        for (job, bucket) in blocked {
            let entry = &mut self.jobs.entries[*job];
            let JobState::PendingAcceptance { since, until, .. } = &mut entry.state else {
                // It was in the way of several, and has left.
                continue;
            };
            let expired = entry.expire != NEVER && self.now >= entry.expire;
            if expired || self.now < entry.eligible {
                self.unplace(*job);
                self.place(*job);
                moved = true;
                continue;
            }
            if Some(*since) <= self.queues[queue].skip_received_until {
                self.unplace(*job);
                moved = true;
                continue;
            }
            if *until == NO_DEADLINE {
                *until = self.mono + ACCEPTANCE_TIMEOUT_MS;
                self.jobs.retries.insert((*until, *job));
                if entry.expire != NEVER {
                    self.jobs.timers.insert((entry.expire, *job));
                }
            }
            self.queues[queue].block(*job, *bucket);
        }
        moved
    }

    /// No request waits for this Job to be accepted any longer, until there is news of it, and for none
    /// that has stood there as long as a request waits.
    pub(super) fn skip_pending(&mut self, id: u32) {
        let queue = self.jobs.entries[id].queue;
        self.queues[queue].skip_received_until = self.mono.checked_sub(ACCEPTANCE_TIMEOUT_MS);
        self.unplace(id);
    }

    /// A Job that is not accepted leaves its place: what it blocked goes on.
    pub(super) fn unblock_requests(&mut self, id: u32, until: u64) {
        if until == NO_DEADLINE {
            return;
        }
        let entry = &self.jobs.entries[id];
        let queue = entry.queue;
        self.jobs.timers.remove(&(entry.expire, id));
        self.jobs.retries.remove(&(until, id));
        self.queues[queue].unblock(id);
        self.schedule_matching(queue);
    }

    /// Lets those out of the way whose time has not come any more.
    pub(super) fn clock_set_back(&mut self) {
        let early: Vec<u32> = self
            .jobs
            .retries
            .iter()
            .map(|(_, id)| *id)
            .filter(|id| {
                self.jobs.entries.get(*id).is_some_and(|entry| {
                    matches!(entry.state, JobState::PendingAcceptance { .. })
                        && self.now < entry.eligible
                })
            })
            .collect();
        for id in early {
            self.unplace(id);
            self.place(id);
        }
    }
}
