//! Jobs whose time has come and that were not judged yet: they keep their place in the order and
//! cannot be had. Otherwise the first one that is judged would be handed out first, and which one
//! that is only says in which order somebody looked at them.

use super::Desk;
use super::entry::{NEVER, NOT_YET, State};

/// So long a Job that is not judged holds up asks, in milliseconds. Its plugin is there, or it would
/// not ask, so the verdict is one pass and one write away: milliseconds, and some seconds on a
/// loaded API server or behind many other passes. One that stays without a verdict for longer may
/// stay so for ever, and the order is not worth that nothing is handed out. There may be many such:
/// when one is passed over, so are all that have stood there for as long, each when it is its turn.
const JUDGED_WITHIN: u64 = 5_000;

impl Desk {
    /// Notes which Jobs stand in the way of which spots. `true` when the time of one has gone by:
    /// it has left its place.
    pub(super) fn hold_up(&mut self, lane: u32, held_up: &[(u32, u32)]) -> bool {
        let mut moved = false;
        for (job, spot) in held_up {
            let entry = &mut self.jobs.entries[*job];
            let State::Unjudged { since, until, .. } = &mut entry.state else {
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
            if Some(*since) <= self.lanes[lane].passed_over {
                self.unplace(*job);
                moved = true;
                continue;
            }
            if *until == NOT_YET {
                *until = self.mono + JUDGED_WITHIN;
                self.jobs.cooling.insert((*until, *job));
                if entry.expire != NEVER {
                    self.jobs.timers.insert((entry.expire, *job));
                }
            }
            self.lanes[lane].hold_up(*job, *spot);
        }
        moved
    }

    /// No ask waits for this Job to be judged any longer, until there is news of it, and for none
    /// that has stood there as long as an ask waits.
    pub(super) fn pass_over(&mut self, id: u32) {
        let lane = self.jobs.entries[id].lane;
        self.lanes[lane].passed_over = self.mono.checked_sub(JUDGED_WITHIN);
        self.unplace(id);
    }

    /// A Job that is not judged leaves its place: what it held up goes on.
    pub(super) fn clear_way(&mut self, id: u32, until: u64) {
        if until == NOT_YET {
            return;
        }
        let entry = &self.jobs.entries[id];
        let lane = entry.lane;
        self.jobs.timers.remove(&(entry.expire, id));
        self.jobs.cooling.remove(&(until, id));
        self.lanes[lane].go_on(id);
        self.list(lane);
    }

    /// Lets those out of the way whose time has not come any more.
    pub(super) fn clock_set_back(&mut self) {
        let early: Vec<u32> = self
            .jobs
            .cooling
            .iter()
            .map(|(_, id)| *id)
            .filter(|id| {
                self.jobs.entries.get(*id).is_some_and(|entry| {
                    matches!(entry.state, State::Unjudged { .. }) && self.now < entry.eligible
                })
            })
            .collect();
        for id in early {
            self.unplace(id);
            self.place(id);
        }
    }
}
