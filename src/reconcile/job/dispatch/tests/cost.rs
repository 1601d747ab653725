//! What an event costs, in steps and in memory: never a look at everything.

use super::world::{World, key};
use crate::job::dispatch::Event;
use crate::job::dispatch::entry::JobEntry;
use crate::job::samples::at;
use patchbay_api::Job;
use serde_json::json;

const JOBS: usize = 10_000;
const ASKS: usize = 200;

/// Steps that one event takes.
fn cost(world: &mut World, event: Event<'_>) -> u64 {
    let before = world.dispatcher.jobs.looks.get();
    world
        .dispatcher
        .handle(world.now, world.mono, event, &mut world.effects);
    world.dispatcher.jobs.looks.get() - before
}

/// Ten thousand jobs for a hundred clients that no request is for, and two hundred requests for others.
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
            json!({"startTime": start, "target": {"client": format!("client-{}", number % 100)}}),
        );
        most = most.max(cost(&mut world, Event::Job(&job)));
        jobs.push(job);
    }
    assert!(most <= 100, "a new job took {most} steps");
    for number in 0..ASKS {
        let request = Event::WorkRequest {
            session: 1,
            claim_id: format!("ask-{number}"),
            client: Some(format!("nobody-{number}")),
            port: Some("10000".to_owned()),
            wait_ms: 0,
        };
        let steps = cost(&mut world, request);
        assert!(steps <= 10, "an ask took {steps} steps");
    }
    assert_eq!(world.dispatcher.waiting(), JOBS);
    assert_eq!(world.dispatcher.requests(), ASKS);
    world.idle();
    (world, jobs)
}

#[test]
fn cost_of_an_event_does_not_depend_on_the_number_of_jobs_and_requests() {
    let (mut world, mut jobs) = crowd();
    assert_eq!(cost(&mut world, Event::Tick), 0);
    let steps = cost(&mut world, Event::Job(&jobs[17]));
    assert_eq!(steps, 0, "nothing new took {steps} steps");
    let mut touched = jobs[5_000].clone();
    touched.spec.priority = 9;
    let touched = world.store(touched);
    let steps = cost(&mut world, Event::Job(&touched));
    assert!(steps <= 150, "an edit took {steps} steps");

    // A job that somebody waits for, its dispatch and its end.
    let wanted = world.make("wanted", json!({"target": {"client": "nobody-7"}}));
    let steps = cost(&mut world, Event::Job(&wanted));
    assert!(steps <= 40, "a wanted job took {steps} steps");
    let effects = world.only();
    let outcome = world.write(&effects);
    let job = world.name("wanted");
    let claim_id = "ask-7".to_owned();
    let handle_write_result = Event::WriteFinished {
        job,
        claim_id,
        outcome,
    };
    let steps = cost(&mut world, handle_write_result);
    assert!(steps <= 40, "a grant took {steps} steps");
    world.effects.clear();

    let gone = jobs.remove(123);
    let gone = Event::JobGone {
        namespace: "demo",
        name: "job-00123",
        uid: gone.metadata.uid.as_deref().unwrap(),
    };
    let steps = cost(&mut world, gone);
    assert!(steps <= 150, "a deletion took {steps} steps");
    world.dispatcher.check();
}

#[test]
fn client_at_its_limit_is_skipped_in_one_step() {
    let mut world = World::new();
    world.attach(1);
    world.handle(Event::Plugin {
        key: key(),
        max_running: None,
        max_running_per_client: Some(1),
    });
    for number in 0..JOBS {
        let job = world.make(
            &format!("busy-{number:05}"),
            json!({"target": {"client": "busy"}, "startTime": at(-100).to_string()}),
        );
        cost(&mut world, Event::Job(&job));
    }
    world.request(1, "first");
    world.run();
    let other = world.make("other", json!({"startTime": at(-1).to_string()}));
    cost(&mut world, Event::Job(&other));
    let request = Event::WorkRequest {
        session: 1,
        claim_id: "second".to_owned(),
        client: None,
        port: None,
        wait_ms: 0,
    };
    let steps = cost(&mut world, request);
    assert!(steps <= 20, "passing over took {steps} steps");
    assert_eq!(super::world::claim_of(&world.effects[0]).0.name, "other");
}

#[test]
fn waiting_job_uses_little_memory() {
    // The entry, its place in the table of names with its spare room, its place in an order or
    // among the timers.
    let entry = size_of::<Option<JobEntry>>();
    let name = (size_of::<std::sync::Arc<str>>() + size_of::<u32>()) * 2 + 2;
    let place = (size_of::<u32>() * 2).max(size_of::<(i64, u32)>() * 2);
    assert!(entry + name + place <= 400, "{entry} + {name} + {place}");
}
