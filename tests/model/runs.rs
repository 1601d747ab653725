//! The bounds of every run: few parties, few misfortunes, but those in every order.

use crate::properties::{ANSWERED, CLIENT, ENDS, EXPIRY, KEPT, ONCE, STORED, TERMINAL};
use crate::rules::{Broken, Config, Fault};

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
const TWO_LEADERS: Config = Config {
    name: "two_leaders",
    faults: 3,
    kinds: &[
        Fault::NewLeader,
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::WriteDelayed,
        Fault::AskWithdrawn,
        Fault::Cancel,
    ],
    sights: &[
        "a job succeeds",
        "a job is cancelled",
        "two leaders attend to one pod",
    ],
    ..SMALL
};

/// The same with two pods that want the job.
const TWO_PODS: Config = Config {
    name: "two_pods",
    asks_for: &[None, None],
    faults: 2,
    kinds: &[Fault::NewLeader, Fault::AnswerLost, Fault::WriteDelayed],
    sights: &["a job succeeds", "two leaders attend to one pod"],
    ..SMALL
};

/// Sidecars, plugins and volumes go and come under one leader.
const CRASHES: Config = Config {
    name: "crashes",
    faults: 4,
    kinds: &[
        Fault::SidecarCrash,
        Fault::VolumeLost,
        Fault::PluginCrash,
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::WriteDelayed,
        Fault::Cancel,
    ],
    sights: &["a job succeeds", "a plugin is lost", "a job is cancelled"],
    ..SMALL
};

/// And under two.
const CRASHES_TWO_LEADERS: Config = Config {
    name: "crashes_two_leaders",
    faults: 2,
    kinds: &[
        Fault::NewLeader,
        Fault::SidecarCrash,
        Fault::VolumeLost,
        Fault::PluginCrash,
        Fault::SessionBreaks,
    ],
    sights: &[
        "a job succeeds",
        "a plugin is lost",
        "two leaders attend to one pod",
    ],
    ..SMALL
};

/// A second attempt, also while the first holder lives behind a partition.
const RETRIES: Config = Config {
    name: "retries",
    asks_for: &[None, None],
    at_least_once: true,
    kinds: &[
        Fault::PluginCrash,
        Fault::VolumeLost,
        Fault::PodGone,
        Fault::SidecarCrash,
    ],
    sights: &[
        "a job succeeds",
        "a plugin is lost",
        "the second attempt succeeds",
    ],
    ..SMALL
};

/// A job expires somewhere between listing and hand-over.
const EXPIRES: Config = Config {
    name: "expiry",
    expires: Some((2, 3)),
    faults: 3,
    kinds: &[
        Fault::SidecarCrash,
        Fault::PluginCrash,
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::WriteDelayed,
        Fault::AskWithdrawn,
    ],
    sights: &["a job succeeds", "a job expires"],
    ..SMALL
};

/// And under two leaders.
const EXPIRES_TWO_LEADERS: Config = Config {
    name: "expiry_two_leaders",
    expires: Some((2, 3)),
    kinds: &[Fault::NewLeader, Fault::AnswerLost],
    sights: &[
        "a job succeeds",
        "a job expires",
        "two leaders attend to one pod",
    ],
    ..SMALL
};

/// A Job is deleted and created again, for another client.
const RECREATED: Config = Config {
    name: "created_again",
    jobs: &[Some(0)],
    recreated: Some(1),
    asks_for: &[Some(0), Some(1)],
    faults: 3,
    kinds: &[
        Fault::Recreate,
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::WriteDelayed,
        Fault::SidecarCrash,
    ],
    sights: &["a job succeeds", "a job created again succeeds"],
    ..SMALL
};

/// And under two leaders, of which one may not have heard of it.
const RECREATED_TWO_LEADERS: Config = Config {
    name: "created_again_two_leaders",
    kinds: &[Fault::Recreate, Fault::NewLeader],
    sights: &[
        "a job created again succeeds",
        "two leaders attend to one pod",
    ],
    ..SMALL
};

/// Two jobs, one of them for one of two clients.
const CLIENTS: Config = Config {
    name: "clients",
    jobs: &[Some(0), None],
    asks_for: &[Some(0), Some(1)],
    faults: 1,
    kinds: &[
        Fault::SessionBreaks,
        Fault::AnswerLost,
        Fault::WriteDelayed,
        Fault::AskWithdrawn,
    ],
    ..SMALL
};

/// Runs in which every property must hold. With `MODEL_DEEP` each of them has one misfortune more,
/// which takes minutes to an hour each and gigabytes of memory.
pub(crate) fn sound() -> Vec<Config> {
    let mut all = vec![
        TWO_LEADERS,
        TWO_PODS,
        CRASHES,
        CRASHES_TWO_LEADERS,
        RETRIES,
        EXPIRES,
        EXPIRES_TWO_LEADERS,
        RECREATED,
        RECREATED_TWO_LEADERS,
        CLIENTS,
    ];
    if std::env::var_os("MODEL_DEEP").is_some() {
        all.iter_mut().for_each(|config| config.faults += 1);
    }
    all
}

/// Each broken rule, where it is found out, and what it hurts.
pub(crate) fn broken() -> Vec<(Broken, Config, &'static str)> {
    vec![
        (Broken::ClaimWithoutVersion, TWO_PODS, ONCE),
        (Broken::UnknownIsLost, TWO_LEADERS, ENDS),
        (Broken::ConflictIsLost, TWO_LEADERS, ENDS),
        (Broken::RetryWithoutMatching, RECREATED, CLIENT),
        (Broken::LedgerAfterHandOver, CRASHES, ONCE),
        (Broken::LedgerEpochIgnored, CRASHES, ONCE),
        (Broken::HelloBelieved, CRASHES_TWO_LEADERS, ONCE),
        (Broken::SessionEpochBelieved, CRASHES_TWO_LEADERS, KEPT),
        (Broken::FormerSessionHeard, CRASHES_TWO_LEADERS, ONCE),
        (Broken::ReleaseWithoutClaimId, RETRIES, ONCE),
        (Broken::ReleaseOnBreak, CRASHES, ONCE),
        (Broken::HandOverPastDeadline, EXPIRES, EXPIRY),
        (Broken::DeadlineFromArrival, EXPIRES, EXPIRY),
        (Broken::ExpiryAtListing, EXPIRES, EXPIRY),
        (Broken::RepeatWithoutDeadline, EXPIRES, EXPIRY),
        (Broken::ClientForgets, CRASHES, ENDS),
        (Broken::CompleteByName, RECREATED, ANSWERED),
        (Broken::CompleteBeforeOutput, CRASHES, STORED),
        (Broken::OutputOfAnother, RECREATED_TWO_LEADERS, STORED),
        (Broken::GoneByCache, CRASHES_TWO_LEADERS, ONCE),
        (Broken::TerminalIgnored, CRASHES, TERMINAL),
    ]
}
