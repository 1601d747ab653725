//! Lives of Jobs at random: the rules that hold for every change, whichever it is.

use super::super::*;
use crate::job::conditions::is_true;
use crate::job::samples::{at, choice, job, row, with};
use patchbay_api::names::CANCEL_ANNOTATION;
use proptest::prelude::*;
use serde_json::json;

/// The steps that the phases allow; `None` is before the first write.
fn allowed(from: Option<Phase>, to: Option<Phase>) -> bool {
    use Phase::{Claimed, Failed, Invalid, Ready, Running, Succeeded, Suspended, Waiting};
    from == to
        || match from {
            // A new Job whose time is over, or that is cancelled, ends at once.
            None => matches!(to, Some(Waiting | Ready | Invalid | Suspended | Failed)),
            Some(Waiting) => matches!(to, Some(Ready | Claimed | Suspended | Failed | Invalid)),
            Some(Ready) => matches!(to, Some(Claimed | Suspended | Failed)),
            Some(Suspended) => matches!(to, Some(Waiting | Ready | Failed)),
            Some(Claimed) => matches!(to, Some(Running | Ready | Succeeded | Failed | Waiting)),
            Some(Running) => matches!(to, Some(Succeeded | Failed | Waiting)),
            Some(Invalid | Succeeded | Failed) => false,
        }
}

fn id(number: u8) -> String {
    format!("{:032}", number % 4)
}

/// One change of a Job, whichever the numbers say.
fn change(job: &Job, what: u8, which: u8, now: Timestamp) -> Result<JobStatus, NotNow> {
    let held = job
        .status
        .as_ref()
        .and_then(|status| status.claim.as_ref())
        .map_or_else(|| id(which), |claim| claim.claim_id.clone());
    let claim_id = if which < 8 { held } else { id(which) };
    let loss = Loss {
        message: "gone".to_owned(),
        exit: None,
    };
    let next = job
        .status
        .as_ref()
        .and_then(|status| status.output.as_ref())
        .map_or(1, |output| output.row_count + 1);
    let number = u32::try_from(next).unwrap() - u32::from(which.is_multiple_of(5));
    let outcome = match which % 3 {
        0 => RowOutcome::More,
        1 => RowOutcome::Succeeded,
        _ => RowOutcome::Failed {
            reason: Reason::PluginError,
            message: "x".to_owned(),
        },
    };
    match what % 17 {
        0 => accept(job, now),
        1 => wait(job, Reason::PluginNotReady, "not yet", now),
        2 => plugin_missing(job, now),
        3 => refuse(job, Reason::UnknownCommand, "no", now),
        4 => ready(job, now),
        5 => suspend(job, now),
        6 => suspend_refused(job, now),
        7 => resume(job, now),
        8 | 16 => claim(job, &choice(&id(which)), now),
        9 => release(job, &claim_id, now),
        10 => start(job, &claim_id, now),
        11 => lose(job, Some(&claim_id), &loss, now, 0.5),
        12 => lose(job, None, &loss, now, 0.5),
        13 => expire(job, now),
        14 => deadline_exceeded(job, now),
        _ => store_row(job, &claim_id, &row(number, "x", outcome), now, 0.5)
            .map(|(status, _)| status),
    }
}

proptest! {
    // A seed of a failure is turned into a test by hand; a file of seeds would lie among the crates.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_random_change_satisfies_the_rules(
        retries in 0..10i32,
        at_least_once in any::<bool>(),
        expire in proptest::option::of(1..200i64),
        steps in proptest::collection::vec((any::<u8>(), 0..12u8, 0..15i64, any::<u8>()), 1..80),
    ) {
        let policy = if at_least_once { "AtLeastOnce" } else { "AtMostOnce" };
        let mut spec = json!({
            "backoffLimit": retries, "deliveryPolicy": policy, "activeDeadlineSeconds": 30,
            "backoff": {"initialSeconds": 1, "maxSeconds": 4},
        });
        if let Some(expire) = expire {
            spec["expireTime"] = json!(at(expire).to_string());
        }
        let mut job = job(spec);
        let mut seconds = 0;
        for (what, which, wait, edit) in steps {
            seconds += wait;
            match edit {
                0..6 => job.spec.suspend = !job.spec.suspend,
                6..8 => {
                    let notes = job.metadata.annotations.get_or_insert_default();
                    notes.insert(CANCEL_ANNOTATION.to_owned(), String::new());
                }
                _ => {}
            }
            let now = at(seconds);
            let result = if job.metadata.annotations.is_some() && what < 64 {
                cancel(&job, now)
            } else {
                change(&job, what, which, now)
            };
            let Ok(after) = result else { continue };
            let before = job.status.clone().unwrap_or_default();
            prop_assert!(allowed(before.phase, after.phase), "{:?} to {:?}", before.phase, after.phase);
            let (old, new) = (&before.claim, &after.claim);
            if let (Some(old), Some(new)) = (old, new) {
                prop_assert_eq!(old, new, "a claim follows another directly");
            }
            prop_assert!(after.attempt >= before.attempt);
            prop_assert!(after.attempt <= before.attempt + 1);
            let most = 1 + i32::from(at_least_once) * retries;
            prop_assert!(after.attempt <= most, "attempt {} of {most}", after.attempt);
            prop_assert!(after.attempts.len() <= 9);
            prop_assert!(after.attempts.windows(2).all(|w| w[0].attempt + 1 == w[1].attempt));
            let held = after.phase.is_some_and(Phase::is_held);
            prop_assert!(!held || after.claim.is_some());
            if matches!(after.phase, Some(Phase::Ready | Phase::Waiting | Phase::Suspended)) {
                prop_assert!(after.claim.is_none());
            }
            let ended = after.phase.is_some_and(Phase::is_terminal);
            prop_assert_eq!(ended, after.completion_time.is_some());
            let is = |type_| is_true(&after, type_);
            prop_assert_eq!(is(ConditionType::Complete), after.phase == Some(Phase::Succeeded));
            prop_assert_eq!(is(ConditionType::Failed), after.phase == Some(Phase::Failed));
            prop_assert_eq!(is(ConditionType::Suspended), after.phase == Some(Phase::Suspended));
            for type_ in ConditionType::JOB {
                prop_assert!(crate::job::conditions::find(&after, type_).is_some());
            }
            prop_assert!(after.conditions.iter().all(|c| !c.reason.is_empty() && c.message.len() <= 1024));
            prop_assert!(Reason::parse(&after.reason).is_some());
            if let Some(output) = &after.output {
                let rows = output.rows.iter().map(|row| row.row);
                prop_assert!(rows.eq(1..=i32::try_from(output.rows.len()).unwrap()));
                prop_assert!(output.row_count >= i32::try_from(output.rows.len()).unwrap());
            }
            job = with(job, after);
        }
    }
}
