//! What holds inside a dispatcher after every event.

use crate::job::dispatch::Dispatcher;
use crate::job::dispatch::entry::{JobState, NEVER};

impl Dispatcher {
    pub(super) fn check(&self) {
        for queue in self.queues.iter() {
            queue.check(&self.jobs);
        }
        let mut claiming = self.orphaned_claims.len();
        let (mut future, mut expired, mut claimed, mut ready) = (0, 0, 0, 0);
        for id in self.jobs.entries.ids() {
            let entry = &self.jobs.entries[id];
            match &entry.state {
                JobState::Ineligible => {}
                JobState::Scheduled => {
                    assert!(self.jobs.timers.contains(&(entry.eligible, id)));
                    future += 1;
                }
                JobState::Expired => {
                    assert!(self.jobs.expired.contains(&(entry.expire, id)));
                    expired += 1;
                }
                JobState::RetryAt { until } => {
                    assert!(self.jobs.retries.contains(&(*until, id)));
                }
                JobState::Ready { .. } => {
                    assert!(entry.accepted);
                    ready += 1;
                }
                JobState::PendingAcceptance { until, .. } => {
                    assert!(!entry.accepted);
                    if entry.blocks_requests() {
                        assert!(self.jobs.retries.contains(&(*until, id)));
                        if entry.expire != NEVER {
                            assert!(self.jobs.timers.contains(&(entry.expire, id)));
                            future += 1;
                        }
                    }
                }
                JobState::Claiming(_) => claiming += 1,
                JobState::Claimed(active) => {
                    assert!(self.holders[&active.pod_uid].contains(&id));
                    claimed += 1;
                }
            }
        }
        assert_eq!(future, self.jobs.timers.len());
        assert_eq!(expired, self.jobs.expired.len());
        assert_eq!(claiming, self.claiming);
        assert_eq!(ready, self.waiting());
        assert_eq!(
            claimed,
            self.holders.values().map(|jobs| jobs.len()).sum::<usize>()
        );
        let running: u32 = self.queues.iter().map(|queue| queue.running).sum();
        assert_eq!(running as usize, claimed + claiming);
        let waiting = self
            .requests
            .values()
            .filter(|request| request.bucket.is_some());
        let request_deadlines = waiting.filter(|request| request.until.is_some()).count();
        assert_eq!(request_deadlines, self.request_deadlines.len());
        let requests: usize = self.sessions.values().map(|s| s.requests.len()).sum();
        assert_eq!(requests, self.requests.len());
    }

    /// Nothing is left behind when there is nothing any more.
    pub(super) fn is_empty(&self) {
        assert_eq!(self.jobs.entries.len(), 0);
        assert_eq!(self.requests(), 0);
        assert_eq!(self.in_flight(), 0);
        assert!(self.holders.is_empty() && self.pods.is_empty() && self.sessions.is_empty());
        assert!(self.jobs.timers.is_empty() && self.jobs.expired.is_empty());
        assert!(self.request_deadlines.is_empty() && self.orphaned_claims.is_empty());
        for queue in self.queues.iter() {
            assert_eq!(queue.running, 0);
            assert_eq!(queue.buckets.len(), 1, "{queue:?}");
            assert!(queue.dirty.is_empty());
        }
    }
}
