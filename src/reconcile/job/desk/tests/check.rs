//! What holds inside a desk after every event.

use crate::job::desk::Desk;
use crate::job::desk::entry::{NEVER, State};

impl Desk {
    pub(super) fn check(&self) {
        for lane in self.lanes.iter() {
            lane.check(&self.jobs);
        }
        let mut flying = self.ghosts.len();
        let (mut future, mut parked, mut held, mut ready) = (0, 0, 0, 0);
        for id in self.jobs.entries.ids() {
            let entry = &self.jobs.entries[id];
            match &entry.state {
                State::Closed => {}
                State::Future => {
                    assert!(self.jobs.timers.contains(&(entry.eligible, id)));
                    future += 1;
                }
                State::Parked => {
                    assert!(self.jobs.parked.contains(&(entry.expire, id)));
                    parked += 1;
                }
                State::Cooling { until } => {
                    assert!(self.jobs.cooling.contains(&(*until, id)));
                }
                State::Ready { .. } => {
                    assert!(entry.judged);
                    ready += 1;
                }
                State::Unjudged { until, .. } => {
                    assert!(!entry.judged);
                    if entry.stands_in_the_way() {
                        assert!(self.jobs.cooling.contains(&(*until, id)));
                        if entry.expire != NEVER {
                            assert!(self.jobs.timers.contains(&(entry.expire, id)));
                            future += 1;
                        }
                    }
                }
                State::Flying(_) => flying += 1,
                State::Held(holding) => {
                    assert!(self.holders[&holding.pod_uid].contains(&id));
                    held += 1;
                }
            }
        }
        assert_eq!(future, self.jobs.timers.len());
        assert_eq!(parked, self.jobs.parked.len());
        assert_eq!(flying, self.flying);
        assert_eq!(ready, self.waiting());
        assert_eq!(
            held,
            self.holders.values().map(|jobs| jobs.len()).sum::<usize>()
        );
        let running: u32 = self.lanes.iter().map(|lane| lane.running).sum();
        assert_eq!(running as usize, held + flying);
        let waiting = self.asks.values().filter(|ask| ask.spot.is_some());
        let holds = waiting.filter(|ask| ask.until.is_some()).count();
        assert_eq!(holds, self.holds.len());
        let asks: usize = self.sessions.values().map(|s| s.asks.len()).sum();
        assert_eq!(asks, self.asks.len());
    }

    /// Nothing is left behind when there is nothing any more.
    pub(super) fn is_empty(&self) {
        assert_eq!(self.known(), 0);
        assert_eq!(self.asks(), 0);
        assert_eq!(self.in_flight(), 0);
        assert!(self.holders.is_empty() && self.pods.is_empty() && self.sessions.is_empty());
        assert!(self.jobs.timers.is_empty() && self.jobs.parked.is_empty());
        assert!(self.holds.is_empty() && self.ghosts.is_empty());
        for lane in self.lanes.iter() {
            assert_eq!(lane.running, 0);
            assert_eq!(lane.spots.len(), 1, "{lane:?}");
            assert!(lane.dirty.is_empty());
        }
    }
}
