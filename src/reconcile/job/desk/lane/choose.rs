//! Who is the next to get a job, and which.

use super::super::entry::Jobs;
use super::{EVERYBODY, Lane};
use crate::job::location::Port;

/// Asks of one spot and port: the same job comes first for all of them.
struct Group {
    /// The one that has waited longest.
    ask: u64,
    spot: u32,
    port: Port,
}

impl Lane {
    /// The ask that has waited longest among those that fit something at this spot; with jobs on
    /// this side, or asks on this side. Asks whose first job is not judged yet are left out; that
    /// job and their spot are noted in `held_up`.
    pub(in crate::job::desk) fn longest_waiting(
        &self,
        jobs: &Jobs,
        spot: u32,
        held_up: &mut Vec<(u32, u32)>,
    ) -> Option<u64> {
        let here = &self.spots[spot];
        if here.closed {
            return None;
        }
        let mut judged = |group: Group| {
            let job = self.job_for(jobs, group.spot, group.port)?;
            if jobs.entries[job].judged {
                return Some(group.ask);
            }
            held_up.push((job, group.spot));
            None
        };
        let mut longest: Option<u64> = None;
        for (port, _) in &here.jobs {
            longest = earlier(longest, self.ask_for(spot, *port, &mut judged));
        }
        for (port, asks) in &here.asks {
            if let Some(ask) = asks.first().copied() {
                let port = *port;
                longest = earlier(longest, judged(Group { ask, spot, port }));
            }
        }
        longest
    }

    /// The longest waiting ask that can have a job of this spot and port.
    fn ask_for(
        &self,
        spot: u32,
        port: Port,
        judged: &mut impl FnMut(Group) -> Option<u64>,
    ) -> Option<u64> {
        let mut longest = None;
        if spot == EVERYBODY {
            for (known, heads) in &self.ask_heads {
                if known.fits(port) {
                    let first = heads.iter().find_map(|(ask, spot)| {
                        judged(Group {
                            ask: *ask,
                            spot: *spot,
                            port: *known,
                        })
                    });
                    longest = earlier(longest, first);
                }
            }
            return longest;
        }
        for spot in [spot, EVERYBODY] {
            for (known, asks) in &self.spots[spot].asks {
                if known.fits(port)
                    && let Some(ask) = asks.first().copied()
                {
                    let port = *known;
                    longest = earlier(longest, judged(Group { ask, spot, port }));
                }
            }
        }
        longest
    }

    /// The first job that an ask of this spot and port can have, judged or not.
    pub(in crate::job::desk) fn job_for(&self, jobs: &Jobs, spot: u32, port: Port) -> Option<u32> {
        if self.spots[spot].closed {
            return None;
        }
        if spot == EVERYBODY {
            return self
                .job_heads
                .iter()
                .filter(|(known, _)| known.fits(port))
                .filter_map(|(known, heads)| self.spots[heads.first()?].first_job(*known))
                .min_by_key(|id| jobs.rank(*id));
        }
        [spot, EVERYBODY]
            .into_iter()
            .flat_map(|spot| &self.spots[spot].jobs)
            .filter(|(known, _)| known.fits(port))
            .filter_map(|(_, sorted)| sorted.first())
            .min_by_key(|id| jobs.rank(*id))
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}
