//! Jobs whose time has come before their plugin has said whether it takes them.

use super::world::{World, granted, key};
use crate::job::dispatch::Event;
use crate::job::samples::at;
use crate::job::transition::{accept, cancel, refuse, suspend, wait};
use patchbay_api::{Job, Reason};
use serde_json::{Value, json};

/// A Job that waits for its plugin to come up.
fn pending_acceptance(world: &mut World, name: &str, spec: Value) -> Job {
    let mut job = world.make(name, spec);
    job.status = None;
    job.status = wait(&job, Reason::PluginNotReady, "not up yet", world.now).ok();
    let job = world.store(job);
    world.handle(Event::Job(&job));
    job
}

/// The verdict: its plugin takes it.
fn accepted(world: &mut World, name: &str) {
    let job = world.change(name, accept);
    world.handle(Event::Job(&job));
}

fn from(seconds: i64) -> Value {
    json!({"startTime": at(seconds).to_string()})
}

/// A request that stands until it is cancelled.
fn stand(world: &mut World, id: &str, client: Option<&str>) {
    world.handle(Event::WorkRequest {
        session: 1,
        claim_id: id.to_owned(),
        client: client.map(str::to_owned),
        port: None,
        wait_ms: 0,
    });
}

/// A job that is not accepted stands before an accepted one, in the way of the request `x`.
fn in_the_way(spec: Value) -> World {
    let mut world = World::new();
    world.attach(1);
    pending_acceptance(&mut world, "first", spec);
    world.job("second", from(-10));
    stand(&mut world, "x", None);
    world.idle();
    world
}

#[test]
fn order_of_acceptance_does_not_change_the_order_of_grants() {
    let mut world = World::new();
    pending_acceptance(&mut world, "a", from(-30));
    pending_acceptance(&mut world, "b", from(-20));
    // Nobody has looked at this one at all.
    let mut new = world.make("c", from(-10));
    new.status = None;
    let new = world.store(new);
    world.handle(Event::Job(&new));
    world.attach(1);
    for id in ["x", "y", "z"] {
        world.request(1, id);
    }
    for name in ["c", "b"] {
        accepted(&mut world, name);
        world.idle();
    }
    assert_eq!(world.dispatcher.waiting(), 2);
    accepted(&mut world, "a");
    assert_eq!(
        world.run(),
        [granted("x", "a"), granted("y", "b"), granted("z", "c")]
    );
}

#[test]
fn all_blocked_requests_continue_when_the_job_is_accepted() {
    let mut world = World::new();
    world.attach(1);
    pending_acceptance(&mut world, "first", from(-90));
    for place in ["10.0.0.1", "10.0.0.2"] {
        world.job(place, json!({"target": {"client": place}}));
        stand(&mut world, &format!("for-{place}"), Some(place));
    }
    world.job("any", json!({"target": {"client": "10.0.0.3"}}));
    stand(&mut world, "for-any", None);
    world.idle();
    accepted(&mut world, "first");
    let answers = world.run();
    assert_eq!(answers.len(), 3);
    for (request, job) in [
        ("for-10.0.0.1", "first"),
        ("for-10.0.0.2", "10.0.0.2"),
        ("for-any", "10.0.0.1"),
    ] {
        assert!(answers.contains(&granted(request, job)), "{answers:?}");
    }
}

#[test]
fn pending_job_is_skipped_after_five_seconds() {
    let mut world = in_the_way(from(-20));
    let wake = world.dispatcher.wake_at(world.now, world.mono);
    assert_eq!(wake, Some(world.mono + 5_000));
    world.pass(4_999);
    world.idle();
    world.pass(1);
    assert_eq!(world.run(), [granted("x", "second")]);
    assert_eq!(world.dispatcher.wake_at(world.now, world.mono), None);
    // It blocks nobody again until there is news, and then it is as good as any.
    world.job("third", from(-5));
    stand(&mut world, "y", None);
    assert_eq!(world.run(), [granted("y", "third")]);
    world.job("fourth", from(-4));
    accepted(&mut world, "first");
    stand(&mut world, "z", None);
    assert_eq!(world.run(), [granted("z", "first")]);
}

#[test]
fn many_pending_jobs_delay_no_longer_than_one() {
    let mut world = World::new();
    world.attach(1);
    for name in ["a", "b", "c"] {
        pending_acceptance(&mut world, name, from(-20));
    }
    world.pass(1_000);
    world.job("second", from(-10));
    stand(&mut world, "x", None);
    world.pass(1_000);
    // It has not had the time that the others had.
    pending_acceptance(&mut world, "d", from(-15));
    world.pass(4_000);
    world.idle();
    world.pass(5_000);
    assert_eq!(world.run(), [granted("x", "second")]);
}

#[test]
fn pending_time_counts_from_the_first_request() {
    let mut world = World::new();
    world.attach(1);
    pending_acceptance(&mut world, "first", from(-20));
    world.job("second", from(-10));
    assert_eq!(world.dispatcher.wake_at(world.now, world.mono), None);
    assert_eq!(world.dispatcher.waiting(), 1);
    world.pass(60_000);
    stand(&mut world, "x", None);
    world.idle();
    accepted(&mut world, "first");
    assert_eq!(world.run(), [granted("x", "first")]);
    assert_eq!(world.dispatcher.wake_at(world.now, world.mono), None);
}

#[test]
fn refused_cancelled_or_suspended_job_blocks_no_request() {
    let mut world = in_the_way(from(-20));
    let job = world.change("first", |job, now| {
        refuse(job, Reason::UnknownCommand, "no such command", now)
    });
    world.handle(Event::Job(&job));
    assert_eq!(world.run(), [granted("x", "second")]);

    let mut world = in_the_way(from(-20));
    let job = world.change("first", cancel);
    world.handle(Event::Job(&job));
    assert_eq!(world.run(), [granted("x", "second")]);

    let mut world = in_the_way(from(-20));
    let mut job = world.jobs["first"].clone();
    job.spec.suspend = true;
    let mut job = world.store(job);
    world.handle(Event::Job(&job));
    assert_eq!(world.run(), [granted("x", "second")]);
    job.status = suspend(&job, world.now).ok();
    let job = world.store(job);
    world.handle(Event::Job(&job));

    let mut world = in_the_way(from(-20));
    let mut job = world.jobs["first"].clone();
    job.metadata.deletion_timestamp = job.metadata.creation_timestamp.clone();
    let job = world.store(job);
    world.handle(Event::Job(&job));
    assert_eq!(world.run(), [granted("x", "second")]);

    let mut world = in_the_way(from(-20));
    let name = world.name("first");
    world.handle(Event::JobGone {
        namespace: &name.namespace,
        name: &name.name,
        uid: &name.uid,
    });
    assert_eq!(world.run(), [granted("x", "second")]);
}

#[test]
fn expired_pending_job_blocks_no_request() {
    let spec = json!({"startTime": at(-20).to_string(), "expireTime": at(2).to_string()});
    let mut world = in_the_way(spec);
    let wake = world.dispatcher.wake_at(world.now, world.mono);
    assert_eq!(wake, Some(world.mono + 2_000));
    world.pass(2_000);
    assert_eq!(world.run(), [granted("x", "second")]);
    assert_eq!(world.dispatcher.wake_at(world.now, world.mono), None);
}

#[test]
fn pending_job_blocks_no_request_before_its_start() {
    let mut world = in_the_way(from(-20));
    world.now = at(-15);
    // The clock was set back: by it the first is due and the second is not.
    world.handle(Event::Tick);
    world.idle();
    world.now = at(-25);
    world.handle(Event::Tick);
    world.job("older", from(-100));
    assert_eq!(world.run(), [granted("x", "older")]);
    stand(&mut world, "y", None);
    world.now = at(-20);
    world.handle(Event::Tick);
    world.job("third", from(-21));
    assert_eq!(world.run(), [granted("y", "third")]);
}

#[test]
fn pending_job_does_not_block_other_clients() {
    let mut world = World::new();
    world.attach(1);
    let target = |place: &str, port: &str, start: i64| {
        json!({
            "target": {"client": place, "port": port},
            "startTime": at(start).to_string()
        })
    };
    pending_acceptance(&mut world, "a1", target("10.0.0.1", "1", -30));
    world.job("a2", target("10.0.0.1", "2", -20));
    world.job("b", target("10.0.0.2", "1", -10));
    world.request_for(1, "b", Some("10.0.0.2"), None);
    assert_eq!(world.run(), [granted("b", "b")]);
    world.request_for(1, "port", Some("10.0.0.1"), Some("2"));
    assert_eq!(world.run(), [granted("port", "a2")]);
    world.job("c", target("10.0.0.3", "1", -10));
    // A request for any job waits.
    stand(&mut world, "any", None);
    world.idle();
    accepted(&mut world, "a1");
    assert_eq!(world.run(), [granted("any", "a1")]);
}

#[test]
fn client_at_its_limit_blocks_no_request() {
    let mut world = World::new();
    world.attach(1);
    let target =
        |start: i64| json!({"target": {"client": "busy"}, "startTime": at(start).to_string()});
    pending_acceptance(&mut world, "first", target(-90));
    world.job("other", json!({}));
    stand(&mut world, "x", None);
    world.idle();
    // By another leader, while the request waits.
    world.handle(Event::Plugin {
        key: key(),
        max_running: None,
        max_running_per_client: Some(1),
    });
    world.idle();
    let mut claimed = world.make("held", target(-40));
    let choice = crate::job::samples::choice("elsewhere");
    claimed.status = crate::job::transition::claim(&claimed, &choice, world.now).ok();
    let claimed = world.store(claimed);
    world.handle(Event::Job(&claimed));
    assert_eq!(world.run(), [granted("x", "other")]);
}
