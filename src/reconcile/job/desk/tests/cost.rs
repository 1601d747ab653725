//! What an event costs, in steps and in memory: never a look at everything.

use super::world::{World, key};
use crate::job::desk::Heard;
use crate::job::desk::entry::Entry;
use crate::job::samples::at;
use patchbay_api::Job;
use serde_json::json;

const JOBS: usize = 10_000;
const ASKS: usize = 200;

/// Steps that one event takes.
fn cost(world: &mut World, heard: Heard<'_>) -> u64 {
    let before = world.desk.jobs.looks.get();
    world
        .desk
        .hear(world.now, world.mono, heard, &mut world.todo);
    world.desk.jobs.looks.get() - before
}

/// Ten thousand jobs for a hundred clients that nobody asks for, and two hundred asks for others.
fn crowd() -> (World, Vec<Job>) {
    let mut world = World::new();
    world.attach(1);
    let mut jobs = Vec::new();
    let mut most = 0;
    for number in 0..JOBS {
        // Neither in order nor in reverse.
        let start = at(-((number * 7919 % JOBS) as i64) - 1).to_string();
        let job = world.make(
            &format!("job-{number:05}"),
            json!({"startTime": start, "target": {"location": format!("client-{}", number % 100)}}),
        );
        most = most.max(cost(&mut world, Heard::Job(&job)));
        jobs.push(job);
    }
    assert!(most <= 100, "a new job took {most} steps");
    for number in 0..ASKS {
        let ask = Heard::Ask {
            session: 1,
            claim_id: format!("ask-{number}"),
            location: Some(format!("nobody-{number}")),
            port: Some("10000".to_owned()),
            hold_ms: 0,
        };
        let steps = cost(&mut world, ask);
        assert!(steps <= 10, "an ask took {steps} steps");
    }
    assert_eq!(world.desk.waiting(), JOBS);
    assert_eq!(world.desk.asks(), ASKS);
    world.idle();
    (world, jobs)
}

#[test]
fn no_event_looks_at_all_jobs_or_all_asks() {
    let (mut world, mut jobs) = crowd();
    assert_eq!(cost(&mut world, Heard::Tick), 0);
    let steps = cost(&mut world, Heard::Job(&jobs[17]));
    assert_eq!(steps, 0, "nothing new took {steps} steps");
    let mut touched = jobs[5_000].clone();
    touched.spec.priority = 9;
    let touched = world.store(touched);
    let steps = cost(&mut world, Heard::Job(&touched));
    assert!(steps <= 150, "an edit took {steps} steps");

    // A job that somebody waits for, its hand-out and its end.
    let wanted = world.make("wanted", json!({"target": {"location": "nobody-7"}}));
    let steps = cost(&mut world, Heard::Job(&wanted));
    assert!(steps <= 40, "a wanted job took {steps} steps");
    let todo = world.only();
    let outcome = world.write(&todo);
    let job = world.name("wanted");
    let claim_id = "ask-7".to_owned();
    let written = Heard::Written {
        job,
        claim_id,
        outcome,
    };
    let steps = cost(&mut world, written);
    assert!(steps <= 40, "a grant took {steps} steps");
    world.todo.clear();

    let gone = jobs.remove(123);
    let gone = Heard::JobGone {
        namespace: "demo",
        name: "job-00123",
        uid: gone.metadata.uid.as_deref().unwrap(),
    };
    let steps = cost(&mut world, gone);
    assert!(steps <= 150, "a deletion took {steps} steps");
    world.desk.check();
}

#[test]
fn a_client_at_its_limit_is_passed_over_in_one_step_however_many_jobs_it_has() {
    let mut world = World::new();
    world.attach(1);
    world.hear(Heard::Plugin {
        key: key(),
        max_running: None,
        max_running_per_client: Some(1),
    });
    for number in 0..JOBS {
        let job = world.make(
            &format!("busy-{number:05}"),
            json!({"target": {"location": "busy"}, "startTime": at(-100).to_string()}),
        );
        cost(&mut world, Heard::Job(&job));
    }
    world.ask(1, "first");
    world.run();
    let other = world.make("other", json!({"startTime": at(-1).to_string()}));
    cost(&mut world, Heard::Job(&other));
    let ask = Heard::Ask {
        session: 1,
        claim_id: "second".to_owned(),
        location: None,
        port: None,
        hold_ms: 0,
    };
    let steps = cost(&mut world, ask);
    assert!(steps <= 20, "passing over took {steps} steps");
    assert_eq!(super::world::claim_of(&world.todo[0]).0.name, "other");
}

#[test]
fn a_waiting_job_is_small() {
    // The entry, its place in the table of names with its spare room, its place in an order or
    // among the timers.
    let entry = size_of::<Option<Entry>>();
    let name = (size_of::<std::sync::Arc<str>>() + size_of::<u32>()) * 2 + 2;
    let place = (size_of::<u32>() * 2).max(size_of::<(i64, u32)>() * 2);
    assert!(entry + name + place <= 400, "{entry} + {name} + {place}");
}
