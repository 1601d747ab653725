//! The pass: from what was seen of a Job to the one write that it needs.

use super::desire::{Cancel, PASSED_OVER, Plan, UNTAKEN};
use super::observe::{HolderView, Observed, PluginView};
use super::resolve::Resolution;
use super::samples::{CLAIM, accepted, at, claimed, job, now, phase as phase_of, row, said, with};
use super::transition::{RowOutcome, store_row};
use super::{desire, resolve};
use jiff::{SignedDuration, Timestamp};
use patchbay_api::job_status::Phase;
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::plugin::Protocol;
use patchbay_api::plugin_status::{AdvertisedCommand, AdvertisedInput};
use patchbay_api::{ConditionType, FamilySpec, Job, JobStatus, Plugin, Reason};
use serde_json::{Value, json};

fn input(name: &str) -> AdvertisedInput {
    AdvertisedInput {
        name: name.to_owned(),
        ..AdvertisedInput::default()
    }
}

fn command(name: &str, inputs: &[&str], optional: &[&str]) -> AdvertisedCommand {
    AdvertisedCommand {
        name: name.to_owned(),
        inputs: inputs.iter().map(|name| input(name)).collect(),
        optional_inputs: optional.iter().map(|name| input(name)).collect(),
        ..AdvertisedCommand::default()
    }
}

fn family(protocol: Value) -> FamilySpec {
    let protocol: Protocol = serde_json::from_value(protocol).unwrap();
    protocol.family_spec().unwrap()
}

fn pcp() -> FamilySpec {
    family(json!({"pcpController": {"port": 10000}}))
}

fn go_plugin() -> FamilySpec {
    family(json!({"goPlugin": {"cookie": {"key": "K", "value": "v"}, "versions": [1]}}))
}

fn scraper() -> PluginView {
    PluginView {
        deleting: false,
        family: Some(pcp()),
        commands: Some(vec![
            command("wget", &["Target"], &["Timeout"]),
            command("ping", &[], &[]),
        ]),
        complete: true,
    }
}

fn seen(job: Job, at: Timestamp) -> Observed {
    Observed {
        job,
        plugin: Some(scraper()),
        holder: HolderView::Unknown,
        now: at,
        spread: 0.0,
        rush: false,
    }
}

fn plan(observed: &Observed) -> Plan {
    desire(observed, &resolve(observed))
}

fn look(job: Job, at: Timestamp) -> Plan {
    plan(&seen(job, at))
}

fn written(plan: Plan) -> JobStatus {
    plan.status.expect("a write")
}

/// Nothing is left to do about the Job after its plan was carried out.
fn settled(mut observed: Observed) -> Observed {
    if let Some(status) = plan(&observed).status {
        observed.job.status = Some(status);
    }
    let again = plan(&observed);
    assert_eq!(again.status, None, "a second look writes again");
    assert!(again.events.is_empty(), "{:?}", again.events);
    observed
}

fn accepted_message(status: &JobStatus) -> &str {
    &super::conditions::find(status, ConditionType::Accepted)
        .unwrap()
        .message
}

fn cancelled(mut job: Job) -> Job {
    job.metadata
        .annotations
        .get_or_insert_default()
        .insert(CANCEL_ANNOTATION.to_owned(), "anna".to_owned());
    job
}

#[test]
fn new_job_is_accepted_and_ready_in_one_write() {
    let plan = look(job(json!({})), now());
    assert_eq!(phase_of(plan.status.as_ref().unwrap()), Phase::Ready);
    assert!(plan.events.is_empty());
    assert_eq!(plan.wake_at, None);
    settled(seen(job(json!({})), now()));
}

#[test]
fn pcp_31_unknown_command_is_refused_with_a_suggestion_and_the_list_of_commands() {
    let bad = json!({"command": {"name": "wgte"}});
    let plan = look(job(bad.clone()), now());
    assert_eq!(plan.events.len(), 1);
    assert!(plan.events[0].warning);
    assert_eq!(plan.events[0].reason, Reason::UnknownCommand);
    let status = written(plan);
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Invalid, "UnknownCommand")
    );
    let message = accepted_message(&status);
    assert!(message.contains("did you mean \"wget\"?"), "{message}");
    assert!(message.contains("advertises wget, ping"), "{message}");
    settled(seen(job(bad), now()));
}

#[test]
fn unknown_command_gets_no_suggestion_when_no_name_is_similar() {
    let status = written(look(job(json!({"command": {"name": "defragment"}})), now()));
    let message = accepted_message(&status);
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn truncated_command_list_does_not_refuse_an_unlisted_command() {
    let mut observed = seen(job(json!({"command": {"name": "later"}})), now());
    observed.plugin.as_mut().unwrap().complete = false;
    assert_eq!(phase_of(&written(plan(&observed))), Phase::Ready);
}

#[test]
fn escaped_command_name_is_found_in_the_list() {
    let mut observed = seen(job(json!({"command": {"name": "a\\b"}})), now());
    observed.plugin.as_mut().unwrap().commands = Some(vec![command("a\\\\b", &[], &[])]);
    assert_eq!(phase_of(&written(plan(&observed))), Phase::Ready);
}

#[test]
fn bad_inputs_are_named_in_the_message() {
    let cases = [
        (
            json!({"name": "wget", "inputs": [{"name": "Taget", "value": ""}]}),
            "spec.command.inputs names \"Taget\"; did you mean \"Target\"? command \"wget\" has Target",
        ),
        (
            json!({"name": "wget", "inputs": [{"name": "Timeout", "value": "1"}]}),
            "which command \"wget\" has among its optionalInputs",
        ),
        (
            json!({"name": "wget", "optionalInputs": [{"name": "x", "value": "1"}]}),
            "spec.command.optionalInputs names \"x\"",
        ),
        (
            json!({"name": "ping", "inputs": [{"name": "Host", "value": "1"}]}),
            "command \"ping\" has none",
        ),
        (
            json!({"name": "wget", "inputs": [{"name": "Target", "value": "1"}, {"name": "Target", "value": "2"}]}),
            "names input \"Target\" twice",
        ),
    ];
    for (command, expected) in cases {
        let status = written(look(job(json!({"command": command})), now()));
        assert_eq!(
            (phase_of(&status), status.reason.as_str()),
            (Phase::Invalid, "BadInputs")
        );
        let message = accepted_message(&status);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn contradictory_spec_is_refused_when_the_plugin_is_missing() {
    let large = "x".repeat(20_000);
    let cases = [
        (
            json!({"target": {"port": "garba"}}),
            "spec.target.port is \"garba\"",
        ),
        (
            json!({"target": {"port": "010"}}),
            "spec.target.port is \"010\"",
        ),
        (
            json!({"startTime": "2026-11-22T13:00:00Z", "expireTime": "2026-11-22T12:30:00Z"}),
            "is not after spec.startTime",
        ),
        (
            json!({"target": {"optional": {"init": large}}}),
            "expected at most 16384",
        ),
        (
            json!({"call": {"service": "s", "method": "m"}}),
            "both command and call",
        ),
    ];
    for (spec, expected) in cases {
        let mut observed = seen(job(spec), now());
        observed.plugin = None;
        let status = written(plan(&observed));
        assert_eq!(
            (phase_of(&status), status.reason.as_str()),
            (Phase::Invalid, "BadInputs")
        );
        let message = accepted_message(&status);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_job_for_another_family_is_invalid() {
    let mut observed = seen(job(json!({})), now());
    observed.plugin.as_mut().unwrap().family = Some(go_plugin());
    assert_eq!(written(plan(&observed)).reason, "WrongFamily");

    let call = json!({"command": null, "call": {"service": "proto.KV", "method": "Get"}});
    let observed = seen(job(call.clone()), now());
    assert_eq!(written(plan(&observed)).reason, "WrongFamily");

    let mut observed = seen(job(call), now());
    observed.plugin = Some(PluginView {
        family: Some(go_plugin()),
        commands: None,
        ..scraper()
    });
    let status = written(plan(&observed));
    assert_eq!(phase_of(&status), Phase::Ready);
    assert_eq!(status.command, "proto.KV/Get");
}

#[test]
fn job_waits_and_expires_when_its_plugin_is_missing() {
    let expiring = json!({"expireTime": "2026-11-22T12:00:30Z"});
    let mut observed = seen(job(expiring), now());
    observed.plugin = None;
    let first = plan(&observed);
    assert_eq!(first.wake_at, Some(at(30)));
    let observed = settled(observed);
    let status = observed.job.status.clone().unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Waiting, "PluginMissing")
    );
    assert_eq!(
        said(&status, ConditionType::Accepted),
        ("Unknown", "PluginMissing")
    );
    let later = Observed {
        now: at(30),
        ..observed.clone()
    };
    assert_eq!(written(plan(&later)).reason, "Expired");
    let back = Observed {
        plugin: Some(scraper()),
        now: at(29),
        ..observed
    };
    assert_eq!(phase_of(&written(plan(&back))), Phase::Ready);
}

#[test]
fn ready_job_stays_ready_when_its_plugin_is_being_deleted() {
    let mut observed = seen(accepted(json!({})), at(1));
    observed.plugin.as_mut().unwrap().deleting = true;
    let observed = settled(observed);
    let status = observed.job.status.clone().unwrap();
    assert_eq!(phase_of(&status), Phase::Ready);
    assert_eq!(
        said(&status, ConditionType::Accepted),
        ("Unknown", "PluginMissing")
    );
    // It comes back without the command.
    let other = PluginView {
        commands: Some(vec![command("ping", &[], &[])]),
        ..scraper()
    };
    let back = Observed {
        plugin: Some(other),
        ..observed
    };
    let status = written(plan(&back));
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "UnknownCommand")
    );
}

#[test]
fn job_waits_when_the_commands_of_its_plugin_are_unknown() {
    let mut observed = seen(job(json!({})), now());
    observed.plugin.as_mut().unwrap().commands = None;
    let observed = settled(observed);
    assert_eq!(
        observed.job.status.as_ref().unwrap().reason,
        "PluginNotReady"
    );
    let ready = Observed {
        plugin: Some(scraper()),
        ..observed
    };
    assert_eq!(phase_of(&written(plan(&ready))), Phase::Ready);
}

#[test]
fn accepted_job_stays_accepted_when_the_plugin_drops_the_command() {
    let mut observed = seen(accepted(json!({})), at(1));
    observed.plugin.as_mut().unwrap().commands = Some(vec![command("ping", &[], &[])]);
    assert_eq!(plan(&observed).status, None);
    observed.plugin.as_mut().unwrap().commands = None;
    assert_eq!(plan(&observed).status, None);
}

#[test]
fn plugin_view_has_no_commands_before_the_plugin_reports_them() {
    let mut plugin: Plugin = serde_json::from_value(json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin",
        "metadata": {"name": "scraper"},
        "spec": {"image": "i", "command": ["/x"], "protocol": {"pcpController": {"port": 10000}}},
        "status": {"provides": {"omitted": 0}}
    }))
    .unwrap();
    let view = PluginView::of(&plugin);
    assert_eq!(view.family, Some(pcp()));
    assert_eq!(view.commands, None);
    plugin
        .status
        .as_mut()
        .unwrap()
        .provides
        .as_mut()
        .unwrap()
        .commands = vec![command("wget", &[], &[])];
    let view = PluginView::of(&plugin);
    assert_eq!(view.commands.unwrap().len(), 1);
    assert!(view.complete && !view.deleting);
}

#[test]
fn ready_is_not_written_while_claims_wait_for_the_api_server() {
    let mut observed = seen(
        accepted(json!({"startTime": "2026-11-22T12:01:00Z"})),
        now(),
    );
    observed.rush = true;
    let due = at(60);
    for (seconds, next) in [
        (0.0, 0.5),
        (0.5, 1.0),
        (1.7, 2.0),
        (31.0, 32.0),
        (63.0, 64.0),
    ] {
        observed.now = due + SignedDuration::from_secs_f64(seconds);
        let plan = plan(&observed);
        assert_eq!(plan.status, None, "after {seconds} s");
        assert_eq!(
            plan.wake_at,
            Some(due + SignedDuration::from_secs_f64(next))
        );
    }
    observed.now = due + PASSED_OVER;
    assert_eq!(phase_of(&written(plan(&observed))), Phase::Ready);
    // What has to be written anyway says it too.
    let mut new = seen(job(json!({})), now());
    new.rush = true;
    assert_eq!(phase_of(&written(plan(&new))), Phase::Ready);
}

#[test]
fn pcp_14_job_is_reconciled_again_after_its_start_time() {
    let future = json!({"startTime": "2026-11-22T12:01:00Z", "expireTime": "2026-11-22T12:02:00Z"});
    let plan = look(job(future.clone()), now());
    // Later than the hand-out, which needs no word of this.
    assert_eq!(plan.wake_at, Some(at(60) + UNTAKEN));
    assert_eq!(phase_of(&written(plan)), Phase::Waiting);
    let plan = look(accepted(future), at(60));
    assert_eq!(plan.wake_at, Some(at(120)));
    assert_eq!(phase_of(&written(plan)), Phase::Ready);
}

#[test]
fn pcp_12_reconcile_fails_an_expired_job() {
    let plan = look(job(json!({"expireTime": "2026-11-22T11:59:59Z"})), now());
    assert_eq!(plan.events[0].reason, Reason::Expired);
    let status = written(plan);
    assert_eq!(status.reason, "Expired");
    assert_eq!(status.output.unwrap().preview, "Job Timeout");
    let ready = accepted(json!({"expireTime": "2026-11-22T12:00:10Z"}));
    assert_eq!(look(ready.clone(), at(9)).status, None);
    assert_eq!(written(look(ready, at(10))).reason, "Expired");
}

#[test]
fn pcp_35_ready_job_is_suspended_and_claimed_job_gets_an_event() {
    let mut ready = accepted(json!({}));
    ready.spec.suspend = true;
    let plan = look(ready.clone(), at(1));
    assert_eq!(plan.events[0].action, "Suspend");
    assert!(!plan.events[0].warning);
    let suspended = with(ready, written(plan));
    assert_eq!(
        phase_of(suspended.status.as_ref().unwrap()),
        Phase::Suspended
    );

    let mut resumed = suspended.clone();
    resumed.spec.suspend = false;
    let plan = look(resumed, at(2));
    assert_eq!(plan.events[0].action, "Resume");
    assert_eq!(phase_of(&written(plan)), Phase::Ready);

    let mut held = claimed(json!({}));
    held.spec.suspend = true;
    let observed = seen(held, at(1));
    let first = desire(&observed, &resolve(&observed));
    assert_eq!(first.events.len(), 1);
    assert!(first.events[0].warning);
    assert_eq!(first.events[0].reason, Reason::AlreadyClaimed);
    assert_eq!(phase_of(first.status.as_ref().unwrap()), Phase::Claimed);
    settled(observed);
}

#[test]
fn job_that_is_created_suspended_is_accepted_and_not_ready() {
    let status = written(look(job(json!({"suspend": true})), now()));
    assert_eq!(phase_of(&status), Phase::Suspended);
    assert_eq!(said(&status, ConditionType::Accepted).0, "True");
    let mut early = seen(job(json!({"suspend": true})), now());
    early.plugin = None;
    let mut early = settled(early);
    assert_eq!(
        phase_of(early.job.status.as_ref().unwrap()),
        Phase::Suspended
    );
    early.job.spec.suspend = false;
    assert_eq!(written(plan(&early)).reason, "PluginMissing");
    early.plugin = Some(scraper());
    assert_eq!(phase_of(&written(plan(&early))), Phase::Ready);
}

#[test]
fn cancel_is_sent_to_the_holder_at_every_reconcile() {
    let mut observed = seen(cancelled(claimed(json!({}))), at(1));
    observed.holder = HolderView::Alive;
    let first = plan(&observed);
    let told = Some(Cancel {
        claim_id: CLAIM.to_owned(),
        pod: "scraper-0-1".to_owned(),
        pod_uid: "pod-uid".to_owned(),
        reason: Reason::Cancelled,
    });
    assert_eq!(first.cancel_holder, told);
    assert!(!first.events[0].warning);
    assert_eq!(first.status.as_ref().unwrap().reason, "Cancelled");
    let observed = settled(observed);
    assert_eq!(plan(&observed).cancel_holder, told);
    // Nobody to tell.
    assert_eq!(
        look(cancelled(accepted(json!({}))), at(1)).cancel_holder,
        None
    );
}

#[test]
fn job_fails_at_its_deadline_and_is_reconciled_then() {
    let held = claimed(json!({"activeDeadlineSeconds": 10}));
    let mut observed = seen(held, at(1));
    observed.holder = HolderView::Alive;
    assert_eq!(plan(&observed).wake_at, Some(at(10)));
    observed.now = at(10);
    let over = plan(&observed);
    assert_eq!(
        over.cancel_holder.as_ref().unwrap().reason,
        Reason::DeadlineExceeded
    );
    assert_eq!(written(over).reason, "DeadlineExceeded");
}

#[test]
fn attempt_is_lost_when_its_pod_is_gone() {
    let gone = HolderView::Gone {
        why: "pod scraper-0-1 was deleted".to_owned(),
    };
    let mut observed = seen(claimed(json!({})), at(5));
    observed.holder = gone.clone();
    let lost = plan(&observed);
    assert_eq!(lost.events[0].reason, Reason::PluginLost);
    let status = written(lost);
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "PluginLost")
    );

    let more = json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 1});
    let mut observed = seen(claimed(more), at(5));
    observed.holder = gone;
    let lost = plan(&observed);
    assert_eq!(lost.wake_at, Some(at(15) + UNTAKEN));
    assert_eq!(lost.events[0].reason, Reason::PluginLost);
    let status = written(lost);
    assert_eq!(status.reason, "BackingOff");
    let waiting = with(observed.job, status);
    assert_eq!(look(waiting.clone(), at(14)).status, None);
    assert_eq!(phase_of(&written(look(waiting, at(15)))), Phase::Ready);
}

#[test]
fn claimed_job_is_unchanged_when_its_holder_is_unreachable() {
    let mut observed = seen(claimed(json!({})), at(86_400));
    for holder in [HolderView::Unknown, HolderView::Alive] {
        observed.holder = holder;
        assert_eq!(resolve(&observed), Resolution::Working);
        assert_eq!(plan(&observed), Plan::default());
    }
}

#[test]
fn pcp_36_ttl_counts_from_the_end_and_never_for_a_suspended_job() {
    let done = |ttl: Value| {
        let held = claimed(json!({"ttlSecondsAfterFinished": ttl}));
        let row = row(1, "", RowOutcome::Succeeded);
        let (status, _) = store_row(&held, CLAIM, &row, at(10), 0.0).unwrap();
        with(held, status)
    };
    assert!(look(done(json!(0)), at(10)).delete);
    let plan = look(done(json!(60)), at(69));
    assert!(!plan.delete);
    assert_eq!(plan.wake_at, Some(at(70)));
    assert!(look(done(json!(60)), at(70)).delete);
    assert_eq!(look(done(json!(null)), at(9_999_999)), Plan::default());

    let suspended = accepted(json!({"ttlSecondsAfterFinished": 0, "suspend": true}));
    let plan = look(suspended, at(9_999_999));
    assert!(!plan.delete);
    assert_eq!(plan.wake_at, None);

    // An end that the pass itself writes is followed by a look.
    let invalid = json!({"ttlSecondsAfterFinished": 5, "command": {"name": "nothing-like-it"}});
    assert_eq!(look(job(invalid), now()).wake_at, Some(at(5)));
}

#[test]
fn pcp_42_only_the_clock_of_the_leader_decides() {
    // Whatever clock the pod has: its times are not even fields of what is seen. A leader whose
    // clock is 90 s ahead decides by it, all over.
    let future = accepted(json!({"startTime": "2026-11-22T12:01:00Z"}));
    assert_eq!(look(future.clone(), at(0)).status, None);
    assert_eq!(phase_of(&written(look(future, at(90)))), Phase::Ready);
    // And what was Ready by a clock that was ahead stays Ready under the next leader.
    let ready = accepted(json!({"startTime": "2026-11-22T12:00:00Z"}));
    assert_eq!(look(ready, at(-30)).status, None);
}

#[test]
fn new_generation_is_observed_once() {
    let mut ready = accepted(json!({}));
    ready.metadata.generation = Some(2);
    ready.spec.priority = 7;
    let status = written(look(ready.clone(), at(1)));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(phase_of(&status), Phase::Ready);
    settled(seen(ready, at(1)));
}

#[test]
fn a_job_that_is_being_deleted_is_left_alone() {
    let mut leaving = claimed(json!({"activeDeadlineSeconds": 1}));
    leaving.metadata.deletion_timestamp = Some(super::times::second(now()));
    assert_eq!(look(leaving, at(100)), Plan::default());
}

#[test]
fn second_reconcile_writes_nothing() {
    let more = json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 3});
    for job in [
        job(json!({})),
        job(json!({"startTime": "2126-01-01T00:00:00Z"})),
        job(json!({"suspend": true})),
        job(json!({"command": {"name": "none"}})),
        job(json!({"expireTime": "2026-11-22T11:00:00Z"})),
        accepted(json!({})),
        claimed(more),
        cancelled(claimed(json!({}))),
        cancelled(job(json!({}))),
    ] {
        for holder in [
            HolderView::Alive,
            HolderView::Gone {
                why: "gone".to_owned(),
            },
        ] {
            settled(Observed {
                holder,
                ..seen(job.clone(), at(3))
            });
        }
    }
}
