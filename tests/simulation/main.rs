//! The deterministic simulation: the leader's desk, the sidecar's book and the transitions of a
//! Job, as they are, in a world where everything around them is made up and goes wrong: the API
//! server, the network, clocks, processes, users. One thread per run, no time of its own, and every
//! choice from one seed.
//!
//! `SIM_SEED=n SIM_HANDOUTS=n` runs that again. What a judge finds is judged from the plugins'
//! diaries and the server's history.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clock;
mod faults;
mod judge;
mod leader;
mod pass;
mod plugin;
mod pod;
mod random;
mod run;
mod server;
mod session;
mod users;
mod world;
mod writes;

use faults::Broken;
use judge::Wrong;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn trial(name: &str, run: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let fresh = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let seed = variable("SIM_SEED").unwrap_or(fresh >> 1);
    let hand_outs = variable("SIM_HANDOUTS").unwrap_or(1_000_000);
    let mut trials = vec![
        trial("a_million_hand_outs_break_no_promise", move || {
            run::run(seed, hand_outs)
        }),
        trial("kept_seeds_break_no_promise", run::kept_seeds),
    ];
    for (name, broken, expected) in MISTAKES {
        trials.push(trial(name, move || run::finds(broken, expected)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Drivers with a mistake, and as what it has to be found.
const MISTAKES: [(&str, Broken, &[Wrong]); 9] = [
    (
        "a_ledger_written_after_the_hand_over_is_found",
        Broken::LedgerAfterHandOver,
        &[Wrong::Duplicate, Wrong::Unaccounted],
    ),
    (
        "an_unknown_outcome_taken_for_lost_is_found",
        Broken::UnknownIsLost,
        &[
            Wrong::Duplicate,
            Wrong::NotEnded,
            Wrong::Unaccounted,
            Wrong::Inversion,
        ],
    ),
    (
        "a_conflict_with_oneself_taken_for_lost_is_found",
        Broken::ConflictIsLost,
        &[
            Wrong::Duplicate,
            Wrong::NotEnded,
            Wrong::Unaccounted,
            Wrong::Inversion,
        ],
    ),
    (
        "a_grant_without_a_waiting_ask_is_found",
        Broken::GrantWithoutAsk,
        &[
            Wrong::Duplicate,
            Wrong::WrongClient,
            Wrong::NotEnded,
            Wrong::Unaccounted,
        ],
    ),
    (
        "an_expiry_not_looked_at_again_is_found",
        Broken::ExpiryNotLookedAtAgain,
        &[Wrong::Expired],
    ),
    (
        "a_deadline_ignored_by_the_sidecar_is_found",
        Broken::DeadlineIgnored,
        &[Wrong::Expired],
    ),
    (
        "an_answer_from_an_old_copy_is_found",
        Broken::CopyIsBelieved,
        &[Wrong::NotEnded, Wrong::Duplicate],
    ),
    (
        "an_end_before_its_output_is_found",
        Broken::SucceededBeforeStored,
        &[Wrong::NotStored],
    ),
    (
        "a_request_id_that_is_given_up_is_found",
        Broken::RequestIdGivenUp,
        &[Wrong::NotEnded],
    ),
];
