//! Sessions come and go, and ledgers say what became of claims.

use super::world::{World, granted};
use crate::job::dispatch::{ClaimRef, Effect, Event, LossCause};
use crate::job::samples::choice;
use crate::job::transition::{Choice, claim, start};
use patchbay_api::job_status::Phase;
use serde_json::json;

/// A Job that pod 1 holds since before this leader's time.
fn claimed(world: &mut World, name: &str, claim_id: &str) -> ClaimRef {
    let of = Choice {
        pod: "scraper-1-1".to_owned(),
        pod_uid: "pod-1".to_owned(),
        ..choice(claim_id)
    };
    world.make(name, json!({}));
    let job = world.change(name, |job, now| claim(job, &of, now));
    world.handle(Event::Job(&job));
    ClaimRef {
        claim_id: claim_id.to_owned(),
        job: world.name(name),
    }
}

fn phase(world: &World, name: &str) -> Phase {
    world.jobs[name].status.as_ref().unwrap().phase.unwrap()
}

#[test]
fn claims_in_the_ledger_are_kept() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a", "x");
    world.idle();
    world.attach_with(1, "epoch", &[claim]);
    world.idle();
}

#[test]
fn claim_is_released_when_the_ledger_does_not_have_it() {
    let mut world = World::new();
    claimed(&mut world, "a", "x");
    world.attach_with(1, "epoch", &[]);
    assert_eq!(world.run(), []);
    assert_eq!(phase(&world, "a"), Phase::Ready);
    world.request(1, "y");
    assert_eq!(world.run(), [granted("y", "a")]);
}

#[test]
fn all_claims_are_lost_when_the_ledger_epoch_differs() {
    let mut world = World::new();
    claimed(&mut world, "a", "x");
    claimed(&mut world, "b", "y");
    world.attach_with(1, "new-epoch", &[]);
    world.step();
    let lost: Vec<_> = world
        .effects
        .drain(..)
        .map(|effects| match effects {
            Effect::Lose { claim_id, why, .. } => (claim_id, why),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        lost,
        [
            ("x".to_owned(), LossCause::VolumeLost),
            ("y".to_owned(), LossCause::VolumeLost)
        ]
    );
    // It is said once.
    world.handle(Event::Tick);
    world.idle();
}

#[test]
fn later_claim_is_lost_when_the_ledger_epoch_differs() {
    let mut world = World::new();
    world.attach_with(1, "new-epoch", &[]);
    claimed(&mut world, "a", "x");
    world.step();
    assert!(matches!(
        world.only(),
        Effect::Lose {
            why: LossCause::VolumeLost,
            ..
        }
    ));
}

#[test]
fn claims_are_queried_when_a_ledger_may_be_older() {
    let mut world = World::new();
    let claim = claimed(&mut world, "a", "x");
    for (session, epoch) in [(1, "epoch"), (101, "another-epoch")] {
        world.attach_with(session, epoch, &[]);
        assert_eq!(
            world.only(),
            Effect::ClaimQuery {
                session,
                claims: vec![claim.clone()]
            }
        );
    }
    // The sidecar has gone over to another leader since: no answer comes, and nothing changes.
    world.pass(60_000);
    world.idle();
}

#[test]
fn running_job_is_lost_when_the_ledger_does_not_have_it() {
    let mut world = World::new();
    claimed(&mut world, "a", "x");
    let running = world.change("a", |job, now| start(job, "x", now));
    world.handle(Event::Job(&running));
    world.attach_with(1, "epoch", &[]);
    world.step();
    assert!(matches!(
        world.only(),
        Effect::Lose {
            why: LossCause::Forgotten,
            ..
        }
    ));
}

#[test]
fn claim_that_appears_later_is_queried() {
    for known in [true, false] {
        let mut world = World::new();
        world.attach(1);
        let claim = claimed(&mut world, "a", "x");
        assert_eq!(
            world.only(),
            Effect::ClaimQuery {
                session: 1,
                claims: vec![claim.clone()]
            }
        );
        world.handle(Event::ClaimQueryReply {
            session: 1,
            claim: claim.clone(),
            known,
        });
        if known {
            world.idle();
        } else {
            assert_eq!(world.run(), []);
            assert_eq!(phase(&world, "a"), Phase::Ready);
        }
    }
}

#[test]
fn unanswered_claim_query_is_settled_by_the_next_ledger() {
    let mut world = World::new();
    world.attach(1);
    claimed(&mut world, "a", "x");
    assert!(matches!(world.only(), Effect::ClaimQuery { .. }));
    world.handle(Event::Detached { session: 1 });
    world.attach_with(101, "epoch", &[]);
    assert_eq!(world.run(), []);
    assert_eq!(phase(&world, "a"), Phase::Ready);
}

#[test]
fn returned_claim_makes_the_job_ready_again() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    assert_eq!(world.run(), [granted("x", "a")]);
    let claim = ClaimRef {
        claim_id: "x".to_owned(),
        job: world.name("a"),
    };
    world.handle(Event::ClaimReturned {
        session: 1,
        claim: claim.clone(),
    });
    // Saying it twice is saying it once.
    world.handle(Event::ClaimReturned { session: 1, claim });
    assert_eq!(world.effects.len(), 1);
    world.run();
    assert_eq!(phase(&world, "a"), Phase::Ready);
    world.request(1, "y");
    assert_eq!(world.run(), [granted("y", "a")]);
}

#[test]
fn claim_return_of_another_pod_is_ignored() {
    let mut world = World::new();
    world.attach(1);
    world.attach(2);
    world.job("a", json!({}));
    world.request(1, "x");
    world.run();
    world.handle(Event::ClaimReturned {
        session: 2,
        claim: ClaimRef {
            claim_id: "x".to_owned(),
            job: world.name("a"),
        },
    });
    world.idle();
    assert_eq!(phase(&world, "a"), Phase::Claimed);
}

#[test]
fn claim_return_is_applied_when_the_claim_appears_later() {
    let mut world = World::new();
    world.attach(1);
    let job = world.make("a", json!({}));
    world.handle(Event::ClaimReturned {
        session: 1,
        claim: ClaimRef {
            claim_id: "x".to_owned(),
            job: super::world::name_of(&job),
        },
    });
    let of = Choice {
        pod_uid: "pod-1".to_owned(),
        ..choice("x")
    };
    let claimed = world.change("a", |job, now| claim(job, &of, now));
    world.handle(Event::Job(&claimed));
    assert!(matches!(world.effects[0], Effect::Release { .. }));
    world.run();
    assert_eq!(phase(&world, "a"), Phase::Ready);
}

#[test]
fn release_is_repeated_on_a_newer_version() {
    let mut world = World::new();
    claimed(&mut world, "a", "x");
    let touched = world.jobs["a"].clone();
    world.attach_with(1, "epoch", &[]);
    world.step();
    world.store(touched);
    world.run();
    assert_eq!(phase(&world, "a"), Phase::Ready);
}

#[test]
fn release_leaves_a_running_job_unchanged() {
    let mut world = World::new();
    claimed(&mut world, "a", "x");
    world.attach_with(1, "epoch", &[]);
    world.step();
    world.change("a", |job, now| start(job, "x", now));
    world.run();
    assert_eq!(phase(&world, "a"), Phase::Running);
    world.pass(60_000);
    world.idle();
}

#[test]
fn claim_of_the_previous_session_is_not_granted_to_the_next() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    // The same pod opens another session while the claim is written.
    world.attach(101);
    assert_eq!(world.run(), []);
    assert_eq!(phase(&world, "a"), Phase::Ready);
}

#[test]
fn rows_of_a_held_job_have_no_effect_on_the_dispatcher() {
    let mut world = World::new();
    world.attach(1);
    world.job("a", json!({}));
    world.request(1, "x");
    world.run();
    for _ in 0..3 {
        let running = world.change("a", |job, now| start(job, "x", now));
        world.handle(Event::Job(&running));
        world.idle();
    }
    assert_eq!(world.dispatcher.queue_stats().next().unwrap().running, 1);
}
