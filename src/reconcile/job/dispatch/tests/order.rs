//! Who gets what, and in which order.

use super::world::{World, answer_no_work, granted};
use crate::job::dispatch::Event;
use crate::job::location::canonical;
use crate::job::samples::at;
use serde_json::json;

fn names(answers: &[super::world::Answer]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| match answer {
            super::world::Answer::Granted { job, .. } => job.clone(),
            super::world::Answer::NoWork { .. } => "nothing".to_owned(),
        })
        .collect()
}

/// What one request for this place gets.
fn got(world: &mut World, client: Option<&str>, port: Option<&str>) -> Vec<String> {
    world.request_for(1, "probe", client, port);
    world.run();
    world.pass(1_000);
    let mut answers = world.run();
    if answers.is_empty() {
        answers = std::mem::take(&mut world.answers);
    }
    names(&answers)
}

#[test]
fn pcp_07_request_with_client_and_port_gets_the_job_for_both() {
    let target = json!({"target": {"client": "10.1.2.3", "port": "10000"}});
    for (client, port, fits) in [
        ("10.1.2.3", "10000", true),
        ("10.1.2.3", "", true),
        ("10.1.2.3", "51515", false),
        ("10.1.2.3", "010000", false),
        ("10.1.2.4", "10000", false),
    ] {
        let mut world = World::new();
        world.attach(1);
        world.job("a", target.clone());
        world.request_for(1, "x", Some(client), Some(port));
        let claimed = !world.effects.is_empty();
        assert_eq!(claimed, fits, "{client} {port}");
        let answers = world.run();
        assert_eq!(answers == [granted("x", "a")], fits);
    }
}

#[test]
fn pcp_08_request_with_client_only_gets_the_same_job() {
    let mut world = World::new();
    world.attach(1);
    world.job(
        "a",
        json!({"target": {"client": "10.1.2.3", "port": "10000"}}),
    );
    world.request_for(1, "x", Some("10.1.2.3"), None);
    assert_eq!(world.run(), [granted("x", "a")]);
}

#[test]
fn pcp_09_an_address_in_another_spelling_is_the_same_client() {
    for spelling in ["::ffff:10.1.2.3", "[::FFFF:a01:203]", "10.1.2.3%eth0"] {
        let mut world = World::new();
        world.attach(1);
        world.job("a", json!({"target": {"client": spelling}}));
        world.request_for(1, "x", Some(&canonical("10.1.2.3")), None);
        assert_eq!(world.run(), [granted("x", "a")], "{spelling}");
    }
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"target": {"client": "Host-A.example"}}));
    world.request_for(1, "x", Some("host-a.EXAMPLE"), None);
    assert_eq!(world.run(), [granted("x", "a")]);
}

#[test]
fn pcp_10_jobs_are_delivered_in_the_order_of_their_start_times() {
    let mut world = World::new();
    world.attach(1);
    for start in [30, 10, 20] {
        let name = format!("at-{start}");
        world.job(&name, json!({"startTime": at(start - 60).to_string()}));
    }
    for id in ["x", "y", "z"] {
        world.request(1, id);
    }
    assert_eq!(
        world.run(),
        [
            granted("x", "at-10"),
            granted("y", "at-20"),
            granted("z", "at-30")
        ]
    );
}

#[test]
fn pcp_11_priority_orders_jobs_with_equal_start_times_only() {
    let mut world = World::new();
    world.attach(1);
    let start = at(-10).to_string();
    world.job("low", json!({"startTime": start, "priority": 1}));
    world.job("high", json!({"startTime": start, "priority": 5}));
    world.job(
        "early",
        json!({"startTime": at(-11).to_string(), "priority": 0}),
    );
    for id in ["x", "y", "z"] {
        world.request(1, id);
    }
    assert_eq!(names(&world.run()), ["early", "high", "low"]);
}

#[test]
fn equal_jobs_are_ordered_by_creation_then_name() {
    let mut world = World::new();
    world.attach(1);
    let start = at(-1).to_string();
    for name in ["c", "a", "b"] {
        world.job(name, json!({"startTime": start}));
    }
    let mut older = world.make("z", json!({"startTime": start}));
    older.metadata.creation_timestamp = Some(crate::job::times::second(at(-3600)));
    let older = world.store(older);
    world.handle(Event::Job(&older));
    for id in ["1", "2", "3", "4"] {
        world.request(1, id);
    }
    assert_eq!(names(&world.run()), ["z", "a", "b", "c"]);
}

#[test]
fn pcp_12_an_expired_job_is_not_delivered() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"expireTime": at(10).to_string()}));
    world.now = at(11);
    world.request(1, "x");
    world.idle();
    world.pass(1_000);
    assert_eq!(world.run(), [answer_no_work("x")]);
}

#[test]
fn pcp_13_at_its_expire_time_a_job_is_not_delivered() {
    for (seconds, delivered) in [(9, true), (10, false)] {
        let mut world = World::new();
        world.attach(1);
        world.job("a", json!({"expireTime": at(10).to_string()}));
        world.now = at(seconds);
        world.request(1, "x");
        assert_eq!(world.run() == [granted("x", "a")], delivered);
    }
}

#[test]
fn pcp_14_waiting_request_gets_the_job_at_its_start_time() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"startTime": at(60).to_string()}));
    world.handle(Event::WorkRequest {
        session: 1,
        claim_id: "x".to_owned(),
        client: None,
        port: None,
        wait_ms: 0,
    });
    world.idle();
    let wake = world.dispatcher.wake_at(world.now, world.mono);
    assert_eq!(wake, Some(world.mono + 60_000));
    world.pass(59_999);
    world.idle();
    world.pass(1);
    assert_eq!(world.run(), [granted("x", "a")]);
}

#[test]
fn pcp_15_jobs_for_other_clients_are_skipped_and_left_alone() {
    let mut world = World::new();
    world.attach(1);
    world.job(
        "b1",
        json!({"target": {"client": "10.0.0.2"}, "startTime": at(-9).to_string()}),
    );
    world.job(
        "a1",
        json!({"target": {"client": "10.0.0.1"}, "startTime": at(-8).to_string()}),
    );
    world.job(
        "a2",
        json!({"target": {"client": "10.0.0.1"}, "startTime": at(-7).to_string()}),
    );
    let before = world.jobs["b1"].clone();
    world.request_for(1, "x", Some("10.0.0.1"), None);
    assert_eq!(world.run(), [granted("x", "a1")]);
    assert_eq!(world.jobs["b1"], before);
    assert_eq!(got(&mut world, Some("10.0.0.3"), None), ["nothing"]);
}

#[test]
fn pcp_16_request_without_a_client_gets_the_earliest_job() {
    let mut world = World::new();
    world.attach(1);
    world.job(
        "b",
        json!({"target": {"client": "10.0.0.2"}, "startTime": at(-8).to_string()}),
    );
    world.job(
        "a",
        json!({"target": {"client": "10.0.0.1"}, "startTime": at(-9).to_string()}),
    );
    world.job("any", json!({"startTime": at(-7).to_string()}));
    for id in ["x", "y", "z"] {
        world.request(1, id);
    }
    assert_eq!(names(&world.run()), ["a", "b", "any"]);
}

#[test]
fn job_for_any_client_is_granted_to_the_first_request() {
    let mut world = World::new();
    world.attach(1);
    world.request_for(1, "x", Some("10.0.0.1"), Some("10000"));
    world.request_for(1, "y", Some("10.0.0.2"), None);
    world.request(1, "z");
    world.job("one", json!({}));
    world.job("two", json!({"target": {"port": "10000"}}));
    world.job("three", json!({"target": {"client": "10.0.0.9"}}));
    assert_eq!(
        world.run(),
        [
            granted("x", "one"),
            granted("y", "two"),
            granted("z", "three")
        ]
    );
}

#[test]
fn job_of_another_plugin_is_not_granted() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"pluginRef": {"name": "other"}}));
    world.request(1, "x");
    world.idle();
    assert_eq!(world.dispatcher.waiting(), 1);
}

#[test]
fn one_job_is_granted_once_to_two_hundred_requests() {
    let mut world = World::new();
    for pod in 0..99 {
        world.attach(pod);
    }
    for request in 0..200 {
        world.request(request % 99, &format!("ask-{request}"));
    }
    world.job("a", json!({}));
    let grants = world.run();
    assert_eq!(grants, [granted("ask-0", "a")]);
    world.pass(1_000);
    let answers = world.run();
    assert_eq!(answers.len(), 199);
    assert!(
        answers
            .iter()
            .all(|a| matches!(a, super::world::Answer::NoWork { .. }))
    );
}

#[test]
fn thousand_jobs_are_granted_once_each_to_two_hundred_requests() {
    let mut world = World::new();
    for pod in 0..99 {
        world.attach(pod);
    }
    for job in 0..1000 {
        world.job(&format!("job-{job:04}"), json!({}));
    }
    let mut delivered = Vec::new();
    for round in 0..5 {
        for request in 0..200 {
            world.request(request % 99, &format!("ask-{round}-{request}"));
        }
        delivered.extend(names(&world.run()));
    }
    let mut sorted = delivered.clone();
    sorted.sort();
    assert_eq!(
        delivered, sorted,
        "the order of names, all else being equal"
    );
    sorted.dedup();
    assert_eq!(sorted.len(), 1000);
}
