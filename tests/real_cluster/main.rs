//! The cluster tier: stories on a real API server, kubelet, containerd and NetworkPolicy enforcer.
//!
//! `tests/run.sh` brings the cluster up, installs the charts as a user would, and starts this
//! program. Stories that leave the installation alone run side by side, each in a namespace of
//! its own; those that break the operator or the API server run one by one afterwards. A cluster
//! that is not ours is spared what kills processes: those stories are counted as skipped.

mod cases;
mod chronicle;
mod commands;
mod job;
mod kills;
mod operator;
mod plugin;
mod sandbox;
mod world;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use world::World;

/// How many stories run side by side: two cores hold a few pods that start at once.
const SIDE_BY_SIDE: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let world = match World::connect() {
        Ok(world) => Arc::new(world),
        Err(why) => {
            eprintln!("cluster tier: {why}");
            return ExitCode::FAILURE;
        }
    };
    arguments.test_threads = Some(SIDE_BY_SIDE);
    let together = libtest_mimic::run(&arguments, trials(&world, cases::side_by_side()));
    arguments.test_threads = Some(1);
    let alone = libtest_mimic::run(&arguments, trials(&world, cases::one_by_one()));
    summary(&[together, alone])
}

fn trials(world: &Arc<World>, cases: Vec<cases::Case>) -> Vec<Trial> {
    cases
        .into_iter()
        .map(|case| {
            let world = Arc::clone(world);
            let skipped = case.violent && world.embedded.is_none();
            Trial::test(case.name, move || {
                world
                    .run(|| (case.story)(Arc::clone(&world)))
                    .map_err(|why| Failed::from(why.0))
            })
            .with_ignored_flag(skipped)
        })
        .collect()
}

fn summary(parts: &[Conclusion]) -> ExitCode {
    let sum = |count: fn(&Conclusion) -> u64| parts.iter().map(count).sum::<u64>();
    let failed = sum(|part| part.num_failed);
    println!(
        "cluster tier: {} passed, {failed} failed, {} skipped",
        sum(|part| part.num_passed),
        sum(|part| part.num_ignored + part.num_filtered_out)
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
