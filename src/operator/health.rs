//! Whether this process moves (liveness) and whether it is of use (readiness), and if not, what
//! is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Something that a leader needs before it can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The API server has not answered yet.
    ApiServer,
    /// The authority of the installation.
    Authority,
    /// The first list of Plugins.
    Plugins,
    /// The first list of Jobs.
    Jobs,
    /// The first list of pods.
    Pods,
    /// The first list of Services.
    Services,
    /// The first list of NetworkPolicies.
    NetworkPolicies,
}

impl Need {
    /// For the readiness answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Need::ApiServer => "an answer of the API server",
            Need::Authority => "the authority",
            Need::Plugins => "the list of Plugins",
            Need::Jobs => "the list of Jobs",
            Need::Pods => "the list of pods",
            Need::Services => "the list of Services",
            Need::NetworkPolicies => "the list of NetworkPolicies",
        }
    }
}

/// Which loop has to show signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for the Lease.
    Candidate,
    /// Runs passes.
    Leader,
}

/// A loop whose standstill is the process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Asks for the Lease, or runs the passes over Plugins.
    Main,
    /// Runs the passes over Jobs.
    Jobs,
    /// Hands out Jobs.
    Desk,
}

/// Without a sign of life for so long the process counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Shared by every task.
#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    role: Role,
    missing: BTreeSet<Need>,
    /// The last sign of life of every part that ever gave one in this role.
    alive: BTreeMap<Part, Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(State {
            role: Role::Candidate,
            missing: BTreeSet::from([Need::ApiServer]),
            alive: BTreeMap::from([(Part::Main, Instant::now())]),
        }))
    }
}

impl Health {
    /// From now on everything that a leader needs counts.
    pub fn leads(&self) {
        let mut state = self.lock();
        state.role = Role::Leader;
        state.alive = BTreeMap::from([(Part::Main, Instant::now())]);
        state.missing.extend([
            Need::Authority,
            Need::Plugins,
            Need::Jobs,
            Need::Pods,
            Need::Services,
            Need::NetworkPolicies,
        ]);
    }

    /// `need` is met.
    pub fn has(&self, need: Need) {
        self.lock().missing.remove(&need);
    }

    /// A sign of life of the main loop.
    pub fn alive(&self) {
        self.alive_in(Part::Main);
    }

    /// A sign of life of one part; from now on it has to give more of them.
    pub fn alive_in(&self, part: Part) {
        self.lock().alive.insert(part, Instant::now());
    }

    /// Whether every loop moves.
    pub fn is_alive(&self) -> bool {
        let state = self.lock();
        state.alive.values().all(|at| at.elapsed() < STUCK_AFTER)
    }

    /// What is missing; empty when ready. A candidate that may not lead is ready: it stands by.
    pub fn missing(&self) -> Vec<Need> {
        self.lock().missing.iter().copied().collect()
    }

    /// What this process is.
    pub fn role(&self) -> Role {
        self.lock().role
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_candidate_is_ready_once_the_api_server_answered() {
        let health = Health::default();
        assert_eq!(health.missing(), [Need::ApiServer]);
        health.has(Need::ApiServer);
        assert!(health.missing().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_names_what_it_misses() {
        let health = Health::default();
        health.has(Need::ApiServer);
        health.leads();
        health.has(Need::Authority);
        health.has(Need::Plugins);
        let missing: Vec<&str> = health.missing().into_iter().map(Need::as_str).collect();
        assert_eq!(
            missing,
            [
                "the list of Jobs",
                "the list of pods",
                "the list of Services",
                "the list of NetworkPolicies"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_not_alive() {
        let health = Health::default();
        tokio::time::advance(STUCK_AFTER - Duration::from_secs(1)).await;
        assert!(health.is_alive());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!health.is_alive());
        health.alive();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn one_loop_that_stands_still_is_enough() {
        let health = Health::default();
        health.alive_in(Part::Desk);
        tokio::time::advance(STUCK_AFTER + Duration::from_secs(1)).await;
        health.alive();
        assert!(!health.is_alive());
        // A term that begins has new loops.
        health.leads();
        assert!(health.is_alive());
    }
}
