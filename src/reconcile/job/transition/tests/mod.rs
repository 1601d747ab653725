//! Every transition, from every phase.

mod random;

use super::*;
use crate::job::output::digest;
use crate::job::samples::{
    CLAIM, accepted, at, choice, claimed, job, now, phase as phase_of, row, said, with,
};
use patchbay_api::job_status::Encoding;
use patchbay_api::names::CANCEL_ANNOTATION;
use serde_json::{Value, json};

const OTHER: &str = "ffeeddccbbaa99887766554433221100";

fn cancelled(mut job: Job, who: &str) -> Job {
    job.metadata
        .annotations
        .get_or_insert_default()
        .insert(CANCEL_ANNOTATION.to_owned(), who.to_owned());
    job
}

fn loss() -> Loss {
    Loss {
        message: "the plugin process is gone".to_owned(),
        exit: Some("signal 9".to_owned()),
    }
}

fn failed(reason: Reason, message: &str) -> RowOutcome {
    RowOutcome::Failed {
        reason,
        message: message.to_owned(),
    }
}

/// The Job after a row.
fn after(job: Job, row: &StoredRow) -> (Job, RowFate) {
    let (status, fate) = store_row(&job, CLAIM, row, now(), 0.0).unwrap();
    (with(job, status), fate)
}

fn status(job: &Job) -> &JobStatus {
    job.status.as_ref().unwrap()
}

#[test]
fn accepted_job_is_ready_and_has_every_condition() {
    let job = accepted(json!({}));
    let status = status(&job);
    assert_eq!(phase_of(status), Phase::Ready);
    assert_eq!(status.reason, "Eligible");
    assert_eq!(status.command, "wget");
    assert_eq!(status.attempt, 0);
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(said(status, ConditionType::Accepted), ("True", "Accepted"));
    assert_eq!(said(status, ConditionType::Eligible), ("True", "Eligible"));
    assert_eq!(said(status, ConditionType::Claimed), ("False", "Unclaimed"));
    assert_eq!(
        said(status, ConditionType::Started),
        ("False", "NotStarted")
    );
    for absent in [
        ConditionType::Complete,
        ConditionType::Failed,
        ConditionType::Suspended,
    ] {
        assert_eq!(said(status, absent).0, "absent");
    }
}

#[test]
fn accepting_twice_changes_nothing() {
    let job = accepted(json!({}));
    assert_eq!(accept(&job, at(30)).unwrap(), *status(&job));
    let job = accepted(json!({"startTime": "2026-11-22T12:01:00Z"}));
    assert_eq!(accept(&job, at(30)).unwrap(), *status(&job));
}

#[test]
fn pcp_14_job_waits_until_its_start_time_and_is_ready_then() {
    let job = accepted(json!({"startTime": "2026-11-22T12:01:00Z"}));
    assert_eq!(phase_of(status(&job)), Phase::Waiting);
    assert_eq!(status(&job).reason, "StartTimeInFuture");
    assert_eq!(
        claim(&job, &choice(CLAIM), at(59)),
        Err(NotNow::NotEligible("its time has not come"))
    );
    assert!(ready(&job, at(59)).is_err());
    let ready = ready(&job, at(60)).unwrap();
    assert_eq!(phase_of(&ready), Phase::Ready);
    // The hand-out need not wait for that write.
    let claimed = claim(&job, &choice(CLAIM), at(60)).unwrap();
    assert_eq!(phase_of(&claimed), Phase::Claimed);
    assert_eq!(
        said(&claimed, ConditionType::Eligible),
        ("True", "Eligible")
    );
}

#[test]
fn claim_records_holder_time_and_observed_version() {
    let job = accepted(json!({}));
    let late: Timestamp = "2026-11-22T12:00:00.1234567Z".parse().unwrap();
    let choice = Choice {
        client_location: Some("10.1.2.3".to_owned()),
        ..choice(CLAIM)
    };
    let status = claim(&job, &choice, late).unwrap();
    let claim = status.claim.clone().unwrap();
    assert_eq!(claim.claim_id, CLAIM);
    assert_eq!(
        claim.claimed_at.0.to_string(),
        "2026-11-22T12:00:00.123456Z"
    );
    assert_eq!(claim.client_location.as_deref(), Some("10.1.2.3"));
    assert_eq!(
        (claim.sequence, claim.observed_resource_version.as_str()),
        (1, "7")
    );
    assert_eq!(status.attempt, 1);
    assert_eq!(status.start_time, Some(claim.claimed_at));
    assert_eq!(said(&status, ConditionType::Claimed), ("True", "Claimed"));
}

#[test]
fn claim_requires_an_accepted_job_between_start_and_expire_time() {
    let cases: [(Job, &str); 6] = [
        (job(json!({})), "it was not accepted"),
        (accepted(json!({"suspend": true})), "it is suspended"),
        (cancelled(accepted(json!({})), "x"), "it is cancelled"),
        (claimed(json!({})), "a pod has it"),
        (
            accepted(json!({"startTime": "2026-11-22T12:00:00.000001Z"})),
            "its time has not come",
        ),
        (
            {
                let mut job = accepted(json!({}));
                job.spec.suspend = true;
                job
            },
            "it is suspended",
        ),
    ];
    for (job, why) in cases {
        assert_eq!(
            claim(&job, &choice(OTHER), now()),
            Err(NotNow::NotEligible(why))
        );
    }
    let mut leaving = accepted(json!({}));
    leaving.metadata.deletion_timestamp = Some(times::second(now()));
    assert!(claim(&leaving, &choice(OTHER), now()).is_err());
    let missing = accepted(json!({}));
    let missing = with(missing.clone(), plugin_missing(&missing, now()).unwrap());
    assert_eq!(
        claim(&missing, &choice(OTHER), now()),
        Err(NotNow::NotEligible("it was not accepted"))
    );
}

#[test]
fn pcp_12_an_expired_job_fails_with_the_output_job_timeout() {
    let job = accepted(json!({"expireTime": "2026-11-22T11:59:59Z"}));
    let status = status(&job);
    assert_eq!(phase_of(status), Phase::Failed);
    assert_eq!(status.reason, "Expired");
    let output = status.output.as_ref().unwrap();
    assert_eq!(output.preview, "Job Timeout");
    assert_eq!(output.rows[0].content.as_deref(), Some("Job Timeout"));
    assert_eq!((output.row_count, output.bytes), (1, 11));
    assert_eq!(said(status, ConditionType::Failed), ("True", "Expired"));
    assert_eq!(said(status, ConditionType::Eligible), ("False", "Expired"));
    assert_eq!(status.completion_time, Some(times::micro(now())));
}

#[test]
fn pcp_13_job_is_not_delivered_exactly_at_its_expire_time() {
    let job = accepted(json!({"expireTime": "2026-11-22T12:00:01Z"}));
    assert!(expire(&job, at(0)).is_err());
    assert_eq!(
        claim(&job, &choice(CLAIM), at(1)),
        Err(NotNow::NotEligible("its time is over"))
    );
    assert_eq!(phase_of(&expire(&job, at(1)).unwrap()), Phase::Failed);
    let just_before: Timestamp = "2026-11-22T12:00:00.999999999Z".parse().unwrap();
    assert!(claim(&job, &choice(CLAIM), just_before).is_ok());
}

#[test]
fn a_held_or_suspended_job_does_not_expire() {
    let held = claimed(json!({"expireTime": "2026-11-22T12:00:01Z"}));
    assert_eq!(
        expire(&held, at(2)),
        Err(NotNow::NotEligible("a pod has it"))
    );
    let suspended = accepted(json!({"suspend": true, "expireTime": "2026-11-22T12:00:01Z"}));
    assert_eq!(
        expire(&suspended, at(2)),
        Err(NotNow::NotEligible("it is suspended"))
    );
    let resumed = resume(&suspended, at(2)).unwrap();
    assert_eq!(
        (phase_of(&resumed), resumed.reason.as_str()),
        (Phase::Failed, "Expired")
    );
}

#[test]
fn released_job_has_no_attempt_and_no_start_time() {
    let held = claimed(json!({}));
    let released = release(&held, CLAIM, at(1)).unwrap();
    assert_eq!(phase_of(&released), Phase::Ready);
    assert_eq!(released.claim, None);
    assert_eq!(released.start_time, None);
    assert!(released.attempts.is_empty());
    assert_eq!(
        said(&released, ConditionType::Claimed),
        ("False", "Released")
    );
    let again = claim(&with(held, released), &choice(OTHER), at(2)).unwrap();
    assert_eq!(again.attempt, 1);
}

#[test]
fn release_requires_the_holder_and_an_undelivered_job() {
    let held = claimed(json!({}));
    assert_eq!(release(&held, OTHER, at(1)), Err(NotNow::Stale));
    let running = with(held.clone(), start(&held, CLAIM, at(1)).unwrap());
    assert!(matches!(
        release(&running, CLAIM, at(2)),
        Err(NotNow::NotEligible(_))
    ));
    let open = accepted(json!({}));
    assert_eq!(release(&open, CLAIM, at(1)), Err(NotNow::Stale));
}

#[test]
fn released_job_expires_when_its_expire_time_has_passed() {
    let held = claimed(json!({"expireTime": "2026-11-22T12:00:05Z"}));
    let status = unreached(&held, CLAIM, at(5)).unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "Expired")
    );
    assert_eq!(status.claim, None);
    assert_eq!(status.output.unwrap().preview, "Job Timeout");
    let in_time = unreached(&held, CLAIM, at(4)).unwrap();
    assert_eq!(phase_of(&in_time), Phase::Ready);
}

#[test]
fn start_sets_running_for_the_holder_only() {
    let held = claimed(json!({}));
    assert_eq!(start(&held, OTHER, at(1)), Err(NotNow::Stale));
    let running = start(&held, CLAIM, at(1)).unwrap();
    assert_eq!(phase_of(&running), Phase::Running);
    assert_eq!(said(&running, ConditionType::Started), ("True", "Started"));
    assert_eq!(running.claim, status(&held).claim);
    let running = with(held, running);
    assert_eq!(start(&running, CLAIM, at(9)).unwrap(), *status(&running));
}

#[test]
fn job_of_a_lost_plugin_fails_with_the_exit_in_the_message() {
    let held = claimed(json!({}));
    let status = lose(&held, Some(CLAIM), &loss(), at(30), 0.0).unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "PluginLost")
    );
    let condition = crate::job::conditions::find(&status, ConditionType::Failed).unwrap();
    assert!(condition.message.contains("signal 9"), "{condition:?}");
    assert!(status.claim.is_some());
    assert_eq!(
        lose(&held, Some(OTHER), &loss(), at(30), 0.0),
        Err(NotNow::Stale)
    );
    assert!(lose(&held, None, &loss(), at(30), 0.0).is_ok());
    let open = accepted(json!({}));
    assert_eq!(lose(&open, None, &loss(), at(30), 0.0), Err(NotNow::Stale));
}

#[test]
fn backoff_limit_has_no_effect_with_at_most_once() {
    let held = claimed(json!({"backoffLimit": 2}));
    let status = lose(&held, Some(CLAIM), &loss(), at(30), 0.0).unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "PluginLost")
    );
}

#[test]
fn pcp_22_at_least_once_makes_a_second_attempt_after_the_backoff() {
    let more = json!({"backoffLimit": 2, "deliveryPolicy": "AtLeastOnce"});
    let mut held = claimed(more);
    let uid = held.metadata.uid.clone();
    held = with(
        held.clone(),
        lose(&held, Some(CLAIM), &loss(), at(30), 1.0).unwrap(),
    );
    let waiting = status(&held).clone();
    assert_eq!(
        (phase_of(&waiting), waiting.reason.as_str()),
        (Phase::Waiting, "BackingOff")
    );
    assert_eq!(waiting.claim, None);
    assert_eq!(
        waiting.next_attempt_time.as_ref().unwrap().0.to_string(),
        "2026-11-22T12:00:37.5Z"
    );
    assert_eq!(waiting.attempts.len(), 1);
    assert_eq!(waiting.attempts[0].claim_id, CLAIM);
    assert_eq!(waiting.attempts[0].reason, "PluginLost");
    assert_eq!(
        said(&waiting, ConditionType::Claimed),
        ("False", "PluginLost")
    );
    assert!(claim(&held, &choice(OTHER), at(37)).is_err());
    let second = claim(&held, &choice(OTHER), at(38)).unwrap();
    assert_eq!(second.attempt, 2);
    assert_eq!(second.next_attempt_time, None);
    assert_eq!(second.start_time, waiting.start_time);
    let second = with(held, second);
    assert_eq!(second.metadata.uid, uid);
    // The first attempt has nothing more to say.
    let row = row(1, "late", RowOutcome::Succeeded);
    assert_eq!(
        store_row(&second, CLAIM, &row, at(39), 0.0),
        Err(NotNow::Stale)
    );
    assert_eq!(
        lose(&second, Some(CLAIM), &loss(), at(39), 0.0),
        Err(NotNow::Stale)
    );
}

#[test]
fn the_last_attempt_fails_with_backoff_limit_exceeded() {
    let more = json!({"backoffLimit": 2, "deliveryPolicy": "AtLeastOnce"});
    let mut job = accepted(more);
    let mut time = 0;
    for attempt in 1..=3 {
        let id = format!("{attempt:032}");
        job = with(job.clone(), claim(&job, &choice(&id), at(time)).unwrap());
        assert_eq!(status(&job).attempt, attempt);
        job = with(
            job.clone(),
            lose(&job, Some(&id), &loss(), at(time), 0.0).unwrap(),
        );
        time += 100;
    }
    let status = status(&job);
    assert_eq!(
        (phase_of(status), status.reason.as_str()),
        (Phase::Failed, "BackoffLimitExceeded")
    );
    assert_eq!(status.attempts.len(), 2);
    let failed = crate::job::conditions::find(status, ConditionType::Failed).unwrap();
    assert!(failed.message.contains("attempt 3 of 3"), "{failed:?}");
    assert!(failed.message.contains("PluginLost"), "{failed:?}");
}

#[test]
fn partial_rows_stay_in_order_and_the_last_one_completes() {
    let mut job = claimed(json!({}));
    let mut all = Vec::new();
    for (number, text) in ["a", "b", "c"].into_iter().enumerate() {
        all.extend_from_slice(text.as_bytes());
        let row = StoredRow {
            sha256_of_all: digest(&all),
            total_bytes: all.len() as u64,
            ..row(number as u32 + 1, text, RowOutcome::More)
        };
        job = after(job, &row).0;
        assert_eq!(phase_of(status(&job)), Phase::Running);
    }
    let last = StoredRow {
        sha256_of_all: digest(b"abcd"),
        total_bytes: 4,
        ..row(4, "d", RowOutcome::Succeeded)
    };
    job = after(job, &last).0;
    let status = status(&job);
    assert_eq!(phase_of(status), Phase::Succeeded);
    assert_eq!(said(status, ConditionType::Complete), ("True", "Completed"));
    assert_eq!(said(status, ConditionType::Failed).0, "absent");
    let output = status.output.as_ref().unwrap();
    let texts: Vec<_> = output
        .rows
        .iter()
        .filter_map(|row| row.content.clone())
        .collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    assert_eq!(output.sha256, hex_of(b"abcd"));
    assert_eq!((output.bytes, output.preview.as_str()), (4, "d"));
}

fn hex_of(bytes: &[u8]) -> String {
    crate::job::output::hex(&digest(bytes))
}

#[test]
fn empty_output_completes_a_job() {
    let (job, _) = after(claimed(json!({})), &row(1, "", RowOutcome::Succeeded));
    let output = status(&job).output.as_ref().unwrap();
    assert_eq!((output.bytes, output.row_count), (0, 1));
    assert_eq!(output.rows[0].content.as_deref(), Some(""));
    assert_eq!(phase_of(status(&job)), Phase::Succeeded);
}

#[test]
fn pcp_29_an_error_row_fails_the_job_and_its_text_is_the_output() {
    let (job, _) = after(
        claimed(json!({})),
        &row(1, "x", failed(Reason::PluginError, "")),
    );
    let status = status(&job);
    assert_eq!(
        (phase_of(status), status.reason.as_str()),
        (Phase::Failed, "PluginError")
    );
    assert_eq!(status.output.as_ref().unwrap().preview, "x");
    let condition = crate::job::conditions::find(status, ConditionType::Failed).unwrap();
    assert!(condition.message.starts_with("x."), "{condition:?}");
}

#[test]
fn pcp_30_output_after_an_error_is_a_late_row_and_the_phase_stays() {
    let (job, _) = after(
        claimed(json!({})),
        &row(1, "x", failed(Reason::PluginError, "")),
    );
    let before = status(&job).clone();
    let (job, fate) = after(job, &row(2, "y", RowOutcome::Succeeded));
    assert_eq!(
        fate,
        RowFate {
            late: true,
            repeated: false
        }
    );
    let output = status(&job).output.as_ref().unwrap();
    assert_eq!(phase_of(status(&job)), Phase::Failed);
    assert_eq!(status(&job).conditions, before.conditions);
    assert_eq!(status(&job).completion_time, before.completion_time);
    assert_eq!(
        (output.late_count, output.row_count, output.bytes),
        (1, 2, 1)
    );
    assert_eq!(output.sha256, before.output.unwrap().sha256);
    assert!(output.rows[1].late);
    assert_eq!(output.rows[1].content.as_deref(), Some("y"));
}

#[test]
fn a_second_completion_is_kept_as_a_late_row_and_changes_nothing_else() {
    let (job, _) = after(claimed(json!({})), &row(1, "a", RowOutcome::Succeeded));
    let before = status(&job).clone();
    let (job, fate) = after(job, &row(2, "b", failed(Reason::PluginError, "no")));
    assert!(fate.late && !fate.repeated);
    let (now, output) = (status(&job), status(&job).output.as_ref().unwrap());
    assert_eq!(phase_of(now), Phase::Succeeded);
    assert_eq!(now.conditions, before.conditions);
    assert_eq!((output.row_count, output.late_count), (2, 1));
    assert_eq!(output.preview, "a");
}

#[test]
fn repeated_row_changes_nothing() {
    let (job, _) = after(claimed(json!({})), &row(1, "a", RowOutcome::Succeeded));
    let (again, fate) =
        store_row(&job, CLAIM, &row(1, "a", RowOutcome::Succeeded), at(5), 0.0).unwrap();
    assert!(fate.repeated);
    assert_eq!(again, *status(&job));
}

#[test]
fn row_of_another_claim_or_out_of_order_is_refused() {
    let held = claimed(json!({}));
    assert_eq!(
        store_row(&held, OTHER, &row(1, "a", RowOutcome::More), now(), 0.0),
        Err(NotNow::Stale)
    );
    assert!(matches!(
        store_row(&held, CLAIM, &row(2, "a", RowOutcome::More), now(), 0.0),
        Err(NotNow::NotEligible(_))
    ));
    let expired = accepted(json!({"expireTime": "2026-11-22T11:59:59Z"}));
    assert_eq!(
        store_row(&expired, CLAIM, &row(1, "a", RowOutcome::More), now(), 0.0),
        Err(NotNow::Stale)
    );
}

#[test]
fn failed_attempt_backs_off_and_removes_its_rows() {
    let more = json!({"backoffLimit": 1, "deliveryPolicy": "AtLeastOnce"});
    let (job, _) = after(
        claimed(more),
        &row(1, "x", failed(Reason::CallFailed, "Unavailable: no route")),
    );
    let waiting = status(&job);
    assert_eq!(phase_of(waiting), Phase::Waiting);
    assert_eq!(waiting.output, None);
    assert_eq!(waiting.attempts[0].message, "Unavailable: no route");
    assert_eq!(
        said(waiting, ConditionType::Started),
        ("False", "CallFailed")
    );
    // The sidecar has not heard of it and sends the row again.
    assert_eq!(
        store_row(&job, CLAIM, &row(1, "x", RowOutcome::More), now(), 0.0),
        Err(NotNow::Stale)
    );
}

#[test]
fn some_failures_are_not_retried() {
    let more = json!({"backoffLimit": 1, "deliveryPolicy": "AtLeastOnce"});
    for reason in [
        Reason::OutputTooLarge,
        Reason::UnknownCommand,
        Reason::DeadlineExceeded,
    ] {
        let (job, _) = after(claimed(more.clone()), &row(1, "x", failed(reason, "so")));
        assert_eq!(
            (phase_of(status(&job)), status(&job).reason.as_str()),
            (Phase::Failed, reason.as_str())
        );
    }
}

#[test]
fn output_beyond_its_limit_fails_the_job_and_keeps_preview_and_digest() {
    let held = claimed(json!({"outputPolicy": {"inlineMaxBytes": 8, "maxBytes": 100}}));
    let row = StoredRow {
        bytes: 101,
        inline: None,
        chunks: 1,
        total_bytes: 101,
        preview: "abc".to_owned(),
        ..row(1, "abc", RowOutcome::Succeeded)
    };
    let (job, _) = after(held, &row);
    let status = status(&job);
    assert_eq!(
        (phase_of(status), status.reason.as_str()),
        (Phase::Failed, "OutputTooLarge")
    );
    let output = status.output.as_ref().unwrap();
    assert!(output.truncated);
    assert_eq!(output.preview, "abc");
    assert_eq!(output.sha256, hex_of(b"abc"));
    assert_eq!(output.bytes, 101);
}

#[test]
fn job_status_stays_small_with_any_rows() {
    use crate::job::output::fits_inline;
    let mut job = claimed(json!({}));
    let text = "x".repeat(20_000);
    for number in 1..=40 {
        let fits = fits_inline(&job, 20_000);
        let row = StoredRow {
            inline: fits.then(|| text.clone().into_bytes()),
            chunks: u32::from(!fits),
            preview: text.clone(),
            ..row(number, &text, RowOutcome::More)
        };
        job = after(job, &row).0;
    }
    let output = status(&job).output.as_ref().unwrap();
    assert_eq!(output.rows.len(), 16);
    assert_eq!(
        output.rows.iter().filter(|r| r.content.is_some()).count(),
        1
    );
    assert_eq!((output.row_count, output.chunks), (40, 39));
    assert_eq!(output.preview.len(), 1024);
    let bytes = serde_json::to_vec(&job).unwrap().len();
    assert!(bytes < 64 * 1024, "{bytes}");
    let too_large = row(41, "x", RowOutcome::More);
    assert!(store_row(&job, CLAIM, &too_large, now(), 0.0).is_err());
}

#[test]
fn bytes_and_text_with_nul_are_written_in_base64() {
    let mut bytes = row(1, "", RowOutcome::Succeeded);
    bytes.text = false;
    bytes.inline = Some(b"\x00\xff".to_vec());
    bytes.bytes = 2;
    let (job, _) = after(claimed(json!({})), &bytes);
    let output = status(&job).output.as_ref().unwrap();
    assert_eq!(output.encoding, Encoding::Base64);
    assert_eq!(output.rows[0].content.as_deref(), Some("AP8="));
    assert_eq!(output.preview, "AP8=");
    let (job, _) = after(claimed(json!({})), &row(1, "a\0b", RowOutcome::Succeeded));
    let output = status(&job).output.as_ref().unwrap();
    assert_eq!(output.rows[0].encoding, Encoding::Base64);
}

#[test]
fn pcp_31_refused_job_stays_invalid() {
    let job = job(json!({}));
    let status = refuse(&job, Reason::UnknownCommand, "no such command", now()).unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Invalid, "UnknownCommand")
    );
    assert_eq!(
        said(&status, ConditionType::Accepted),
        ("False", "UnknownCommand")
    );
    assert_eq!(said(&status, ConditionType::Failed).0, "absent");
    assert!(status.completion_time.is_some());
    // An accepted one that is judged again has no way back to Invalid.
    let ready = accepted(json!({}));
    let failed = refuse(&ready, Reason::UnknownCommand, "no such command", now()).unwrap();
    assert_eq!(phase_of(&failed), Phase::Failed);
}

#[test]
fn pcp_35_suspend_applies_to_unclaimed_jobs_only() {
    let ready = accepted(json!({}));
    let suspended = with(ready.clone(), suspend(&ready, at(1)).unwrap());
    assert_eq!(phase_of(status(&suspended)), Phase::Suspended);
    assert_eq!(
        said(status(&suspended), ConditionType::Suspended),
        ("True", "Suspended")
    );
    assert!(claim(&suspended, &choice(CLAIM), at(2)).is_err());
    let resumed = resume(&suspended, at(3)).unwrap();
    assert_eq!(phase_of(&resumed), Phase::Ready);
    assert_eq!(
        said(&resumed, ConditionType::Suspended),
        ("False", "Resumed")
    );

    let held = claimed(json!({}));
    assert_eq!(
        suspend(&held, at(1)),
        Err(NotNow::NotEligible("a pod has it"))
    );
    let refused = suspend_refused(&held, at(1)).unwrap();
    assert_eq!(phase_of(&refused), Phase::Claimed);
    assert_eq!(
        said(&refused, ConditionType::Suspended),
        ("False", "AlreadyClaimed")
    );
}

#[test]
fn ready_job_keeps_its_phase_when_its_plugin_is_missing() {
    let new = job(json!({}));
    let waiting = with(new.clone(), plugin_missing(&new, now()).unwrap());
    assert_eq!(phase_of(status(&waiting)), Phase::Waiting);
    assert_eq!(status(&waiting).reason, "PluginMissing");
    let ready = accepted(json!({}));
    let ready = with(ready.clone(), plugin_missing(&ready, now()).unwrap());
    assert_eq!(phase_of(status(&ready)), Phase::Ready);
    for job in [waiting, ready] {
        assert_eq!(
            said(status(&job), ConditionType::Accepted),
            ("Unknown", "PluginMissing")
        );
        let back = accept(&job, at(5)).unwrap();
        assert_eq!(
            (phase_of(&back), back.reason.as_str()),
            (Phase::Ready, "Eligible")
        );
    }
    let expiring = job(json!({"expireTime": "2026-11-22T12:00:05Z"}));
    let expiring = with(expiring.clone(), plugin_missing(&expiring, now()).unwrap());
    assert_eq!(expire(&expiring, at(5)).unwrap().reason, "Expired");
}

#[test]
fn deadline_counts_from_the_claim_and_is_not_retried() {
    let more =
        json!({"activeDeadlineSeconds": 10, "backoffLimit": 5, "deliveryPolicy": "AtLeastOnce"});
    let held = claimed(more);
    assert!(deadline_exceeded(&held, at(9)).is_err());
    let status = deadline_exceeded(&held, at(10)).unwrap();
    assert_eq!(
        (phase_of(&status), status.reason.as_str()),
        (Phase::Failed, "DeadlineExceeded")
    );
    assert!(status.claim.is_some());
    assert!(deadline_exceeded(&claimed(json!({})), at(9_999_999)).is_err());
}

#[test]
fn every_job_that_has_not_ended_can_be_cancelled() {
    let who = "anna: no longer needed";
    for job in [
        job(json!({})),
        accepted(json!({})),
        accepted(json!({"startTime": "2126-01-01T00:00:00Z"})),
        accepted(json!({"suspend": true})),
        claimed(json!({})),
    ] {
        let held = phase(&job).is_some_and(Phase::is_held);
        let status = cancel(&cancelled(job, who), at(1)).unwrap();
        assert_eq!(
            (phase_of(&status), status.reason.as_str()),
            (Phase::Failed, "Cancelled")
        );
        assert_eq!(status.claim.is_some(), held);
        assert_ne!(said(&status, ConditionType::Suspended).0, "True");
        let condition = crate::job::conditions::find(&status, ConditionType::Failed).unwrap();
        assert!(condition.message.contains(who), "{condition:?}");
    }
}

#[test]
fn final_phases_never_change() {
    let (succeeded, _) = after(claimed(json!({})), &row(1, "", RowOutcome::Succeeded));
    let held = claimed(json!({}));
    let lost = with(
        held.clone(),
        lose(&held, Some(CLAIM), &loss(), now(), 0.0).unwrap(),
    );
    let new = job(json!({}));
    let invalid = with(
        new.clone(),
        refuse(&new, Reason::BadInputs, "no", now()).unwrap(),
    );
    for job in [succeeded, lost, invalid] {
        let end = phase(&job).unwrap();
        let job = cancelled(job, "x");
        let results = [
            accept(&job, at(9)),
            wait(&job, Reason::PluginNotReady, "", at(9)),
            plugin_missing(&job, at(9)),
            refuse(&job, Reason::BadInputs, "", at(9)),
            ready(&job, at(9)),
            suspend(&job, at(9)),
            suspend_refused(&job, at(9)),
            resume(&job, at(9)),
            claim(&job, &choice(OTHER), at(9)),
            release(&job, CLAIM, at(9)),
            start(&job, CLAIM, at(9)),
            lose(&job, Some(CLAIM), &loss(), at(9), 0.0),
            lose(&job, None, &loss(), at(9), 0.0),
            expire(&job, at(9)),
            deadline_exceeded(&job, at(9)),
            cancel(&job, at(9)),
        ];
        for (index, result) in results.into_iter().enumerate() {
            assert!(result.is_err(), "{end}: {index}");
        }
    }
}

#[test]
fn start_time_may_be_a_century_ahead_or_in_1970() {
    let far = accepted(
        json!({"startTime": "2126-11-22T12:00:00Z", "expireTime": "9999-12-30T00:00:00Z"}),
    );
    assert_eq!(phase_of(status(&far)), Phase::Waiting);
    assert!(claim(&far, &choice(CLAIM), at(0)).is_err());
    let old = accepted(json!({"startTime": "1970-01-01T00:00:00Z"}));
    assert!(claim(&old, &choice(CLAIM), at(0)).is_ok());
}

#[test]
fn job_status_survives_a_round_trip() {
    let jobs = [
        accepted(json!({"expireTime": "2026-11-22T11:59:59Z"})),
        claimed(json!({"backoffLimit": 2})),
        after(claimed(json!({})), &row(1, "x", RowOutcome::Succeeded)).0,
    ];
    for job in jobs {
        let text: Value = serde_json::to_value(status(&job)).unwrap();
        let back: JobStatus = serde_json::from_value(text).unwrap();
        assert_eq!(back, *status(&job));
    }
}
