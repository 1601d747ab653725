//! The deterministic simulation: the leader's dispatcher, the sidecar's claim machine and the transitions of a
//! Job, as they are, in a world where everything around them is made up and goes wrong: the API
//! server, the network, clocks, processes, users. One thread per run, no time of its own, and every
//! choice from one seed.
//!
//! `SIM_SEED=n SIM_HANDOUTS=n` runs that again. What a judge finds is judged from the plugins'
//! diaries and the server's history.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
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

/// Runs the tests that the command line asks for.
pub fn main() -> ExitCode {
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
    for (name, case) in CASES {
        trials.push(trial(name, case));
    }
    for (name, broken, expected) in MISTAKES {
        trials.push(trial(name, move || run::finds(broken, expected)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Case = (&'static str, fn() -> Result<(), String>);

/// Conformance cases by their numbers.
const CASES: [Case; 11] = [
    (
        "pcp_12_and_13_expired_jobs_are_ended_and_not_delivered",
        cases::expired,
    ),
    (
        "pcp_17_two_hundred_sidecars_and_one_job_is_one_delivery",
        cases::one_job,
    ),
    (
        "pcp_18_two_hundred_sidecars_and_a_thousand_jobs_are_a_thousand_deliveries",
        cases::a_thousand_jobs,
    ),
    (
        "pcp_19_a_claim_whose_answer_is_lost_goes_to_the_same_sidecar_once",
        cases::an_answer_that_is_lost,
    ),
    (
        "pcp_20_a_stale_cache_costs_a_conflict_and_the_next_candidate",
        cases::a_stale_copy,
    ),
    (
        "pcp_21_a_plugin_killed_in_its_job_is_no_second_delivery",
        cases::killed_plugins,
    ),
    (
        "pcp_22_a_second_attempt_has_its_own_claim",
        cases::second_attempts,
    ),
    (
        "pcp_23_a_sidecar_killed_in_a_job_loses_and_doubles_nothing",
        cases::killed_sidecars,
    ),
    (
        "pcp_24_a_new_leader_in_the_middle_of_jobs_changes_nothing",
        cases::changes_of_leader,
    ),
    (
        "pcp_37_a_job_made_anew_under_its_name_is_another_one",
        cases::made_anew,
    ),
    (
        "pcp_42_decisions_follow_the_leaders_clock_only",
        cases::the_leaders_clock,
    ),
];

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
            Wrong::OtherClient,
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
