//! What becomes of a claim between its choice and its grant.

use super::world::{World, answer_no_work, claim_of, granted, key};
use crate::job::dispatch::{ClaimRef, Effect, Event, WriteOutcome};
use crate::job::samples::{at, choice};
use crate::job::transition::{cancel, claim, suspend};
use patchbay_api::job_status::Phase;
use serde_json::json;

#[test]
fn grant_follows_the_write_and_has_the_remaining_time() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"expireTime": at(60).to_string()}));
    world.mono += 250;
    world.request(1, "x");
    let effects = world.only();
    assert_eq!(claim_of(&effects).1, "101");
    world.mono += 40;
    world.now = at(7);
    let outcome = world.write(&effects);
    let name = world.name("a");
    world.tell(&name, "x", outcome);
    assert_eq!(
        world.only(),
        Effect::Grant {
            session: 1,
            claim: ClaimRef {
                claim_id: "x".to_owned(),
                job: name,
            },
            remaining_ms: 53_000,
            // One less than was measured: both ends are rounded.
            waited_ms: 39,
            attempt: 1,
        }
    );
    assert_eq!(world.dispatcher.requests(), 0);
    assert_eq!(world.dispatcher.in_flight(), 0);
}

#[test]
fn pcp_42_remaining_time_is_computed_by_the_clock_of_the_leader() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"expireTime": at(100).to_string()}));
    // A leader that is 90 s ahead gives 10 s, whatever the node's clock says.
    world.now = at(90);
    world.request(1, "x");
    let effects = world.only();
    let outcome = world.write(&effects);
    let name = world.name("a");
    world.tell(&name, "x", outcome);
    assert!(matches!(
        world.only(),
        Effect::Grant {
            remaining_ms: 10_000,
            ..
        }
    ));
}

#[test]
fn a_job_that_never_expires_has_no_remaining_time() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let outcome = world.write(&effects);
    let name = world.name("a");
    world.tell(&name, "x", outcome);
    assert!(matches!(
        world.only(),
        Effect::Grant {
            remaining_ms: 0,
            ..
        }
    ));
}

#[test]
fn claim_that_was_written_too_late_is_released_and_not_granted() {
    for late in [at(10), "2026-11-22T12:00:09.9995Z".parse().unwrap()] {
        let mut world = World::new();
        world.attach(1);
        world.job("a", json!({"expireTime": at(10).to_string()}));
        world.request(1, "x");
        let effects = world.only();
        let outcome = world.write(&effects);
        // Less than a millisecond is no time: 0 would mean for ever.
        world.now = late;
        let name = world.name("a");
        world.tell(&name, "x", outcome);
        assert!(matches!(&world.effects[0], Effect::Release { claim_id, .. } if claim_id == "x"));
        assert_eq!(world.run(), [answer_no_work("x")]);
        let status = world.jobs["a"].status.clone().unwrap();
        assert_eq!(status.claim, None);
        let expired = status.phase == Some(Phase::Failed);
        assert_eq!(expired, late == at(10));
    }
}

#[test]
fn claim_is_released_when_its_request_was_cancelled_or_disconnected() {
    for finish_run in [
        Event::CancelRequest {
            session: 1,
            claim_id: "x".to_owned(),
        },
        Event::Detached { session: 1 },
    ] {
        let mut world = World::new();
        world.attach(1);
        world.job("a", json!({}));
        world.request(1, "x");
        world.handle(finish_run);
        assert_eq!(world.run(), []);
        let status = world.jobs["a"].status.clone().unwrap();
        assert_eq!(status.phase, Some(Phase::Ready));
        assert_eq!(world.dispatcher.waiting(), 1);
        world.attach(2);
        world.request(2, "y");
        assert_eq!(world.run(), [granted("y", "a")]);
    }
}

#[test]
fn pcp_20_next_job_is_chosen_after_a_conflict_with_a_stale_view() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.job("b", json!({}));
    let other = choice("of-another-leader");
    world.change("a", |job, now| claim(job, &other, now));
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "b")]);
    let holder = world.jobs["a"].status.clone().unwrap().claim.unwrap();
    assert_eq!(holder.claim_id, "of-another-leader");
}

#[test]
fn conflict_tries_the_same_job_again_before_a_later_one() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.job("b", json!({}));
    // Somebody touches the object between the choice and the write.
    let touched = world.jobs["a"].clone();
    world.store(touched);
    world.request(1, "x");
    let first = world.only();
    assert_eq!(claim_of(&first).0.name, "a");
    let outcome = world.write(&first);
    assert!(matches!(outcome, WriteOutcome::Conflict(Some(_))));
    let name = world.name("a");
    world.tell(&name, "x", outcome);
    let second = world.only();
    assert_eq!(claim_of(&second).0.name, "a");
    assert_eq!(claim_of(&second).1, "103");
}

#[test]
fn request_gets_the_next_job_when_the_first_is_gone() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.job("b", json!({}));
    world.jobs.remove("a");
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "b")]);
    assert_eq!(world.dispatcher.jobs.entries.len(), 1);
}

#[test]
fn unknown_write_outcome_is_decided_by_the_claim_id_that_is_read_back() {
    // The write was carried out and its answer was lost; the driver read it back as won.
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let WriteOutcome::Applied(grant_or_release) = world.write(&effects) else {
        panic!("nobody else writes");
    };
    // The watch was faster than the answer.
    world.handle(Event::Job(&grant_or_release));
    world.idle();
    // A driver that cannot tell whose write it was says so; the claim id tells.
    let name = world.name("a");
    world.tell(&name, "x", WriteOutcome::Conflict(Some(grant_or_release)));
    assert_eq!(world.run(), [granted("x", "a")]);
}

#[test]
fn refused_write_answers_no_work_and_delays_the_job() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let name = claim_of(&effects).0.clone();
    world.tell(&name, "x", WriteOutcome::Refused("quota".to_owned()));
    assert_eq!(world.run(), [answer_no_work("x")]);
    world.request(1, "y");
    world.idle();
    assert!(world.dispatcher.wake_at(world.now, world.mono).is_some());
    world.pass(1_000);
    assert_eq!(world.run(), [answer_no_work("y")]);
    world.pass(4_000);
    world.request(1, "z");
    assert_eq!(world.run(), [granted("z", "a")]);
}

#[test]
fn conflict_with_an_unchanged_job_is_not_retried_at_once() {
    let mut world = World::new();
    world.attach(1);
    let job = world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let name = claim_of(&effects).0.clone();
    world.tell(&name, "x", WriteOutcome::Conflict(Some(Box::new(job))));
    // A write of this id may still be under way: the request gets nothing, and never another job.
    assert_eq!(world.run(), [answer_no_work("x")]);
    world.request(1, "y");
    world.idle();
    world.pass(1_000);
    assert_eq!(world.run(), [answer_no_work("y")]);
}

#[test]
fn job_that_ended_during_its_claim_is_not_granted() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let outcome = world.write(&effects);
    let ended = world.change("a", cancel);
    world.handle(Event::Job(&ended));
    let name = world.name("a");
    world.tell(&name, "x", outcome);
    assert_eq!(world.run(), [answer_no_work("x")]);
    assert_eq!(
        world.jobs["a"].status.clone().unwrap().phase,
        Some(Phase::Failed)
    );
}

#[test]
fn older_version_of_a_job_is_ignored() {
    let mut world = World::new();
    world.attach(1);
    let old = world.job("a", json!({}));
    let suspended = world.change("a", suspend);
    world.handle(Event::Job(&suspended));
    world.handle(Event::Job(&old));
    world.request(1, "x");
    world.idle();
    assert_eq!(world.dispatcher.waiting(), 0);
}

#[test]
fn pcp_37_recreated_job_with_the_same_name_is_a_different_job() {
    let mut world = World::new();
    world.attach(1);
    let old = world.job("a", json!({}));
    world.request(1, "x");
    let effects = world.only();
    let outcome = world.write(&effects);
    // Deleted and made again while the claim was under way.
    world.handle(Event::JobGone {
        namespace: "demo",
        name: "a",
        uid: old.metadata.uid.as_deref().unwrap(),
    });
    let new = world.job("a", json!({"startTime": at(3600).to_string()}));
    assert_eq!(world.dispatcher.in_flight(), 1);
    world.tell(&super::world::name_of(&old), "x", outcome);
    assert_eq!(world.dispatcher.in_flight(), 0);
    assert_eq!(world.run(), [answer_no_work("x")]);
    assert_eq!(world.jobs["a"], new);
    // What the old one's holder says does not touch the new one.
    world.handle(Event::ClaimReturned {
        session: 1,
        claim: ClaimRef {
            claim_id: "x".to_owned(),
            job: super::world::name_of(&old),
        },
    });
    world.handle(Event::JobGone {
        namespace: "demo",
        name: "a",
        uid: old.metadata.uid.as_deref().unwrap(),
    });
    world.idle();
    assert_eq!(world.dispatcher.jobs.entries.len(), 1);
}

#[test]
fn recreated_job_replaces_the_old_one_without_a_delete_event() {
    let mut world = World::new();
    world.attach(1);
    let old = world.job("a", json!({}));
    let new = world.job("a", json!({}));
    assert_ne!(old.metadata.uid, new.metadata.uid);
    assert_eq!(world.dispatcher.jobs.entries.len(), 1);
    assert_eq!(world.dispatcher.waiting(), 1);
    world.handle(Event::Job(&old));
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "a")]);
    assert_eq!(world.jobs["a"].metadata.uid, new.metadata.uid);
}

#[test]
fn second_attempt_waits_for_its_time_and_keeps_its_order() {
    let mut world = World::new();
    world.attach(1);
    let more = json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 2});
    world.job("a", more);
    world.job("b", json!({}));
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "a")]);
    let loss = crate::job::transition::Loss {
        message: "gone".to_owned(),
        exit: None,
    };
    let lost = world.change("a", |job, now| {
        crate::job::transition::lose(job, Some("x"), &loss, now, 0.0)
    });
    world.handle(Event::Job(&lost));
    world.pass(9_999);
    assert_eq!(world.dispatcher.waiting(), 1);
    world.pass(1);
    assert_eq!(world.dispatcher.waiting(), 2);
    // Its start is the earlier one still.
    world.request(1, "y");
    let effects = world.only();
    assert_eq!(claim_of(&effects).0.name, "a");
    let outcome = world.write(&effects);
    let name = world.name("a");
    world.tell(&name, "y", outcome);
    assert!(matches!(world.only(), Effect::Grant { attempt: 2, .. }));
}

#[test]
fn clock_may_be_set_back_and_forth() {
    let mut world = World::new();
    world.attach(1);
    world.job(
        "a",
        json!({"startTime": at(10).to_string(), "expireTime": at(20).to_string()}),
    );
    world.now = at(15);
    world.handle(Event::Tick);
    assert_eq!(world.dispatcher.waiting(), 1);
    world.now = at(5);
    world.request(1, "x");
    world.idle();
    world.now = at(25);
    world.handle(Event::Tick);
    world.idle();
    assert_eq!(world.dispatcher.waiting(), 0);
    world.now = at(12);
    world.handle(Event::Tick);
    assert_eq!(world.run(), [granted("x", "a")]);
}

#[test]
fn changed_times_move_a_job_in_the_order() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({"expireTime": at(-1).to_string()}));
    let mut job = world.make("b", json!({"expireTime": at(5).to_string()}));
    world.handle(Event::Job(&job));
    world.pass(6_000);
    world.request(1, "x");
    world.idle();
    job.spec.expire_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
        at(60),
    ));
    let job = world.store(job);
    world.handle(Event::Job(&job));
    assert_eq!(world.run(), [granted("x", "b")]);
}

#[test]
fn paused_dispatcher_reads_events_and_grants_nothing() {
    let mut world = World::new();
    world.handle(Event::Pause);
    world.attach(1);
    world.request(1, "x");
    world.job("b", json!({}));
    world.job("a", json!({"startTime": at(-5).to_string()}));
    world.idle();
    world.handle(Event::Resume);
    // The later of the two starts: "b" was created a minute ago.
    assert_eq!(world.run(), [granted("x", "b")]);
}

#[test]
fn choice_records_the_version_of_the_watch_and_not_of_writes() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.job("b", json!({}));
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "a")]);
    world.request(1, "y");
    let Effect::Claim { choice, .. } = world.only() else {
        panic!("a claim was expected");
    };
    assert_eq!(choice.observed_resource_version, "102");
    assert_eq!(choice.sequence, 2);
    let newest = world.jobs["a"].clone();
    world.handle(Event::Answer(&newest));
    world.handle(Event::Job(&newest));
    world.job("c", json!({}));
    world.request(1, "z");
    let Effect::Claim { choice, .. } = world.only() else {
        panic!("a claim was expected");
    };
    assert_eq!(choice.observed_resource_version, "104");
}

#[test]
fn invalid_requests_are_answered_at_once() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    for bad in ["", "with space", "ä", &"x".repeat(65)] {
        world.request(1, bad);
        assert_eq!(world.run(), [answer_no_work(bad)]);
    }
    // Nobody to answer.
    world.request(7, "x");
    world.idle();
    // An id that names a claim already.
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "a")]);
    world.job("b", json!({}));
    world.request(1, "x");
    assert_eq!(world.run(), [answer_no_work("x")]);
    assert_eq!(
        world.dispatcher.queue_stats().next().unwrap().plugin,
        &key()
    );
}

#[test]
fn snapshot_shows_what_each_claim_waits_for() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.job("later", json!({"startTime": "2999-01-01T00:00:00.000000Z"}));
    world.request(1, "first");
    let writing = world.dispatcher.snapshot();
    assert_eq!(writing.claims[0].job, "a");
    assert_eq!(
        writing.claims[0].waits_for,
        "the API server to write the claim"
    );
    assert_eq!(writing.claims[0].pod_uid, None);
    assert_eq!(writing.waiting.scheduled, 1);
    assert_eq!(writing.queues[0].work_requests, 1);
    assert_eq!(world.run(), [granted("first", "a")]);
    let granted = world.dispatcher.snapshot();
    assert_eq!(granted.claims[0].waits_for, "the plugin to end the job");
    assert!(granted.claims[0].pod_uid.is_some());
    assert_eq!(granted.sessions[0].work_requests, 0);
    assert!(!granted.paused);
}
