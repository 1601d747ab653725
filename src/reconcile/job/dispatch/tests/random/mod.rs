//! Anything in any order: what the dispatcher promises holds after every action.

mod actions;
mod judge;

use judge::Judge;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const CLIENTS: [&str; 4] = ["", "10.0.0.1", "10.0.0.2", "host"];
const PORTS: [&str; 3] = ["", "1", "2"];

#[derive(Clone, Debug)]
enum Action {
    Make {
        name: usize,
        client: usize,
        port: usize,
        start: i64,
        expire: Option<i64>,
        priority: i32,
        again: bool,
        accepted: bool,
    },
    Delete {
        name: usize,
        told: bool,
    },
    Change {
        name: usize,
        how: u8,
    },
    /// The watch catches up by this number of actions.
    Watch {
        actions: usize,
    },
    Attach {
        pod: u64,
        known: bool,
        epoch: bool,
    },
    Detach {
        pod: u64,
    },
    WorkRequest {
        pod: u64,
        client: usize,
        port: usize,
        set_claimed: u32,
    },
    CancelRequest {
        pod: u64,
    },
    Release {
        pod: u64,
    },
    /// Carries out one of the things to do.
    Do {
        which: usize,
        lost_answer: bool,
    },
    DispatchLimits {
        most: Option<u32>,
        per_client: Option<u32>,
    },
    Time {
        millis: u64,
        wall: i64,
    },
    Pause {
        on: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let name = 0..NAMES.len();
    prop_oneof![
        6 => (name.clone(), 0..CLIENTS.len(), 0..PORTS.len(), -20i64..20, proptest::option::of(1i64..30), 0..3i32, any::<bool>(), proptest::bool::weighted(0.8))
            .prop_map(|(name, client, port, start, expire, priority, again, accepted)| Action::Make { name, client, port, start, expire, priority, again, accepted }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, told)| Action::Delete { name, told }),
        7 => (name, prop_oneof![3 => 0..9u8, 2 => Just(9), 1 => 10..13u8]).prop_map(|(name, how)| Action::Change { name, how }),
        12 => (1..6usize).prop_map(|actions| Action::Watch { actions }),
        2 => (0..3u64, any::<bool>(), any::<bool>()).prop_map(|(pod, known, epoch)| Action::Attach { pod, known, epoch }),
        1 => (0..3u64).prop_map(|pod| Action::Detach { pod }),
        12 => (0..3u64, 0..CLIENTS.len(), 0..PORTS.len(), prop_oneof![Just(0), 1..60_000u32]).prop_map(|(pod, client, port, set_claimed)| Action::WorkRequest { pod, client, port, set_claimed }),
        1 => (0..3u64).prop_map(|pod| Action::CancelRequest { pod }),
        1 => (0..3u64).prop_map(|pod| Action::Release { pod }),
        16 => (0..8usize, proptest::bool::weighted(0.2)).prop_map(|(which, lost_answer)| Action::Do { which, lost_answer }),
        1 => (proptest::option::of(1..5u32), proptest::option::of(1..5u32)).prop_map(|(most, per_client)| Action::DispatchLimits { most, per_client }),
        3 => (0..4_000u64, -200i64..3_000).prop_map(|(millis, wall)| Action::Time { millis, wall }),
        1 => proptest::bool::weighted(0.3).prop_map(|on| Action::Pause { on }),
    ]
}

proptest! {
    // A seed of a failure is turned into a test by hand; a file of seeds would lie among the crates.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dispatcher_keeps_its_invariants_with_random_events(actions in proptest::collection::vec(action(), 1..200)) {
        let mut judge = Judge::new();
        for pod in 0..3 {
            judge.attach(pod, true, true);
        }
        for action in &actions {
            judge.happen(action);
        }
        judge.finish_run();
    }
}

/// The test above would hold as well if nothing ever happened.
#[test]
fn random_events_cause_every_kind_of_effect() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let actions = proptest::collection::vec(action(), 150..200);
    let mut received_at: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..100 {
        let mut judge = Judge::new();
        for pod in 0..3 {
            judge.attach(pod, true, true);
        }
        for action in &actions.new_tree(&mut runner).unwrap().current() {
            judge.happen(action);
        }
        for (kind, count) in judge.received_at {
            *received_at.entry(kind).or_default() += count;
        }
    }
    for (kind, least) in [
        ("claim", 300),
        ("grant", 100),
        ("nothing", 100),
        ("release", 20),
        ("doubt", 5),
        ("held up", 50),
        ("passed over", 3),
        ("lose", 3),
    ] {
        let count = received_at.get(kind).copied().unwrap_or_default();
        assert!(count >= least, "{kind}: {count} in {received_at:?}");
    }
}
