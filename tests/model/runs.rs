//! The bounds of every run: few parties, few misfortunes, but those in every order.

use crate::properties::ENDS;
use crate::rules::{Broken, Config, Fault};

const ONCE: &str = "an attempt is handed over at most once";
const EXPIRY: &str = "nothing is handed over at or after its expiry";
const CLIENT: &str = "a job for one client goes to that client";
const TERMINAL: &str = "nothing leaves a terminal phase";
const STORED: &str = "the output of a succeeded job is stored";
const ANSWERED: &str = "only an answer makes a job succeed";

/// The smallest run; the others are changes of it.
const SMALL: Config = Config {
    name: "small",
    jobs: &[None],
    recreated: None,
    asks_for: &[None],
    at_least_once: false,
    expires: None,
    faults: 2,
    kinds: &[],
    sights: &["a job succeeds"],
};

/// Two operators believe that they lead, with writes that arrive late and watches that lag.
const LEADERS: Config = Config {
    name: "two_leaders",
    asks_for: &[None, None],
    faults: 2,
    kinds: &[Fault::NewLeader, Fault::SessionBreaks, Fault::AnswerLost, Fault::WriteDelayed],
    sights: &["a job succeeds", "two leaders attend to one pod"],
    ..SMALL
};

/// Sidecars, plugins and volumes go and come.
const CRASHES: Config = Config {
    name: "crashes",
    faults: 3,
    kinds: &[
        Fault::NewLeader,
        Fault::SidecarCrash,
        Fault::VolumeLost,
        Fault::PluginCrash,
        Fault::SessionBreaks,
        Fault::Cancel,
    ],
    sights: &["a job succeeds", "a plugin is lost", "a job is cancelled"],
    ..SMALL
};

/// A second attempt, also while the first holder lives behind a partition.
const RETRIES: Config = Config {
    name: "retries",
    asks_for: &[None, None],
    at_least_once: true,
    faults: 2,
    kinds: &[Fault::PluginCrash, Fault::VolumeLost, Fault::PodGone, Fault::SidecarCrash],
    sights: &["a job succeeds", "a plugin is lost", "the second attempt succeeds"],
    ..SMALL
};

/// A job expires somewhere between listing and hand-over.
const EXPIRY_RUN: Config = Config {
    name: "expiry",
    expires: Some((2, 3)),
    faults: 2,
    kinds: &[
        Fault::SidecarCrash,
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::AskWithdrawn,
        Fault::NewLeader,
    ],
    sights: &["a job succeeds", "a job expires"],
    ..SMALL
};

/// A Job is deleted and created again for another client.
const RECREATED: Config = Config {
    name: "created_again",
    jobs: &[Some(0)],
    recreated: Some(1),
    asks_for: &[Some(0), Some(1)],
    faults: 2,
    kinds: &[Fault::Recreate, Fault::SessionBreaks, Fault::NewLeader, Fault::WriteDelayed],
    sights: &["a job succeeds", "a job created again succeeds"],
    ..SMALL
};

/// Two jobs for two clients.
const CLIENTS: Config = Config {
    name: "clients",
    jobs: &[Some(0), None],
    asks_for: &[Some(0), Some(1)],
    faults: 1,
    kinds: &[Fault::SessionBreaks, Fault::AnswerLost, Fault::WriteDelayed, Fault::AskWithdrawn],
    ..SMALL
};

/// Runs in which every property must hold.
pub(crate) fn sound() -> Vec<Config> {
    vec![LEADERS, CRASHES, RETRIES, EXPIRY_RUN, RECREATED, CLIENTS]
}

/// Each broken rule, where it is found out, and what it hurts.
pub(crate) fn broken() -> Vec<(Broken, Config, &'static str)> {
    vec![
        (Broken::ClaimWithoutVersion, LEADERS, ONCE),
        (Broken::UnknownIsLost, LEADERS, ENDS),
        (Broken::ConflictIsLost, LEADERS, ENDS),
        (Broken::RetryWithoutMatching, RECREATED, CLIENT),
        (Broken::LedgerAfterHandOver, CRASHES, ONCE),
        (Broken::LedgerEpochIgnored, CRASHES, ONCE),
        (Broken::HelloBelieved, LEADERS, ONCE),
        (Broken::FormerSessionHeard, LEADERS, ONCE),
        (Broken::ReleaseWithoutClaimId, LEADERS, ONCE),
        (Broken::ReleaseOnBreak, LEADERS, ONCE),
        (Broken::HandOverPastDeadline, EXPIRY_RUN, EXPIRY),
        (Broken::DeadlineFromArrival, EXPIRY_RUN, EXPIRY),
        (Broken::ExpiryAtListing, EXPIRY_RUN, EXPIRY),
        (Broken::RepeatWithoutDeadline, EXPIRY_RUN, EXPIRY),
        (Broken::ClientForgets, CRASHES, ENDS),
        (Broken::CompleteByName, RECREATED, ANSWERED),
        (Broken::CompleteBeforeOutput, CRASHES, STORED),
        (Broken::OutputOfAnother, RECREATED, STORED),
        (Broken::GoneByCache, LEADERS, ONCE),
        (Broken::TerminalIgnored, CRASHES, TERMINAL),
    ]
}
