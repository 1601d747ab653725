//! What has to hold in every state, and what must have been seen.

use crate::Protocol;
use crate::moves::Move;
use crate::state::{EntryState, Phase, Reason, SIDECARS, State};
use stateright::Property;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// More moves than any run without misfortune needs.
const LONG: usize = 300;

pub(crate) const ONCE: &str = "an attempt is handed over at most once";
pub(crate) const EXPIRY: &str = "nothing is handed over at or after its expiry";
pub(crate) const CLIENT: &str = "a job for one client goes to that client";
pub(crate) const TERMINAL: &str = "nothing leaves a terminal phase";
pub(crate) const STORED: &str = "the output of a succeeded job is stored";
pub(crate) const ANSWERED: &str = "only an answer makes a job succeed";
pub(crate) const KEPT: &str = "no job is lost that its holder still has";
pub(crate) const ENDS: &str = "every job ends when misfortune stops";

/// All properties of one run.
pub(crate) fn properties(model: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        always(ONCE, |_, state| {
            state.diary.handed.iter().flatten().all(|&count| count <= 1)
        }),
        always(
            "AtMostOnce: a job is handed over at most once",
            |model, state| {
                model.config.at_least_once
                    || state
                        .diary
                        .handed
                        .iter()
                        .all(|counts| counts.iter().sum::<u8>() <= 1)
            },
        ),
        always(EXPIRY, |_, state| !state.diary.after_expiry),
        always(CLIENT, |_, state| !state.diary.wrong_client),
        always(TERMINAL, |_, state| !state.diary.left_terminal),
        always(STORED, |_, state| {
            state.jobs.iter().flatten().all(|job| {
                job.phase != Phase::Succeeded
                    || state.outputs[job.uid.name()].contains(&Some(job.uid))
            })
        }),
        always("an attempt never has two holders", |_, state| {
            has_one_holder(state)
        }),
        always(ANSWERED, |_, state| !state.diary.false_success),
        always(KEPT, |_, state| !state.diary.false_loss),
        always(ENDS, |model, state| model.ends(state)),
        sometimes("a job succeeds", |_, state| {
            has(state, |job| job.phase == Phase::Succeeded)
        }),
        sometimes("a job expires", |_, state| {
            has(state, |job| Reason::of(job) == Some(Reason::Expired))
        }),
        sometimes("a plugin is lost", |_, state| {
            has(state, |job| Reason::of(job) == Some(Reason::PluginLost))
        }),
        sometimes("a job is cancelled", |_, state| {
            has(state, |job| Reason::of(job) == Some(Reason::Cancelled))
        }),
        sometimes("the second attempt succeeds", |_, state| {
            has(state, |job| {
                job.phase == Phase::Succeeded && job.attempt == 2
            })
        }),
        sometimes("a job created again succeeds", |_, state| {
            has(state, |job| {
                job.phase == Phase::Succeeded && job.uid.generation == 1
            })
        }),
        sometimes("two leaders attend to one pod", |_, state| {
            (0..SIDECARS).any(|sidecar| {
                state.sessions.iter().all(|pods| {
                    pods[sidecar]
                        .as_ref()
                        .is_some_and(|one| one.ledger_epoch.is_some())
                })
            })
        }),
    ];
    all.retain(|property| match model.only {
        Some(only) => property.name == only,
        None => {
            property.expectation.discovery_is_failure()
                || model.config.sights.contains(&property.name)
        }
    });
    all
}

// Named types, because a closure's cannot be found through `Model::State`.
fn always(name: &'static str, holds: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::always(name, holds)
}

fn sometimes(name: &'static str, seen: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::sometimes(name, seen)
}

fn has(state: &State, wanted: impl Fn(&crate::state::Job) -> bool) -> bool {
    state.jobs.iter().flatten().any(wanted)
}

fn has_one_holder(state: &State) -> bool {
    let holds: Vec<_> = state
        .sidecars
        .iter()
        .flat_map(|sidecar| &sidecar.ledger)
        .filter(|entry| {
            matches!(
                entry.state,
                EntryState::Granted { .. } | EntryState::Delivered { .. }
            )
        })
        .map(|entry| (entry.uid, entry.attempt))
        .collect();
    holds
        .iter()
        .enumerate()
        .all(|(at, held)| !holds[..at].contains(held))
}

/// Whether every job has ended.
pub(crate) fn is_over(state: &State) -> bool {
    state
        .jobs
        .iter()
        .flatten()
        .all(|job| job.phase.is_terminal())
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl Protocol {
    /// Whether all jobs end from here without further misfortune, with the newest leader alone:
    /// the old one may stay silent for ever. States found good are remembered, so that each is
    /// walked through once.
    fn ends(&self, state: &State) -> bool {
        let mut walked = Vec::new();
        let mut here = state.clone();
        let good = loop {
            let mark = fingerprint(&here);
            if is_over(&here) || self.ended().contains(&mark) {
                break true;
            }
            walked.push(mark);
            if walked.len() > LONG {
                break false;
            }
            match self.calm_step(&here) {
                Some(next) => here = next,
                None => break false,
            }
        };
        if good {
            self.ended().extend(walked);
        }
        good
    }

    /// The next step of a run without misfortune: what is on its way arrives before anything new
    /// begins.
    fn calm_step(&self, state: &State) -> Option<State> {
        let mut moves = Vec::new();
        self.regular_moves(state, &mut moves);
        let newest = state.newest_leader();
        let mut ranked: Vec<(u8, Move)> = moves
            .into_iter()
            .filter_map(|this| Some((rank(this, newest)?, this)))
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
            .into_iter()
            .find_map(|(_, this)| self.after(state, this))
    }
}

/// The order in a calm run; none for what does not happen there.
fn rank(this: Move, newest: usize) -> Option<u8> {
    let by = |leader: usize, rank: u8| (leader == newest).then_some(rank);
    match this {
        Move::CommitLate => Some(0),
        Move::Commit { leader, .. }
        | Move::Grant { leader, .. }
        | Move::ReadBack { leader, .. }
        | Move::StoreOutput { leader, .. } => by(leader, 1),
        Move::Watch { leader, .. } => by(leader, 2),
        Move::Dial { leader, .. } => by(leader, 3),
        Move::Hear { leader, .. } | Move::Doubt { leader, .. } => by(leader, 4),
        Move::Receive { leader, .. } => by(leader, 5),
        Move::WriteDelivered { .. } | Move::HandOver { .. } | Move::Release { .. } => Some(6),
        Move::Answer { .. } | Move::EndGrace { .. } => Some(7),
        Move::LoseHolder { leader, .. } | Move::Expire { leader, .. } => by(leader, 8),
        Move::Claim { leader, .. } => by(leader, 9),
        Move::CollectGarbage { .. } | Move::CreateAgain { .. } => Some(10),
        Move::Ask { .. } => Some(11),
        _ => None,
    }
}
