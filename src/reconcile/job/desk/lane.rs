//! The queue of one Plugin: its jobs and its asks by client and port, each side in order.
//!
//! A *spot* is one client, and spot 0 is no client: jobs for any, asks for every job. Every spot
//! keeps its jobs and asks by port. What comes first of each spot and port stands once more in the
//! *heads*, so that the first of the whole lane is found without looking at the rest. A client that
//! has as many jobs as it may have is *closed*: its spot has no heads, and its jobs and asks are
//! passed over in one step, however many there are.
//!
//! Jobs that are not judged yet stand among the others. What would come to them first is held up.

#[cfg(test)]
mod check;
mod choose;

use super::super::location::Port;
use super::entry::{Jobs, Sorted};
use super::slots::Slots;
use super::words::PluginRefKey;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Spot of jobs for any client and of asks for every job.
pub(super) const EVERYBODY: u32 = 0;

/// The queue of one Plugin.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: PluginRefKey,
    pub(super) max_running: Option<u32>,
    pub(super) max_running_per_client: Option<u32>,
    /// Jobs that its pods have, those whose claim is being written included.
    pub(super) running: u32,
    /// Claims that are being written.
    pub(super) flying: u32,
    /// Jobs that wait for an ask; those that are not judged yet are not counted.
    pub(super) ready: usize,
    pub(super) spots: Slots<Spot>,
    by_location: HashMap<Arc<str>, u32>,
    /// Open spots with jobs, by the rank of their first.
    job_heads: BTreeMap<Port, Sorted>,
    /// First asks of open spots.
    ask_heads: BTreeMap<Port, BTreeSet<(u64, u32)>>,
    /// Jobs that are not judged yet and stand in the way, and the spots of the asks that they hold
    /// up.
    held_up: BTreeSet<(u32, u32)>,
    /// Of those that are not judged yet, what came until then, in monotonic time, holds up nobody
    /// any more.
    pub(super) passed_over: Option<u64>,
    /// Spots where something has come that was not compared with the other side yet.
    pub(super) dirty: VecDeque<u32>,
    /// Whether it stands in the desk's list of lanes with something dirty.
    pub(super) listed: bool,
}

/// One client, or none.
#[derive(Debug, Default)]
pub(super) struct Spot {
    location: Option<Arc<str>>,
    jobs: Vec<(Port, Sorted)>,
    asks: Vec<(Port, BTreeSet<u64>)>,
    running: u32,
    closed: bool,
    dirty: bool,
}

impl Spot {
    fn first_job(&self, port: Port) -> Option<u32> {
        let (_, jobs) = self.jobs.iter().find(|(known, _)| *known == port)?;
        jobs.first()
    }

    fn first_ask(&self, port: Port) -> Option<u64> {
        let (_, asks) = self.asks.iter().find(|(known, _)| *known == port)?;
        asks.first().copied()
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.asks.is_empty() && self.running == 0 && !self.dirty
    }
}

impl Lane {
    pub(super) fn new(key: PluginRefKey) -> Self {
        let mut spots = Slots::default();
        spots.insert(Spot::default());
        Self {
            key,
            max_running: None,
            max_running_per_client: None,
            running: 0,
            flying: 0,
            ready: 0,
            spots,
            by_location: HashMap::new(),
            job_heads: BTreeMap::new(),
            ask_heads: BTreeMap::new(),
            held_up: BTreeSet::new(),
            passed_over: None,
            dirty: VecDeque::new(),
            listed: false,
        }
    }

    /// Whether no further claim may be begun.
    pub(super) fn is_full(&self, flying: usize) -> bool {
        self.max_running.is_some_and(|most| self.running >= most) || self.flying as usize >= flying
    }

    /// The spot of a client, made when it is new. Whoever puts nothing there lets it go again.
    pub(super) fn spot(&mut self, location: Option<&Arc<str>>) -> u32 {
        let Some(location) = location else {
            return EVERYBODY;
        };
        if let Some(id) = self.by_location.get(location) {
            return *id;
        }
        let id = self.spots.insert(Spot {
            location: Some(location.clone()),
            ..Spot::default()
        });
        self.by_location.insert(location.clone(), id);
        id
    }

    /// Forgets a spot where nothing is.
    pub(super) fn let_go(&mut self, id: u32) {
        if id == EVERYBODY || !self.spots[id].is_idle() {
            return;
        }
        if let Some(location) = self.spots.remove(id).and_then(|spot| spot.location) {
            self.by_location.remove(&location);
        }
    }

    /// Something has come to a spot, or it was opened.
    pub(super) fn mark(&mut self, id: u32) {
        let spot = &mut self.spots[id];
        if !spot.dirty {
            spot.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// The next spot to compare.
    pub(super) fn next_dirty(&self) -> Option<u32> {
        self.dirty.front().copied()
    }

    /// Nothing at this spot, the next one, fits anything.
    pub(super) fn settled(&mut self) {
        if let Some(id) = self.dirty.pop_front() {
            self.spots[id].dirty = false;
            self.let_go(id);
        }
    }

    /// A job that is not judged yet stands in the way of asks of this spot.
    pub(super) fn hold_up(&mut self, job: u32, spot: u32) {
        self.held_up.insert((job, spot));
    }

    /// It does not any more.
    pub(super) fn go_on(&mut self, job: u32) {
        while let Some((_, spot)) = self
            .held_up
            .range((job, 0)..=(job, u32::MAX))
            .next()
            .copied()
        {
            self.held_up.remove(&(job, spot));
            // The asks may be gone, and their spot with them.
            if self.spots.get(spot).is_some() {
                self.mark(spot);
            }
        }
    }

    pub(super) fn put_job(&mut self, jobs: &Jobs, spot: u32, id: u32) {
        let port = jobs.entries[id].port;
        let first = self.spots[spot].first_job(port);
        let leads = first.is_none_or(|first| jobs.rank(id) < jobs.rank(first));
        if leads && first.is_some() {
            self.unhead_jobs(jobs, spot, port);
        }
        let place = &mut self.spots[spot].jobs;
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
            self.head_jobs(jobs, spot, port);
        }
        if jobs.entries[id].judged {
            self.ready += 1;
        }
        // Whoever could have it could have the one before it.
        if leads {
            self.mark(spot);
        }
    }

    pub(super) fn take_job(&mut self, jobs: &Jobs, spot: u32, id: u32) {
        let port = jobs.entries[id].port;
        let leads = self.spots[spot].first_job(port) == Some(id);
        if leads {
            self.unhead_jobs(jobs, spot, port);
        }
        let place = &mut self.spots[spot].jobs;
        if let Some(at) = place.iter().position(|(known, _)| *known == port) {
            place[at].1.remove(id, |id| jobs.rank(id));
            if place[at].1.is_empty() {
                place.swap_remove(at);
            }
        }
        if leads {
            self.head_jobs(jobs, spot, port);
        }
        if jobs.entries[id].judged {
            self.ready -= 1;
        }
        self.let_go(spot);
    }

    pub(super) fn put_ask(&mut self, spot: u32, port: Port, ask: u64) {
        self.unhead_asks(spot, port);
        let place = &mut self.spots[spot].asks;
        match place.iter_mut().find(|(known, _)| *known == port) {
            Some((_, asks)) => {
                asks.insert(ask);
            }
            None => place.push((port, BTreeSet::from([ask]))),
        }
        self.head_asks(spot, port);
        self.mark(spot);
    }

    pub(super) fn take_ask(&mut self, spot: u32, port: Port, ask: u64) {
        self.unhead_asks(spot, port);
        let place = &mut self.spots[spot].asks;
        if let Some(at) = place.iter().position(|(known, _)| *known == port) {
            place[at].1.remove(&ask);
            if place[at].1.is_empty() {
                place.swap_remove(at);
            }
        }
        self.head_asks(spot, port);
        self.let_go(spot);
    }

    /// One more job runs for a client.
    pub(super) fn begin(&mut self, jobs: &Jobs, spot: u32) {
        self.spots[spot].running += 1;
        self.open_or_close(jobs, spot);
    }

    /// One job less runs for a client.
    pub(super) fn end(&mut self, jobs: &Jobs, spot: u32) {
        let running = &mut self.spots[spot].running;
        *running = running.saturating_sub(1);
        self.open_or_close(jobs, spot);
        self.let_go(spot);
    }

    /// Judges a spot by the limit per client.
    pub(super) fn open_or_close(&mut self, jobs: &Jobs, id: u32) {
        let spot = &self.spots[id];
        let full = id != EVERYBODY
            && self
                .max_running_per_client
                .is_some_and(|most| spot.running >= most);
        if spot.closed == full {
            return;
        }
        let job_ports: Vec<Port> = spot.jobs.iter().map(|(port, _)| *port).collect();
        let ask_ports: Vec<Port> = spot.asks.iter().map(|(port, _)| *port).collect();
        if full {
            for port in job_ports {
                self.unhead_jobs(jobs, id, port);
                if let Some(first) = self.spots[id].first_job(port) {
                    self.go_on(first);
                }
            }
            for port in ask_ports {
                self.unhead_asks(id, port);
            }
            self.spots[id].closed = true;
        } else {
            self.spots[id].closed = false;
            for port in job_ports {
                self.head_jobs(jobs, id, port);
            }
            for port in ask_ports {
                self.head_asks(id, port);
            }
            self.mark(id);
        }
    }

    fn head_jobs(&mut self, jobs: &Jobs, spot: u32, port: Port) {
        let spots = &self.spots;
        if spots[spot].closed || spots[spot].first_job(port).is_none() {
            return;
        }
        let heads = self.job_heads.entry(port).or_default();
        heads.insert(spot, |spot| head(jobs, spots, spot, port));
    }

    fn unhead_jobs(&mut self, jobs: &Jobs, spot: u32, port: Port) {
        let spots = &self.spots;
        if spots[spot].closed || spots[spot].first_job(port).is_none() {
            return;
        }
        if let Some(heads) = self.job_heads.get_mut(&port) {
            heads.remove(spot, |spot| head(jobs, spots, spot, port));
            if heads.is_empty() {
                self.job_heads.remove(&port);
            }
        }
    }

    fn head_asks(&mut self, spot: u32, port: Port) {
        if self.spots[spot].closed {
            return;
        }
        if let Some(first) = self.spots[spot].first_ask(port) {
            self.ask_heads
                .entry(port)
                .or_default()
                .insert((first, spot));
        }
    }

    fn unhead_asks(&mut self, spot: u32, port: Port) {
        let first = self.spots[spot].first_ask(port);
        if let Some(first) = first
            && let Some(heads) = self.ask_heads.get_mut(&port)
        {
            heads.remove(&(first, spot));
            if heads.is_empty() {
                self.ask_heads.remove(&port);
            }
        }
    }

    /// First jobs of every spot, the closed ones too.
    pub(super) fn firsts(&self) -> impl Iterator<Item = u32> + '_ {
        let heads = self.job_heads.iter().filter_map(|(port, heads)| {
            let spot = heads.first()?;
            self.spots[spot].first_job(*port)
        });
        let closed = self
            .spots
            .iter()
            .filter(|spot| spot.closed)
            .flat_map(|spot| spot.jobs.iter().filter_map(|(_, sorted)| sorted.first()));
        heads.chain(closed)
    }
}

/// Rank of a spot among the heads.
fn head<'a>(jobs: &'a Jobs, spots: &Slots<Spot>, spot: u32, port: Port) -> super::entry::Rank<'a> {
    match spots[spot].first_job(port) {
        Some(id) => jobs.rank(id),
        None => unreachable!("a spot without jobs is no head"),
    }
}
