//! What goes wrong, and how often; and drivers that are wrong on purpose.

use crate::random::Rng;
use crate::world::{MS, SECOND, SimEvent, World};

/// Probabilities, each per occasion. An occasion of a fault that comes with time is 50 ms.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Of a request to the API server.
    pub lost_before: f64,
    pub lost_after: f64,
    pub late: f64,
    pub outage: f64,
    pub relist: f64,
    pub deaf: f64,
    pub leader_change: f64,
    pub clock_step: f64,
    pub session_cut: f64,
    pub sidecar_killed: f64,
    pub plugin_killed: f64,
    pub volume_lost: f64,
    pub pod_replaced: f64,
    /// Of a session that opens, or of a message.
    pub late_hello: f64,
    pub slow_down: f64,
    /// Before each thing that a sidecar does.
    pub crash: f64,
    /// Of each write of the ledger.
    pub not_written: f64,
    /// Of each hand-over.
    pub slow_hand: f64,
    pub broken_pipe: f64,
    /// Of each request for work, while it waits.
    pub request_gone: f64,
    /// Of each job, by users.
    pub cancelled: f64,
    pub suspended: f64,
    pub recreated: f64,
    /// An old leader may go on so long.
    pub reign: u64,
    /// Watches may be late by so much at times.
    pub lag: u64,
    /// Clocks of nodes are too fast or slow by so many parts in a million.
    pub drift: u64,
}

impl Faults {
    pub fn storm() -> Faults {
        Faults {
            lost_before: 0.003,
            lost_after: 0.004,
            late: 0.003,
            outage: 0.002,
            relist: 0.004,
            deaf: 0.01,
            leader_change: 0.006,
            clock_step: 0.006,
            session_cut: 0.02,
            sidecar_killed: 0.004,
            plugin_killed: 0.02,
            volume_lost: 0.003,
            pod_replaced: 0.003,
            late_hello: 0.1,
            slow_down: 0.004,
            crash: 0.0004,
            not_written: 0.0005,
            slow_hand: 0.02,
            broken_pipe: 0.01,
            request_gone: 0.01,
            cancelled: 0.01,
            suspended: 0.02,
            recreated: 0.01,
            reign: 8 * SECOND,
            lag: 400 * MS,
            drift: 150,
        }
    }

    /// How late a watch is.
    pub fn lag(&self, rng: &mut Rng, calm: bool) -> u64 {
        match self.lag > 0 && !calm && rng.chance(0.02) {
            true => rng.range(MS, self.lag),
            false => rng.range(200, 3 * MS),
        }
    }
}

/// A driver with a mistake. The judge has to find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The ledger is written after the hand-over.
    LedgerAfterHandOver,
    /// A write whose outcome is not known counts as not written.
    UnknownIsLost,
    /// A conflict is never one's own earlier write.
    ConflictIsLost,
    /// A grant is taken for whoever waits, whether or not its ask is alive.
    GrantWithoutAsk,
    /// What the clock says is not asked again before the grant.
    ExpiryNotLookedAtAgain,
    /// The sidecar does not look at its clock when it hands over.
    DeadlineIgnored,
    /// "Nobody wants this row" is said from a copy that may be old.
    CopyIsBelieved,
    /// The end is written before the output.
    SucceededBeforeStored,
    /// A plugin gives up the id of a request that got no answer.
    RequestIdGivenUp,
}

impl World {
    /// What comes with time.
    pub fn weather(&mut self) {
        if self.calm {
            return;
        }
        self.at(50 * MS, SimEvent::Weather);
        let faults = self.setting.faults.clone();
        if self.fault("API server away", faults.outage) {
            self.away_until = self.now + self.rng.range(100 * MS, 5 * SECOND);
        }
        if self.fault("changes of leader", faults.leader_change) {
            let old: Vec<usize> = (0..self.leaders.len())
                .filter(|l| self.leaders[*l].alive)
                .collect();
            for (index, leader) in old.iter().rev().enumerate() {
                // The last one does not know for a while; there are never more than two.
                let wait = match index {
                    0 if self.rng.chance(0.7) => self.rng.range(0, faults.reign),
                    _ => 0,
                };
                if wait > 0 {
                    self.count("old leaders that go on");
                }
                self.at(wait, SimEvent::LeaderEnds { leader: *leader });
            }
            self.new_leader();
        }
        for leader in 0..self.leaders.len() {
            if !self.leaders[leader].alive {
                continue;
            }
            if self.fault("clocks of leaders set", faults.clock_step) {
                let ahead = self.rng.below(4_000_000) as i64 - 2_000_000;
                self.leaders[leader].wall.ahead = ahead;
                self.tell_dispatcher(leader, patchbay_reconcile::job::dispatch::Event::Tick);
                let names: Vec<u32> = self.leaders[leader].known.keys().copied().collect();
                for name in names {
                    self.consider(leader, name);
                }
            }
            if self.fault("watches that start anew", faults.relist) {
                self.list(leader);
            }
            if self.fault("watches that stand still", faults.deaf) {
                self.leaders[leader].deaf_until = self.now + self.rng.range(50 * MS, 2 * SECOND);
            }
        }
        for pod in 0..self.pods.len() {
            if self.pods[pod].gone {
                continue;
            }
            if let Some(link) = self.pods[pod].link
                && self.fault("sessions cut", faults.session_cut / 4.0)
            {
                self.cut(link);
            }
            if self.fault("sidecars killed", faults.sidecar_killed) {
                self.crash(pod);
            }
            if self.fault("plugins killed", faults.plugin_killed / 4.0) {
                self.plugin_dies(pod);
            }
            if self.fault("volumes lost", faults.volume_lost / 4.0) {
                self.lose_volume(pod);
            }
            if self.fault("pods replaced", faults.pod_replaced / 4.0) {
                let wait = self.rng.range(0, 300 * MS);
                self.at(wait, SimEvent::Replace { pod });
            }
        }
    }
}
