//! What holds inside a queue after every event.

use super::{ANY_CLIENT, PluginQueue, head};
use crate::job::dispatch::entry::{JobIndex, Sorted};

impl PluginQueue {
    /// That the heads are the heads and nothing idle stays.
    pub(in crate::job::dispatch) fn check(&self, jobs: &JobIndex) {
        let mut ready = 0;
        for id in self.buckets.ids() {
            let bucket = &self.buckets[id];
            assert!(id == ANY_CLIENT || !bucket.is_idle(), "an idle spot stays");
            for (port, sorted) in &bucket.jobs {
                assert!(!sorted.is_empty());
                let ids: Vec<u32> = sorted.iter().collect();
                ready += ids.iter().filter(|id| jobs.entries[**id].accepted).count();
                assert!(ids.windows(2).all(|w| jobs.rank(w[0]) < jobs.rank(w[1])));
                let head = self
                    .job_heads
                    .get(port)
                    .is_some_and(|heads| heads.iter().any(|head| head == id));
                assert_eq!(head, !bucket.closed, "heads of spot {id}");
            }
            for (port, requests) in &bucket.requests {
                let first = *requests.first().expect("an empty group of asks stays");
                let head = self
                    .request_heads
                    .get(port)
                    .is_some_and(|heads| heads.contains(&(first, id)));
                assert_eq!(head, !bucket.closed, "ask heads of spot {id}");
            }
        }
        assert_eq!(ready, self.ready);
        for (job, _) in &self.blocked {
            assert!(jobs.entries[*job].blocks_requests(), "nobody is in the way");
        }
        let heads: usize = self.job_heads.values().map(Sorted::len).sum();
        let open: usize = self
            .buckets
            .iter()
            .filter(|bucket| !bucket.closed)
            .map(|bucket| bucket.jobs.len())
            .sum();
        assert_eq!(heads, open);
        for (port, heads) in &self.job_heads {
            let ids: Vec<u32> = heads.iter().collect();
            assert!(ids.windows(2).all(|w| {
                head(jobs, &self.buckets, w[0], *port) < head(jobs, &self.buckets, w[1], *port)
            }));
        }
    }
}
