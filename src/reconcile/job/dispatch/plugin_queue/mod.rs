//! The queue of one Plugin: its jobs and its requests by client and port, each side in order.
//!
//! A *bucket* is one client, and bucket 0 is no client: jobs for any, requests for every job. Every bucket
//! keeps its jobs and requests by port. What comes first of each bucket and port stands once more in the
//! *heads*, so that the first of the whole queue is found without looking at the rest. A client that
//! has as many jobs as it may have is *closed*: its bucket has no heads, and its jobs and requests are
//! passed over in one step, however many there are.
//!
//! Jobs that are not accepted yet stand among the others. What would come to them first is blocked.

#[cfg(test)]
mod check_tests;
mod choose;

use super::super::location::Port;
use super::entry::{JobIndex, Sorted};
use super::event::PluginRefKey;
use super::slab::Slab;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Bucket of jobs for any client and of requests for every job.
pub(super) const ANY_CLIENT: u32 = 0;

/// The queue of one Plugin.
#[derive(Debug)]
pub(super) struct PluginQueue {
    pub(super) key: PluginRefKey,
    pub(super) max_running: Option<u32>,
    pub(super) max_running_per_client: Option<u32>,
    /// Jobs that its pods have, those whose claim is being written included.
    pub(super) running: u32,
    /// Claims that are being written.
    pub(super) claiming: u32,
    /// Jobs that wait for a request; those that are not accepted yet are not counted.
    pub(super) ready: usize,
    pub(super) buckets: Slab<ClientBucket>,
    by_client: HashMap<Arc<str>, u32>,
    /// Open buckets with jobs, by the rank of their first.
    job_heads: BTreeMap<Port, Sorted>,
    /// First requests of open buckets.
    request_heads: BTreeMap<Port, BTreeSet<(u64, u32)>>,
    /// Jobs that are not accepted yet and stand in the way, and the buckets of the requests that they hold
    /// up.
    blocked: BTreeSet<(u32, u32)>,
    /// Of those that are not accepted yet, what came until then, in monotonic time, blocks nobody
    /// any more.
    pub(super) skip_received_until: Option<u64>,
    /// Spots where something has come that was not compared with the other side yet.
    pub(super) dirty: VecDeque<u32>,
    /// Whether it stands in the dispatcher's list of queues with something dirty.
    pub(super) listed: bool,
}

/// One client, or none.
#[derive(Debug, Default)]
pub(super) struct ClientBucket {
    client: Option<Arc<str>>,
    jobs: Vec<(Port, Sorted)>,
    requests: Vec<(Port, BTreeSet<u64>)>,
    running: u32,
    closed: bool,
    dirty: bool,
}

impl ClientBucket {
    fn first_job(&self, port: Port) -> Option<u32> {
        let (_, jobs) = self.jobs.iter().find(|(known, _)| *known == port)?;
        jobs.first()
    }

    fn first_request(&self, port: Port) -> Option<u64> {
        let (_, requests) = self.requests.iter().find(|(known, _)| *known == port)?;
        requests.first().copied()
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.requests.is_empty() && self.running == 0 && !self.dirty
    }
}

impl PluginQueue {
    pub(super) fn new(key: PluginRefKey) -> Self {
        let mut buckets = Slab::default();
        buckets.insert(ClientBucket::default());
        Self {
            key,
            max_running: None,
            max_running_per_client: None,
            running: 0,
            claiming: 0,
            ready: 0,
            buckets,
            by_client: HashMap::new(),
            job_heads: BTreeMap::new(),
            request_heads: BTreeMap::new(),
            blocked: BTreeSet::new(),
            skip_received_until: None,
            dirty: VecDeque::new(),
            listed: false,
        }
    }

    /// Whether no further claim may be begun.
    pub(super) fn is_full(&self, claiming: usize) -> bool {
        self.max_running.is_some_and(|most| self.running >= most)
            || self.claiming as usize >= claiming
    }

    /// The bucket of a client, made when it is new. A caller that puts nothing there calls [`Self::remove_if_idle`].
    pub(super) fn bucket(&mut self, client: Option<&Arc<str>>) -> u32 {
        let Some(client) = client else {
            return ANY_CLIENT;
        };
        if let Some(id) = self.by_client.get(client) {
            return *id;
        }
        let id = self.buckets.insert(ClientBucket {
            client: Some(client.clone()),
            ..ClientBucket::default()
        });
        self.by_client.insert(client.clone(), id);
        id
    }

    /// Forgets a bucket where nothing is.
    pub(super) fn remove_if_idle(&mut self, id: u32) {
        if id == ANY_CLIENT || !self.buckets[id].is_idle() {
            return;
        }
        if let Some(client) = self.buckets.remove(id).and_then(|bucket| bucket.client) {
            self.by_client.remove(&client);
        }
    }

    /// Something has come to a bucket, or it was opened.
    pub(super) fn mark_dirty(&mut self, id: u32) {
        let bucket = &mut self.buckets[id];
        if !bucket.dirty {
            bucket.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// The next bucket to compare.
    pub(super) fn next_dirty(&self) -> Option<u32> {
        self.dirty.front().copied()
    }

    /// Nothing at this bucket, the next one, fits anything.
    pub(super) fn clear_dirty(&mut self) {
        if let Some(id) = self.dirty.pop_front() {
            self.buckets[id].dirty = false;
            self.remove_if_idle(id);
        }
    }

    /// A job that is not accepted yet stands in the way of requests of this bucket.
    pub(super) fn block(&mut self, job: u32, bucket: u32) {
        self.blocked.insert((job, bucket));
    }

    /// It does not any more.
    pub(super) fn unblock(&mut self, job: u32) {
        while let Some((_, bucket)) = self
            .blocked
            .range((job, 0)..=(job, u32::MAX))
            .next()
            .copied()
        {
            self.blocked.remove(&(job, bucket));
            // The requests may be gone, and their bucket with them.
            if self.buckets.get(bucket).is_some() {
                self.mark_dirty(bucket);
            }
        }
    }

    pub(super) fn insert_job(&mut self, jobs: &JobIndex, bucket: u32, id: u32) {
        let port = jobs.entries[id].port;
        let first = self.buckets[bucket].first_job(port);
        let leads = first.is_none_or(|first| jobs.rank(id) < jobs.rank(first));
        if leads && first.is_some() {
            self.remove_job_head(jobs, bucket, port);
        }
        let place = &mut self.buckets[bucket].jobs;
        match place.iter_mut().find(|(known, _)| *known == port) {
            Some((_, sorted)) => sorted.insert(id, |id| jobs.rank(id)),
            None => {
                let mut sorted = Sorted::default();
                sorted.insert(id, |id| jobs.rank(id));
                place.reserve_exact(1);
                place.push((port, sorted));
            }
        }
        if leads {
            self.add_job_head(jobs, bucket, port);
        }
        if jobs.entries[id].accepted {
            self.ready += 1;
        }
        // A request that fits it also fits the one before it.
        if leads {
            self.mark_dirty(bucket);
        }
    }

    pub(super) fn remove_job(&mut self, jobs: &JobIndex, bucket: u32, id: u32) {
        let port = jobs.entries[id].port;
        let leads = self.buckets[bucket].first_job(port) == Some(id);
        if leads {
            self.remove_job_head(jobs, bucket, port);
        }
        let place = &mut self.buckets[bucket].jobs;
        if let Some(at) = place.iter().position(|(known, _)| *known == port) {
            place[at].1.remove(id, |id| jobs.rank(id));
            if place[at].1.is_empty() {
                place.swap_remove(at);
            }
        }
        if leads {
            self.add_job_head(jobs, bucket, port);
        }
        if jobs.entries[id].accepted {
            self.ready -= 1;
        }
        self.remove_if_idle(bucket);
    }

    pub(super) fn insert_request(&mut self, bucket: u32, port: Port, request: u64) {
        self.remove_request_head(bucket, port);
        let place = &mut self.buckets[bucket].requests;
        match place.iter_mut().find(|(known, _)| *known == port) {
            Some((_, requests)) => {
                requests.insert(request);
            }
            None => place.push((port, BTreeSet::from([request]))),
        }
        self.add_request_head(bucket, port);
        self.mark_dirty(bucket);
    }

    pub(super) fn remove_request(&mut self, bucket: u32, port: Port, request: u64) {
        self.remove_request_head(bucket, port);
        let place = &mut self.buckets[bucket].requests;
        if let Some(at) = place.iter().position(|(known, _)| *known == port) {
            place[at].1.remove(&request);
            if place[at].1.is_empty() {
                place.swap_remove(at);
            }
        }
        self.add_request_head(bucket, port);
        self.remove_if_idle(bucket);
    }

    /// One more job runs for a client.
    pub(super) fn start_run(&mut self, jobs: &JobIndex, bucket: u32) {
        self.buckets[bucket].running += 1;
        self.update_client_limit(jobs, bucket);
    }

    /// One job less runs for a client.
    pub(super) fn finish_run(&mut self, jobs: &JobIndex, bucket: u32) {
        let running = &mut self.buckets[bucket].running;
        *running = running.saturating_sub(1);
        self.update_client_limit(jobs, bucket);
        self.remove_if_idle(bucket);
    }

    /// Judges a bucket by the limit per client.
    pub(super) fn update_client_limit(&mut self, jobs: &JobIndex, id: u32) {
        let bucket = &self.buckets[id];
        let full = id != ANY_CLIENT
            && self
                .max_running_per_client
                .is_some_and(|most| bucket.running >= most);
        if bucket.closed == full {
            return;
        }
        let job_ports: Vec<Port> = bucket.jobs.iter().map(|(port, _)| *port).collect();
        let ask_ports: Vec<Port> = bucket.requests.iter().map(|(port, _)| *port).collect();
        if full {
            for port in job_ports {
                self.remove_job_head(jobs, id, port);
                if let Some(first) = self.buckets[id].first_job(port) {
                    self.unblock(first);
                }
            }
            for port in ask_ports {
                self.remove_request_head(id, port);
            }
            self.buckets[id].closed = true;
        } else {
            self.buckets[id].closed = false;
            for port in job_ports {
                self.add_job_head(jobs, id, port);
            }
            for port in ask_ports {
                self.add_request_head(id, port);
            }
            self.mark_dirty(id);
        }
    }

    fn add_job_head(&mut self, jobs: &JobIndex, bucket: u32, port: Port) {
        let buckets = &self.buckets;
        if buckets[bucket].closed || buckets[bucket].first_job(port).is_none() {
            return;
        }
        let heads = self.job_heads.entry(port).or_default();
        heads.insert(bucket, |bucket| head(jobs, buckets, bucket, port));
    }

    fn remove_job_head(&mut self, jobs: &JobIndex, bucket: u32, port: Port) {
        let buckets = &self.buckets;
        if buckets[bucket].closed || buckets[bucket].first_job(port).is_none() {
            return;
        }
        if let Some(heads) = self.job_heads.get_mut(&port) {
            heads.remove(bucket, |bucket| head(jobs, buckets, bucket, port));
            if heads.is_empty() {
                self.job_heads.remove(&port);
            }
        }
    }

    fn add_request_head(&mut self, bucket: u32, port: Port) {
        if self.buckets[bucket].closed {
            return;
        }
        if let Some(first) = self.buckets[bucket].first_request(port) {
            self.request_heads
                .entry(port)
                .or_default()
                .insert((first, bucket));
        }
    }

    fn remove_request_head(&mut self, bucket: u32, port: Port) {
        let first = self.buckets[bucket].first_request(port);
        if let Some(first) = first
            && let Some(heads) = self.request_heads.get_mut(&port)
        {
            heads.remove(&(first, bucket));
            if heads.is_empty() {
                self.request_heads.remove(&port);
            }
        }
    }

    /// First jobs of every bucket, the closed ones too.
    pub(super) fn first_jobs(&self) -> impl Iterator<Item = u32> + '_ {
        let heads = self.job_heads.iter().filter_map(|(port, heads)| {
            let bucket = heads.first()?;
            self.buckets[bucket].first_job(*port)
        });
        let closed = self
            .buckets
            .iter()
            .filter(|bucket| bucket.closed)
            .flat_map(|bucket| bucket.jobs.iter().filter_map(|(_, sorted)| sorted.first()));
        heads.chain(closed)
    }
}

/// Rank of a bucket among the heads.
fn head<'a>(
    jobs: &'a JobIndex,
    buckets: &Slab<ClientBucket>,
    bucket: u32,
    port: Port,
) -> super::entry::Rank<'a> {
    match buckets[bucket].first_job(port) {
        Some(id) => jobs.rank(id),
        None => unreachable!("a spot without jobs is no head"),
    }
}
