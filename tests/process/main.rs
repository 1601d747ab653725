//! The process tier: real launchers, sidecars and plugins, spoken to as an operator and as client
//! programs do.
//!
//! The launcher is PID 1 of an own pid namespace, as in a pod; everything else of a pod is a
//! folder. `cases/` holds the conformance cases of go-plugin's protocol by their numbers, those of
//! the PCP job queue as far as one pod decides them, and stories of what only several processes
//! together show.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod calls;
mod cases;
mod operator;
mod pod;
mod programs;
mod queue;
mod setup;

use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Every case starts several programs, and some have deadlines.
    arguments.test_threads.get_or_insert(2);
    if !arguments.list && !rustix::process::geteuid().is_root() {
        println!("process tier: skipped, because pid namespaces need root");
        return ExitCode::SUCCESS;
    }
    if !arguments.list
        && let Err(why) = programs::prepare()
    {
        eprintln!("process tier: {why}");
        return ExitCode::FAILURE;
    }
    let passed = Arc::new(AtomicUsize::new(0));
    let numbered = cases::numbered();
    let all = numbered.len();
    let mut trials = Vec::new();
    for case in numbered {
        let passed = Arc::clone(&passed);
        trials.push(Trial::test(case.name, move || {
            run(case);
            passed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }));
    }
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for case in cases::jobs() {
        let answered = Arc::clone(&answered);
        trials.push(Trial::test(case.name, move || {
            run(case);
            answered.lock().unwrap().extend(pcp_number(case.name));
            Ok(())
        }));
    }
    for story in cases::stories() {
        trials.push(Trial::test(story.name, move || {
            run(story);
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let passed = passed.load(Ordering::Relaxed);
    if !arguments.list {
        println!("{passed} of {all} go-plugin cases passed");
        let answered: Vec<String> = answered.lock().unwrap().iter().cloned().collect();
        println!("PCP cases passed here: {}", answered.join(" "));
    }
    let is_whole = conclusion.num_filtered_out == 0 && !arguments.list;
    if conclusion.has_failed() || is_whole && passed < all {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The number in a name such as `pcp_05_a_sentence`.
fn pcp_number(name: &str) -> Option<String> {
    let number = name.strip_prefix("pcp_")?.split('_').next()?;
    Some(number.to_owned())
}

fn run(case: cases::Case) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on((case.story)());
}
