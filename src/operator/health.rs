//! Whether this process moves (liveness) and whether it is of use (readiness), and if not, what
//! is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Something that a leader needs before it can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadinessGate {
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

impl ReadinessGate {
    /// For the readiness answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReadinessGate::ApiServer => "an answer of the API server",
            ReadinessGate::Authority => "the authority",
            ReadinessGate::Plugins => "the list of Plugins",
            ReadinessGate::Jobs => "the list of Jobs",
            ReadinessGate::Pods => "the list of pods",
            ReadinessGate::Services => "the list of Services",
            ReadinessGate::NetworkPolicies => "the list of NetworkPolicies",
        }
    }
}

/// Which loop has to show signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for the Lease.
    Candidate,
    Leader,
}

/// A loop whose standstill is the process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LivenessCheck {
    /// Asks for the Lease, or runs the passes over Plugins.
    Main,
    /// Runs the passes over Jobs.
    Jobs,
    /// Hands out Jobs.
    Dispatch,
}

/// Without a sign of life for so long the process counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Shared by every task.
#[derive(Debug)]
pub struct ProcessHealth(Mutex<HealthState>);

#[derive(Debug)]
struct HealthState {
    role: Role,
    missing: BTreeSet<ReadinessGate>,
    /// The last sign of life of every check that ever gave one in this role.
    alive: BTreeMap<LivenessCheck, Instant>,
}

impl Default for ProcessHealth {
    fn default() -> Self {
        Self(Mutex::new(HealthState {
            role: Role::Candidate,
            missing: BTreeSet::from([ReadinessGate::ApiServer]),
            alive: BTreeMap::from([(LivenessCheck::Main, Instant::now())]),
        }))
    }
}

impl ProcessHealth {
    /// From now on everything that a leader needs counts.
    pub fn start_leading(&self) {
        let mut state = self.lock();
        state.role = Role::Leader;
        state.alive = BTreeMap::from([(LivenessCheck::Main, Instant::now())]);
        state.missing.extend([
            ReadinessGate::Authority,
            ReadinessGate::Plugins,
            ReadinessGate::Jobs,
            ReadinessGate::Pods,
            ReadinessGate::Services,
            ReadinessGate::NetworkPolicies,
        ]);
    }

    /// `gate` is met.
    pub fn open_gate(&self, gate: ReadinessGate) {
        self.lock().missing.remove(&gate);
    }

    /// A sign of life of the main loop.
    pub fn heartbeat(&self) {
        self.heartbeat_of(LivenessCheck::Main);
    }

    /// A sign of life of one check; from now on it has to give more of them.
    pub fn heartbeat_of(&self, check: LivenessCheck) {
        self.lock().alive.insert(check, Instant::now());
    }

    /// Whether every loop moves.
    pub fn is_alive(&self) -> bool {
        let state = self.lock();
        state.alive.values().all(|at| at.elapsed() < STUCK_AFTER)
    }

    /// What is missing; empty when ready. A candidate that may not lead is ready: it stands by.
    pub fn missing(&self) -> Vec<ReadinessGate> {
        self.lock().missing.iter().copied().collect()
    }

    /// What this process is.
    pub fn role(&self) -> Role {
        self.lock().role
    }

    fn lock(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_candidate_is_ready_once_the_api_server_answered() {
        let health = ProcessHealth::default();
        assert_eq!(health.missing(), [ReadinessGate::ApiServer]);
        health.open_gate(ReadinessGate::ApiServer);
        assert!(health.missing().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_names_what_it_misses() {
        let health = ProcessHealth::default();
        health.open_gate(ReadinessGate::ApiServer);
        health.start_leading();
        health.open_gate(ReadinessGate::Authority);
        health.open_gate(ReadinessGate::Plugins);
        let missing: Vec<&str> = health
            .missing()
            .into_iter()
            .map(ReadinessGate::as_str)
            .collect();
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
        let health = ProcessHealth::default();
        tokio::time::advance(STUCK_AFTER - Duration::from_secs(1)).await;
        assert!(health.is_alive());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!health.is_alive());
        health.heartbeat();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn one_loop_that_stands_still_is_enough() {
        let health = ProcessHealth::default();
        health.heartbeat_of(LivenessCheck::Dispatch);
        tokio::time::advance(STUCK_AFTER + Duration::from_secs(1)).await;
        health.heartbeat();
        assert!(!health.is_alive());
        // A term that begins has new loops.
        health.start_leading();
        assert!(health.is_alive());
    }
}
