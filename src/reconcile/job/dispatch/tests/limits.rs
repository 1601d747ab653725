//! How much at a time.

use super::world::{Answer, World, answer_no_work, granted, key};
use crate::job::dispatch::{DispatchLimits, Effect, Event};
use crate::job::transition::{Loss, lose};
use serde_json::json;

fn limit(world: &mut World, most: Option<u32>, per_client: Option<u32>) {
    world.handle(Event::Plugin {
        key: key(),
        max_running: most,
        max_running_per_client: per_client,
    });
}

fn finish_run(world: &mut World, name: &str) {
    let loss = Loss {
        message: "over".to_owned(),
        exit: None,
    };
    let over = world.change(name, |job, now| lose(job, None, &loss, now, 0.0));
    world.handle(Event::Job(&over));
}

#[test]
fn plugin_never_exceeds_max_running() {
    let mut world = World::new();
    world.attach(1);
    limit(&mut world, Some(2), None);
    for name in ["a", "b", "c", "d"] {
        world.job(name, json!({}));
        world.request(1, &format!("for-{name}"));
    }
    assert_eq!(world.run(), [granted("for-a", "a"), granted("for-b", "b")]);
    finish_run(&mut world, "a");
    assert_eq!(world.run(), [granted("for-c", "c")]);
    limit(&mut world, None, None);
    assert_eq!(world.run(), [granted("for-d", "d")]);
}

#[test]
fn client_never_exceeds_its_limit_and_other_clients_continue() {
    let mut world = World::new();
    world.attach(1);
    limit(&mut world, None, Some(1));
    for name in ["a1", "a2", "b1"] {
        let client = &name[..1];
        world.job(name, json!({"target": {"client": client}}));
    }
    world.request(1, "x");
    world.request(1, "y");
    world.request(1, "z");
    assert_eq!(world.run(), [granted("x", "a1"), granted("y", "b1")]);
    world.request_for(1, "w", Some("a"), None);
    world.idle();
    finish_run(&mut world, "a1");
    // The one that waited longer.
    assert_eq!(world.run(), [granted("z", "a2")]);
}

#[test]
fn job_for_any_client_counts_for_the_client_that_took_it() {
    let mut world = World::new();
    world.attach(1);
    limit(&mut world, None, Some(1));
    world.job("any1", json!({}));
    world.job("any2", json!({}));
    world.request_for(1, "x", Some("a"), None);
    world.request_for(1, "y", Some("a"), None);
    assert_eq!(world.run(), [granted("x", "any1")]);
    world.request_for(1, "z", Some("b"), None);
    assert_eq!(world.run(), [granted("z", "any2")]);
    finish_run(&mut world, "any1");
    world.job("any3", json!({}));
    assert_eq!(world.run(), [granted("y", "any3")]);
}

#[test]
fn claims_in_flight_are_limited_in_total_and_per_plugin() {
    let mut world = World::with(DispatchLimits {
        claims_in_flight: 3,
        claims_in_flight_per_plugin: 2,
        requests_per_pod: 100,
    });
    world.attach(1);
    for number in 0..5 {
        world.job(&format!("job-{number}"), json!({}));
        world.request(1, &format!("ask-{number}"));
    }
    assert_eq!(world.effects.len(), 2);
    assert_eq!(world.dispatcher.in_flight(), 2);
    // Each that lands makes room for one, in order.
    let answers = world.run();
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[0], granted("ask-0", "job-0"));
    assert_eq!(answers[4], granted("ask-4", "job-4"));
}

#[test]
fn plugin_queues_take_turns_when_claims_in_flight_are_limited() {
    let mut world = World::with(DispatchLimits {
        claims_in_flight: 1,
        claims_in_flight_per_plugin: 1,
        requests_per_pod: 100,
    });
    let mut pods = Vec::new();
    for (session, plugin) in [(1, "scraper"), (2, "other")] {
        world.handle(Event::Attached {
            session,
            pod: crate::job::dispatch::DialedPod {
                plugin: crate::job::dispatch::PluginRefKey {
                    namespace: "demo".to_owned(),
                    name: plugin.to_owned(),
                },
                pod: format!("{plugin}-0-1"),
                uid: format!("uid-of-{plugin}"),
            },
            ledger_epoch: "epoch".to_owned(),
            ledger: Vec::new(),
        });
        pods.push((session, plugin));
    }
    world.handle(Event::Pause);
    for number in 0..3 {
        for (session, plugin) in &pods {
            world.job(
                &format!("{plugin}-{number}"),
                json!({"pluginRef": {"name": plugin}}),
            );
            world.request(*session, &format!("{plugin}-{number}"));
        }
    }
    world.handle(Event::Resume);
    let plugins: Vec<String> = world
        .run()
        .into_iter()
        .map(|answer| match answer {
            Answer::Granted { job, .. } => job[..job.len() - 2].to_owned(),
            Answer::NoWork { .. } => "nothing".to_owned(),
        })
        .collect();
    assert_eq!(
        plugins,
        ["scraper", "other", "scraper", "other", "scraper", "other"]
    );
}

#[test]
fn requests_of_a_pod_are_limited_and_time_out() {
    let mut world = World::with(DispatchLimits {
        requests_per_pod: 2,
        ..DispatchLimits::default()
    });
    world.attach(1);
    for id in ["x", "y", "z"] {
        world.request(1, id);
    }
    assert_eq!(world.run(), [answer_no_work("z")]);
    // A repeated request is the same request.
    world.request(1, "x");
    world.idle();
    let wake = world.dispatcher.wake_at(world.now, world.mono);
    assert_eq!(wake, Some(world.mono + 1_000));
    world.pass(999);
    world.idle();
    world.pass(1);
    assert_eq!(world.run(), [answer_no_work("x"), answer_no_work("y")]);
    assert_eq!(world.dispatcher.wake_at(world.now, world.mono), None);
}

#[test]
fn request_does_not_time_out_while_its_claim_is_in_flight() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    world.pass(5_000);
    world.idle();
    world.effects.push(effects);
    assert_eq!(world.run(), [granted("x", "a")]);
    // But when it comes back empty-handed, its time is over.
    world.job("b", json!({}));
    world.request(1, "y");
    let effects = world.only();
    world.pass(5_000);
    world.jobs.remove("b");
    world.effects.push(effects);
    assert_eq!(world.run(), [answer_no_work("y")]);
}

#[test]
fn queue_stats_count_waiting_jobs_per_plugin() {
    let mut world = World::new();
    world.attach(1);
    limit(&mut world, None, Some(1));
    let start = |seconds| crate::job::samples::at(seconds).to_string();
    world.job(
        "a",
        json!({"target": {"client": "a"}, "startTime": start(-50)}),
    );
    world.job(
        "b",
        json!({"target": {"client": "a"}, "startTime": start(-40)}),
    );
    world.job("c", json!({"startTime": start(-30)}));
    world.request(1, "x");
    world.run();
    // Client a has its one: its jobs are passed over and still count as waiting.
    let queue = world.dispatcher.queue_stats().next().unwrap();
    assert_eq!((queue.ready, queue.running), (2, 1));
    assert_eq!(queue.oldest, Some(crate::job::samples::at(-40)));
    assert_eq!(world.dispatcher.oldest(), queue.oldest);
    assert!(
        world
            .effects
            .iter()
            .all(|effects| !matches!(effects, Effect::Claim { .. }))
    );
}
