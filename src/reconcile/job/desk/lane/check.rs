//! What holds inside a lane after every event.

use super::{EVERYBODY, Lane, head};
use crate::job::desk::entry::{Jobs, Sorted};

impl Lane {
    /// That the heads are the heads and nothing idle stays.
    pub(in crate::job::desk) fn check(&self, jobs: &Jobs) {
        let mut ready = 0;
        for id in self.spots.ids() {
            let spot = &self.spots[id];
            assert!(id == EVERYBODY || !spot.is_idle(), "an idle spot stays");
            for (port, sorted) in &spot.jobs {
                assert!(!sorted.is_empty());
                let ids: Vec<u32> = sorted.iter().collect();
                ready += ids.iter().filter(|id| jobs.entries[**id].judged).count();
                assert!(ids.windows(2).all(|w| jobs.rank(w[0]) < jobs.rank(w[1])));
                let head = self
                    .job_heads
                    .get(port)
                    .is_some_and(|heads| heads.iter().any(|head| head == id));
                assert_eq!(head, !spot.closed, "heads of spot {id}");
            }
            for (port, asks) in &spot.asks {
                let first = *asks.first().expect("an empty group of asks stays");
                let head = self
                    .ask_heads
                    .get(port)
                    .is_some_and(|heads| heads.contains(&(first, id)));
                assert_eq!(head, !spot.closed, "ask heads of spot {id}");
            }
        }
        assert_eq!(ready, self.ready);
        for (job, _) in &self.held_up {
            assert!(
                jobs.entries[*job].stands_in_the_way(),
                "nobody is in the way"
            );
        }
        let heads: usize = self.job_heads.values().map(Sorted::len).sum();
        let open: usize = self
            .spots
            .iter()
            .filter(|spot| !spot.closed)
            .map(|spot| spot.jobs.len())
            .sum();
        assert_eq!(heads, open);
        for (port, heads) in &self.job_heads {
            let ids: Vec<u32> = heads.iter().collect();
            assert!(ids.windows(2).all(|w| {
                head(jobs, &self.spots, w[0], *port) < head(jobs, &self.spots, w[1], *port)
            }));
        }
    }
}
