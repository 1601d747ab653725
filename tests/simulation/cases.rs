//! Conformance cases of the PCP job queue that are about many sidecars, faults and clocks.

use crate::faults::Faults;
use crate::server::Plan;
use crate::world::{MS, SECOND, Setting, World};

/// A world without faults: this many pods with one worker each, and no jobs.
fn world(seed: u64, pods: usize, faults: Faults) -> World {
    let setting = Setting {
        pods: vec![vec![1; pods]],
        clients: Vec::new(),
        ports: Vec::new(),
        per_client: vec![None],
        crowd: 0,
        work_ms: 2,
        faults,
        broken: None,
    };
    let mut world = World::new(seed, setting);
    world.run(2 * SECOND, |_| false);
    world
}

/// Everything ends, and nothing was wrong.
fn ends(mut world: World) -> Result<World, String> {
    world.peace();
    match world.judge.found.first() {
        None => Ok(world),
        Some(found) => Err(format!("{found:?}")),
    }
}

fn expect(what: &str, is: u64, wanted: u64) -> Result<(), String> {
    if is == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {is}, not {wanted}"))
    }
}

fn count(world: &World, what: &str) -> u64 {
    world.counts.get(what).copied().unwrap_or(0)
}

pub fn one_job() -> Result<(), String> {
    for seed in 1..=5 {
        let mut world = world(seed, 200, Faults::default());
        world.create(&Plan::default());
        world.run(2 * SECOND, |_| false);
        let world = ends(world)?;
        expect("deliveries", world.judge.deliveries, 1)?;
        // One burst of asks costs one write of a claim, not two hundred.
        expect(
            "claims lost",
            count(&world, "claims lost to somebody else"),
            0,
        )?;
    }
    Ok(())
}

pub fn a_thousand_jobs() -> Result<(), String> {
    for seed in 1..=3 {
        let mut world = world(seed, 200, Faults::default());
        for _ in 0..1_000 {
            world.create(&Plan::default());
        }
        let world = ends(world)?;
        expect("deliveries", world.judge.deliveries, 1_000)?;
        expect("jobs delivered", world.judge.jobs_delivered() as u64, 1_000)?;
    }
    Ok(())
}

/// Every claim's answer is lost after the commit: the same sidecar gets the job, once.
pub fn an_answer_that_is_lost() -> Result<(), String> {
    let faults = Faults {
        lost_after: 0.5,
        ..Faults::default()
    };
    for seed in 1..=10 {
        let mut world = world(seed, 3, faults.clone());
        for _ in 0..20 {
            world.create(&Plan::default());
        }
        world.run(60 * SECOND, |world| world.open == 0);
        let world = ends(world)?;
        expect("deliveries", world.judge.deliveries, 20)?;
        expect("releases", count(&world, "releases"), 0)?;
        if count(&world, "outcomes read back") == 0 {
            return Err("no answer was lost".to_owned());
        }
    }
    Ok(())
}

/// A second leader with a watch that stands still chooses what the first has handed out: a
/// conflict, and the next candidate.
pub fn a_stale_copy() -> Result<(), String> {
    let (mut conflicts, mut seeds) = (0, 0);
    for seed in 1..=10 {
        let mut world = world(seed, 4, Faults::default());
        world.setting.work_ms = 200;
        for leader in 0..world.leaders.len() {
            world.leaders[leader].deaf_until = world.now + 400 * MS;
        }
        let made: Vec<u32> = (0..8).map(|_| world.create(&Plan::default())).collect();
        // Somebody accepts and suspends the first of them while the leader does not see it.
        world.run(500 * MS, |world| world.judge.deliveries >= 1);
        for leader in 0..world.leaders.len() {
            world.leaders[leader].deaf_until = world.now + SECOND;
        }
        for name in &made {
            let commit = world.server.suspend(*name, true);
            world.committed(commit);
        }
        world.run(2 * SECOND, |_| false);
        world.resume_all();
        let world = ends(world)?;
        expect("deliveries", world.judge.deliveries, 8)?;
        conflicts += count(&world, "claims lost to somebody else");
        seeds += 1;
    }
    if conflicts == 0 {
        return Err(format!("no conflict in {seeds} runs"));
    }
    Ok(())
}

/// Expired jobs are ended and never handed over, by the leader's clock alone.
pub fn expired() -> Result<(), String> {
    let mut world = world(1, 3, Faults::default());
    let (now, past) = (world.now, world.now - SECOND);
    let over = world.create(&Plan {
        start: Some(0),
        expire: Some(past),
        ..Plan::default()
    });
    let just = world.create(&Plan {
        start: Some(0),
        expire: Some(now),
        ..Plan::default()
    });
    let world = ends(world)?;
    for name in [over, just] {
        let reason = world.server.objects[&name]
            .status
            .as_ref()
            .map(|s| s.reason.clone());
        if reason.as_deref() != Some("Expired") {
            return Err(format!("job {name} ended as {reason:?}"));
        }
    }
    expect("deliveries", world.judge.deliveries, 0)
}

/// The leader's clock is 90 s ahead of the nodes': what it takes to have come has come.
pub fn the_leaders_clock() -> Result<(), String> {
    for ahead in [90 * SECOND as i64, -(90 * SECOND as i64)] {
        let mut world = world(
            2,
            3,
            Faults {
                drift: 100,
                ..Faults::default()
            },
        );
        for leader in &mut world.leaders {
            leader.wall.ahead = ahead;
        }
        let leaders = |after: i64| (world_now(&world) + ahead + after).max(0) as u64;
        let soon = Plan {
            start: Some(leaders(SECOND as i64)),
            expire: Some(leaders(3 * SECOND as i64)),
            ..Plan::default()
        };
        let over = Plan {
            start: Some(0),
            expire: Some(leaders(-1)),
            ..Plan::default()
        };
        let (soon, over) = match ahead > 0 {
            true => (world.create(&soon), world.create(&over)),
            // Before the run began there is no time to write into a plan.
            false => (
                world.create(&Plan {
                    start: Some(0),
                    ..Plan::default()
                }),
                0,
            ),
        };
        let early = world.judge.deliveries;
        world.run(500 * MS, |_| false);
        if ahead > 0 {
            expect(
                "deliveries before the leader's time",
                world.judge.deliveries,
                early,
            )?;
        }
        world.run(if ahead > 0 { SECOND } else { 95 * SECOND }, |_| false);
        expect(
            "deliveries at the leader's time",
            world.judge.deliveries,
            early + 1,
        )?;
        let world = ends(world)?;
        let reason = |name: u32| {
            world.server.objects[&name]
                .status
                .as_ref()
                .map(|s| s.reason.clone())
                .unwrap_or_default()
        };
        if over != 0 && reason(over) != "Expired" || reason(soon) == "Expired" {
            return Err(format!("{} and {}", reason(soon), reason(over)));
        }
    }
    Ok(())
}

fn world_now(world: &World) -> i64 {
    world.now as i64
}

/// Plugins are killed in the middle of jobs that may be given once: each ends, none goes out again.
pub fn killed_plugins() -> Result<(), String> {
    let faults = Faults {
        plugin_killed: 0.2,
        ..Faults::default()
    };
    lives(faults, false, "plugins killed")
}

/// Sidecars are killed in the middle of jobs: these go on, and no row comes twice.
pub fn killed_sidecars() -> Result<(), String> {
    let faults = Faults {
        sidecar_killed: 0.05,
        crash: 0.002,
        ..Faults::default()
    };
    lives(faults, false, "sidecars killed")
}

/// A second attempt has a claim of its own, and comes only after the first is over.
pub fn second_attempts() -> Result<(), String> {
    let faults = Faults {
        plugin_killed: 0.2,
        sidecar_killed: 0.02,
        ..Faults::default()
    };
    lives(faults, true, "plugins killed")
}

/// One leader after the other, while everything is busy.
pub fn changes_of_leader() -> Result<(), String> {
    let faults = Faults {
        leader_change: 0.1,
        late_hello: 0.2,
        reign: 5 * SECOND,
        ..Faults::default()
    };
    lives(faults, false, "changes of leader")
}

/// Jobs that are deleted and made anew under their names while plugins have them.
pub fn made_anew() -> Result<(), String> {
    let mut world = world(
        5,
        4,
        Faults {
            drift: 0,
            ..Faults::default()
        },
    );
    world.setting.work_ms = 100;
    for round in 0..40 {
        let name = world.create(&Plan::default());
        let uid = crate::server::uid_of(&world.server.objects[&name]).to_owned();
        world.run(60 * SECOND, |world| world.judge.has_reached_a_plugin(&uid));
        world.delete(name);
        world.create_as(
            name,
            &Plan {
                priority: round,
                ..Plan::default()
            },
        );
    }
    let world = ends(world)?;
    expect("deliveries", world.judge.deliveries, 80)
}

fn lives(faults: Faults, again: bool, least: &str) -> Result<(), String> {
    for seed in 1..=5 {
        let mut world = world(seed, 6, faults.clone());
        world.setting.work_ms = 100;
        for _ in 0..300 {
            let plan = Plan {
                at_least_once: again,
                backoff_limit: if again { 2 } else { 0 },
                ..Plan::default()
            };
            world.create(&plan);
        }
        world.run(120 * SECOND, |world| world.open == 0);
        let world = ends(world)?;
        if count(&world, least) == 0 {
            return Err(format!("{least}: never"));
        }
    }
    Ok(())
}
