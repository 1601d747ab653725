//! Who is the next to get a job, and which.

use super::super::entry::JobIndex;
use super::{ANY_CLIENT, PluginQueue};
use crate::job::location::Port;

/// Requests of one bucket and port: the same job comes first for all of them.
struct Group {
    /// The one that has waited longest.
    request: u64,
    bucket: u32,
    port: Port,
}

impl PluginQueue {
    /// The request that has waited longest among those that fit something at this bucket; with jobs on
    /// this side, or requests on this side. Requests whose first job is not accepted yet are left out; that
    /// job and their bucket are noted in `blocked`.
    pub(in crate::job::dispatch) fn longest_waiting(
        &self,
        jobs: &JobIndex,
        bucket: u32,
        blocked: &mut Vec<(u32, u32)>,
    ) -> Option<u64> {
        let here = &self.buckets[bucket];
        if here.closed {
            return None;
        }
        let mut accepted = |group: Group| {
            let job = self.job_for(jobs, group.bucket, group.port)?;
            if jobs.entries[job].accepted {
                return Some(group.request);
            }
            blocked.push((job, group.bucket));
            None
        };
        let mut longest: Option<u64> = None;
        for (port, _) in &here.jobs {
            longest = earlier(longest, self.request_for(bucket, *port, &mut accepted));
        }
        for (port, requests) in &here.requests {
            if let Some(request) = requests.first().copied() {
                let port = *port;
                longest = earlier(
                    longest,
                    accepted(Group {
                        request,
                        bucket,
                        port,
                    }),
                );
            }
        }
        longest
    }

    /// The longest waiting request that can have a job of this bucket and port.
    fn request_for(
        &self,
        bucket: u32,
        port: Port,
        accepted: &mut impl FnMut(Group) -> Option<u64>,
    ) -> Option<u64> {
        let mut longest = None;
        if bucket == ANY_CLIENT {
            for (known, heads) in &self.request_heads {
                if known.fits(port) {
                    let first = heads.iter().find_map(|(request, bucket)| {
                        accepted(Group {
                            request: *request,
                            bucket: *bucket,
                            port: *known,
                        })
                    });
                    longest = earlier(longest, first);
                }
            }
            return longest;
        }
        for bucket in [bucket, ANY_CLIENT] {
            for (known, requests) in &self.buckets[bucket].requests {
                if known.fits(port)
                    && let Some(request) = requests.first().copied()
                {
                    let port = *known;
                    longest = earlier(
                        longest,
                        accepted(Group {
                            request,
                            bucket,
                            port,
                        }),
                    );
                }
            }
        }
        longest
    }

    /// The first job that a request of this bucket and port can have, accepted or not.
    pub(in crate::job::dispatch) fn job_for(
        &self,
        jobs: &JobIndex,
        bucket: u32,
        port: Port,
    ) -> Option<u32> {
        if self.buckets[bucket].closed {
            return None;
        }
        if bucket == ANY_CLIENT {
            return self
                .job_heads
                .iter()
                .filter(|(known, _)| known.fits(port))
                .filter_map(|(known, heads)| self.buckets[heads.first()?].first_job(*known))
                .min_by_key(|id| jobs.rank(*id));
        }
        [bucket, ANY_CLIENT]
            .into_iter()
            .flat_map(|bucket| &self.buckets[bucket].jobs)
            .filter(|(known, _)| known.fits(port))
            .filter_map(|(_, sorted)| sorted.first())
            .min_by_key(|id| jobs.rank(*id))
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}
