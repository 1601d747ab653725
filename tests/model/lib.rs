//! The claim and completion protocol of Jobs as a model, every reachable state of which is checked.
//!
//! `state.rs` says what there is, `moves.rs` what can happen, `leader.rs`, `sidecar.rs` and
//! `server.rs` what follows from it, `properties.rs` what must hold. `runs.rs` holds the bounds of
//! each run. Every rule of `Broken` made wrong must lead to a counterexample: a checker that finds
//! none there would find none anywhere.
//!
//! The names are those of the protocol. Trust in it ends where the model simplifies: one plugin
//! process works on one job at a time, a job has one row of output, clocks run at one rate, and
//! whoever reads the API server reads its newest version.
//!
//! This is a crate of its own so that it alone is compiled with optimisation; `main.rs` beside it
//! is a test of the crate `patchbay-tests`.

mod ids;
mod job;
mod leader;
mod misfortunes;
mod moves;
mod properties;
mod rules;
mod runs;
mod server;
mod session;
mod sidecar;
mod state;

use crate::moves::Move;
use crate::rules::{Broken, Config, Fault};
use crate::state::{Copied, Diary, Job, Leader, NAMES, Phase, Sidecar, State, Uid};
use libtest_mimic::{Failed, Trial};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The protocol within the bounds of one run, with at most one rule broken.
pub(crate) struct Protocol {
    pub(crate) config: Config,
    pub(crate) broken: Option<Broken>,
    /// The one property that is asked for; all of them when none is named.
    pub(crate) only: Option<&'static str>,
    ended: Mutex<HashSet<u64>>,
}

impl Protocol {
    fn sound(config: Config) -> Protocol {
        Protocol {
            config,
            broken: None,
            only: None,
            ended: Mutex::default(),
        }
    }

    fn broken(config: Config, rule: Broken, hurts: &'static str) -> Protocol {
        Protocol {
            config,
            broken: Some(rule),
            only: Some(hurts),
            ended: Mutex::default(),
        }
    }

    pub(crate) fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    pub(crate) fn allows(&self, kind: Fault) -> bool {
        self.config.kinds.contains(&kind)
    }

    pub(crate) fn names(&self) -> std::ops::Range<usize> {
        0..self.config.jobs.len()
    }

    pub(crate) fn sidecars(&self) -> std::ops::Range<usize> {
        0..self.config.asks_for.len()
    }

    /// States from which every job is known to end.
    pub(crate) fn ended(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let mut jobs = [None; NAMES];
        for (name, location) in self.config.jobs.iter().enumerate() {
            jobs[name] = Some(Job {
                uid: Uid {
                    name: name as u8,
                    generation: 0,
                },
                location: *location,
                phase: Phase::Ready,
                claim: None,
                attempt: 1,
            });
        }
        let sidecar = Sidecar {
            gone: false,
            ledger_epoch: 0,
            ledger: Vec::new(),
            seen: 0,
            ask: None,
            plugin: None,
        };
        let leader = |active: bool| Leader {
            active,
            cache: jobs.map(|job| Copied {
                job: job.filter(|_| active),
                current: active,
            }),
            work: [None; NAMES],
        };
        let mut state = State {
            now: 0,
            jobs,
            outputs: Default::default(),
            leaders: [leader(true), leader(false)],
            sidecars: [sidecar.clone(), sidecar],
            sessions: Default::default(),
            late: Vec::new(),
            faults: self.config.faults,
            diary: Diary::default(),
        };
        // The first leader has attached to every pod, and every plugin asks: no order of these
        // steps matters.
        for sidecar in self.sidecars() {
            self.dial(&mut state, 0, sidecar);
            self.hear(&mut state, 0, sidecar);
            Self::ask(&mut state, sidecar);
            self.hear(&mut state, 0, sidecar);
        }
        vec![state]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        self.regular_moves(state, moves);
        self.misfortunes(state, moves);
    }

    fn next_state(&self, state: &State, this: Move) -> Option<State> {
        self.after(state, this)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

/// Every property holds in every state, and what should be possible was seen.
fn check_run(config: Config) -> Result<(), Failed> {
    let began = Instant::now();
    let checker = Protocol::sound(config.clone())
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{}: {} unique states, depth {}, {:.1} s",
        config.name,
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    let mut trouble = String::new();
    let found = checker.discoveries();
    for property in checker.model().properties() {
        match found.get(property.name) {
            Some(path) if property.expectation.discovery_is_failure() => {
                trouble += &tell(property.name, path.clone().into_actions());
            }
            None if !property.expectation.discovery_is_failure() => {
                trouble += &format!("never seen: {}\n", property.name);
            }
            _ => {}
        }
    }
    if trouble.is_empty() {
        Ok(())
    } else {
        Err(trouble.into())
    }
}

/// A broken rule is found out, by the property that it should hurt.
fn check_broken(rule: Broken, config: Config, hurts: &'static str) -> Result<(), Failed> {
    let checker = Protocol::broken(config, rule, hurts)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries();
    let Some(path) = found.remove(hurts) else {
        let states = checker.unique_state_count();
        return Err(format!("no counterexample to \"{hurts}\" in {states} states").into());
    };
    let moves = path.into_actions();
    println!(
        "{rule:?}: \"{hurts}\" fails after {} moves ({} unique states)",
        moves.len(),
        checker.unique_state_count()
    );
    if std::env::var_os("MODEL_TRACES").is_some() {
        print!("{}", tell(hurts, moves));
    }
    Ok(())
}

fn tell(property: &str, moves: Vec<Move>) -> String {
    let lines: Vec<String> = moves.iter().map(|this| format!("    {this:?}")).collect();
    format!(
        "\"{property}\" fails after {} moves:\n{}\n",
        moves.len(),
        lines.join("\n")
    )
}

/// Every run as a test: `model_…` where all properties must hold, `broken_…` where one must fail.
/// Each uses one thread, so that the shortest counterexample comes out every time.
///
/// The environment variable `MODEL_TRACES` prints the counterexamples move by move; `MODEL_DEEP`
/// allows one misfortune more in every run.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for config in runs::sound() {
        trials.push(Trial::test(format!("model_{}", config.name), move || {
            check_run(config)
        }));
    }
    for (rule, config, hurts) in runs::broken() {
        let name = format!("broken_{rule:?}");
        trials.push(Trial::test(name, move || check_broken(rule, config, hurts)));
    }
    trials
}
