//! Who holds the Lease and what to do about it. Pure: an observation in, a step out.
//!
//! Times written by others are never compared with the own clock: a Lease counts as expired when
//! it has not changed for its duration **by this process's monotonic clock**.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use std::time::Duration;
use tokio::time::Instant;

/// Written into the Lease.
pub const DURATION: Duration = Duration::from_secs(15);
/// Time between two renewals.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// A leader that could not renew for so long stops leading; the difference to [`DURATION`] is the
/// time it has for stopping before anybody else may begin.
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// Time between two looks at a Lease that somebody else holds.
pub const POLL: Duration = Duration::from_secs(2);

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// There is no Lease: create it with this transition count.
    Create,
    /// Take it over by a replace with the resource version that was read.
    Take { transitions: i32 },
    /// Somebody else holds it; look again.
    Wait,
}

/// Remembers since when the Lease has not changed.
#[derive(Debug)]
pub struct LeaseObserver {
    identity: String,
    predecessors: Option<String>,
    seen: Option<(String, Instant)>,
}

impl LeaseObserver {
    /// For the process `identity`, in the pod `pod` if it is in one.
    pub fn new(identity: &str, pod: Option<&str>) -> Self {
        Self {
            identity: identity.to_owned(),
            predecessors: pod.map(|pod| format!("{pod}_")),
            seen: None,
        }
    }

    /// What to do about a Lease with this resource version and spec.
    pub fn next_action(&mut self, lease: Option<(&str, &LeaseSpec)>, now: Instant) -> LeaseAction {
        let Some((version, spec)) = lease else {
            return LeaseAction::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == version => *since,
            _ => {
                self.seen = Some((version.to_owned(), now));
                now
            }
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map_or(DURATION, Duration::from_secs);
        // A pod runs one operator at a time: the one that held the Lease from ours has ended.
        let ended = holder.is_empty()
            || holder == self.identity
            || self
                .predecessors
                .as_deref()
                .is_some_and(|prefix| holder.starts_with(prefix));
        if ended || now.duration_since(since) >= duration {
            LeaseAction::Take {
                transitions: spec.lease_transitions.unwrap_or(0).max(0).saturating_add(1),
            }
        } else {
            LeaseAction::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> LeaseObserver {
        LeaseObserver::new("me_1", None)
    }

    fn held_by(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn an_absent_lease_is_created() {
        assert_eq!(
            observer().next_action(None, Instant::now()),
            LeaseAction::Create
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_the_count_grows() {
        let spec = held_by("", 6);
        assert_eq!(
            observer().next_action(Some(("1", &spec)), Instant::now()),
            LeaseAction::Take { transitions: 7 }
        );
    }

    #[test]
    fn a_lease_that_changes_is_left_alone_for_ever() {
        let spec = held_by("other", 6);
        let (mut observer, start) = (observer(), Instant::now());
        for n in 0..100u64 {
            let now = start + Duration::from_secs(14 * n);
            let step = observer.next_action(Some((&n.to_string(), &spec)), now);
            assert_eq!(step, LeaseAction::Wait);
        }
    }

    #[test]
    fn a_lease_that_stands_still_is_taken_after_its_duration_and_not_before() {
        let spec = held_by("other", 6);
        let (mut observer, start) = (observer(), Instant::now());
        let mut at = |seconds: f64| {
            let now = start + Duration::from_secs_f64(seconds);
            observer.next_action(Some(("1", &spec)), now)
        };
        assert_eq!(at(0.0), LeaseAction::Wait);
        assert_eq!(at(14.9), LeaseAction::Wait);
        assert_eq!(at(15.0), LeaseAction::Take { transitions: 7 });
    }

    #[test]
    fn only_a_predecessor_in_the_same_pod_is_known_to_have_ended() {
        let step = |holder: &str| {
            let spec = held_by(holder, 6);
            LeaseObserver::new("operator-7_b", Some("operator-7"))
                .next_action(Some(("1", &spec)), Instant::now())
        };
        assert_eq!(step("operator-7_a"), LeaseAction::Take { transitions: 7 });
        assert_eq!(step("operator-77_a"), LeaseAction::Wait);
        assert_eq!(step("operator-7"), LeaseAction::Wait);
    }

    #[test]
    fn a_leader_stops_before_anybody_else_may_begin() {
        assert!(GIVE_UP + RENEWAL <= DURATION);
    }

    #[test]
    fn nonsense_in_the_lease_does_not_hinder() {
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(-4),
            lease_transitions: Some(i32::MAX),
            ..LeaseSpec::default()
        };
        assert_eq!(
            observer().next_action(Some(("1", &spec)), Instant::now()),
            LeaseAction::Take {
                transitions: i32::MAX
            }
        );
    }
}
