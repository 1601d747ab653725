//! Snapshots of descriptions, from objects as the API server returns them.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use patchbay_api::{Job, Plugin};
use serde_json::{Value, json};

use super::{JobObjects, PluginLookup, describe, text};
use crate::color::Color;

const CLAIM: &str = "00112233445566778899aabbccddeeff";

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap_or_default()
}

fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
        "metadata": {"name": "fetch", "namespace": "demo", "uid": "uid-job", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"pluginRef": {"name": "scraper"}, "command": {"name": "wget"}},
        "status": status,
    });
    if let (Some(all), Some(more)) = (job["spec"].as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    parse(job)
}

fn plugin(ready: &str, reason: &str, message: &str) -> Plugin {
    parse(json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin",
        "metadata": {"name": "scraper", "namespace": "demo"},
        "spec": {"image": "i", "command": ["/kv"], "protocol": {"goPlugin": {"cookie": {"key": "k", "value": "v"}, "versions": [1]}}},
        "status": {
            "conditions": [condition("Ready", ready, reason, message, "00:00:00")],
            "instances": [{"pod": "scraper-0-1", "podUID": "uid-0", "ordinal": 0, "state": "Ready"}],
        },
    }))
}

fn ready_plugin() -> PluginLookup {
    PluginLookup::Found(Box::new(plugin("True", "Ready", "1 of 1 replicas answer")))
}

fn condition(type_: &str, status: &str, reason: &str, message: &str, time: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": format!("2026-01-01T{time}Z"),
    })
}

fn accepted() -> Value {
    let message = "the plugin takes it as it is written";
    condition("Accepted", "True", "Accepted", message, "00:00:01")
}

fn eligible(time: &str) -> Value {
    let message = "it can be handed out. Next move: Patchbay.";
    condition("Eligible", "True", "Eligible", message, time)
}

fn claimed(time: &str) -> Value {
    let message = "pod scraper-0-1 has it. Next move: Patchbay.";
    condition("Claimed", "True", "Claimed", message, time)
}

fn not_started() -> Value {
    condition(
        "Started",
        "False",
        "NotStarted",
        "no progress yet",
        "00:00:01",
    )
}

fn started(time: &str) -> Value {
    let message = "the plugin works on it. Next move: Patchbay.";
    condition("Started", "True", "Started", message, time)
}

fn claim(time: &str) -> Value {
    json!({
        "claimId": CLAIM, "sequence": 7, "observedResourceVersion": "41", "holderPod": "scraper-0-1",
        "holderPodUID": "uid-0", "ledgerEpoch": "e", "claimedAt": format!("2026-01-01T{time}Z"),
    })
}

fn chunk(name: &str, time: &str) -> ObjectMeta {
    parse(json!({"name": name, "creationTimestamp": format!("2026-01-01T{time}Z")}))
}

fn event(type_: &str, reason: &str, note: &str, time: &str) -> Event {
    parse(json!({
        "metadata": {"name": format!("fetch.{time}"), "namespace": "demo"},
        "eventTime": format!("2026-01-01T{time}Z"),
        "regarding": {"kind": "Job", "name": "fetch", "namespace": "demo", "uid": "uid-job"},
        "type": type_, "reason": reason, "note": note,
    }))
}

fn printed(job: &Job, objects: JobObjects) -> String {
    text::print(&describe(job, objects, now()), now(), Color::None)
}

fn with_plugin(plugin: PluginLookup) -> JobObjects {
    JobObjects {
        plugin,
        ..JobObjects::default()
    }
}

#[test]
fn describe_of_a_waiting_job_says_until_when() {
    let message = "its start time is 2026-01-01T00:15:00.000000Z. Next move: Patchbay.";
    let job = job(
        json!({"startTime": "2026-01-01T00:15:00.000000Z", "expireTime": "2026-01-01T01:15:00.000000Z"}),
        json!({
            "phase": "Waiting", "reason": "StartTimeInFuture",
            "conditions": [accepted(), condition("Eligible", "False", "StartTimeInFuture", message, "00:00:01")],
        }),
    );
    insta::assert_snapshot!(printed(&job, with_plugin(ready_plugin())));
}

#[test]
fn describe_of_a_ready_job_says_why_its_plugin_does_not_take_it() {
    let job = job(
        json!({"expireTime": "2026-01-01T01:00:00.000000Z"}),
        json!({"phase": "Ready", "reason": "Eligible", "conditions": [accepted(), eligible("00:00:01")]}),
    );
    let message = "The plugin ends again and again. Next move: the maker of the plugin program.";
    let plugin = plugin("False", "CrashLoop", message);
    insta::assert_snapshot!(printed(
        &job,
        with_plugin(PluginLookup::Found(Box::new(plugin)))
    ));
}

fn claimed_job(started: Value) -> Job {
    job(
        json!({"activeDeadlineSeconds": 600}),
        json!({
            "phase": "Claimed", "reason": "Claimed", "attempt": 1, "claim": claim("00:05:00.250000"),
            "startTime": "2026-01-01T00:05:00.250000Z",
            "conditions": [accepted(), eligible("00:00:01"), claimed("00:05:00"), started],
        }),
    )
}

#[test]
fn describe_of_a_claimed_job_does_not_claim_a_delivery_that_is_not_known() {
    let text = printed(&claimed_job(not_started()), with_plugin(ready_plugin()));
    assert!(!text.contains("Delivered"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn describe_of_a_claimed_job_shows_the_delivery_when_it_is_known() {
    let delivered = condition(
        "Started",
        "False",
        "Delivered",
        "the plugin has received it",
        "00:00:01",
    );
    insta::assert_snapshot!(printed(
        &claimed_job(delivered),
        with_plugin(ready_plugin())
    ));
}

#[test]
fn describe_of_a_running_job_shows_output_and_a_lost_pod() {
    let job = job(
        json!({}),
        json!({
            "phase": "Running", "reason": "Started", "attempt": 1, "claim": claim("00:05:00.900000"),
            "conditions": [accepted(), eligible("00:00:01"), claimed("00:05:00"), started("00:05:00")],
            "output": {"bytes": 6, "rowCount": 1, "rows": [{"row": 1, "bytes": 6, "encoding": "Text", "content": "line\n\u{1b}"}]},
        }),
    );
    let mut plugin = plugin("True", "Ready", "");
    if let Some(status) = &mut plugin.status {
        status.instances[0].pod_uid = "uid-of-the-next-pod".to_owned();
    }
    insta::assert_snapshot!(printed(
        &job,
        with_plugin(PluginLookup::Found(Box::new(plugin)))
    ));
}

#[test]
fn describe_of_a_succeeded_job_lists_large_output_by_its_job_outputs() {
    let row = |row: i32| match row {
        1 => json!({"row": 1, "bytes": 5, "encoding": "Text", "content": "first"}),
        row => json!({"row": row, "bytes": 600_000, "encoding": "Text", "chunks": 2}),
    };
    let job = job(
        json!({"ttlSecondsAfterFinished": 3600}),
        json!({
            "phase": "Succeeded", "reason": "Completed", "attempt": 1, "claim": claim("00:05:00.250000"),
            "completionTime": "2026-01-01T00:05:59.500000Z",
            "conditions": [
                accepted(), eligible("00:00:01"), claimed("00:05:00"), started("00:05:02"),
                condition("Complete", "True", "Completed", "the plugin answered and its output is stored", "00:05:59"),
            ],
            "output": {"bytes": 15_000_005, "rowCount": 28, "chunks": 51, "rows": (1..=16).map(row).collect::<Vec<_>>(), "lateCount": 1},
        }),
    );
    let outputs = (2..=26)
        .flat_map(|row| (0..2).map(move |chunk| (row, chunk)))
        .map(|(row, piece)| {
            chunk(
                &format!("fetch-1-{row}-{piece}"),
                &format!("00:05:{:02}", row + 2),
            )
        })
        .chain([
            chunk("fetch-1-27-0", "00:05:59"),
            chunk("fetch-1-28-0", "00:08:00"),
        ])
        .collect();
    let objects = JobObjects {
        plugin: ready_plugin(),
        outputs,
        events: vec![
            event("Normal", "Completed", "repeats the end", "00:05:59.600000"),
            event(
                "Normal",
                "LateOutput",
                "row 28 came after the end of the job and is kept as a late one",
                "00:08:00.000000",
            ),
        ],
        ..JobObjects::default()
    };
    insta::assert_snapshot!(printed(&job, objects));
}

#[test]
fn describe_of_a_failed_job_says_whose_move_it_is() {
    let message =
        "the plugin process ended (signal 9). Next move: the maker of the plugin program.";
    let job = job(
        json!({}),
        json!({
            "phase": "Failed", "reason": "PluginLost", "attempt": 1, "claim": claim("00:05:00.250000"),
            "completionTime": "2026-01-01T00:06:00.125000Z",
            "conditions": [
                accepted(), eligible("00:00:01"), claimed("00:05:00"), started("00:05:02"),
                condition("Failed", "True", "PluginLost", message, "00:06:00"),
            ],
        }),
    );
    let objects = JobObjects {
        plugin: ready_plugin(),
        events: vec![
            event("Warning", "PluginLost", message, "00:06:00.300000"),
            event(
                "Warning",
                "ReconcileFailed",
                "a row of output cannot be stored: quota",
                "00:05:30.000000",
            ),
        ],
        retries: vec![parse(json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job", "metadata": {"name": "fetch-r1"},
            "spec": {"pluginRef": {"name": "scraper"}, "command": {"name": "wget"}},
            "status": {"phase": "Succeeded", "reason": "Completed"},
        }))],
        errors: vec!["reading JobOutputs: not allowed: no".to_owned()],
        ..JobObjects::default()
    };
    insta::assert_snapshot!(printed(&job, objects));
}

#[test]
fn describe_of_a_retried_job_shows_every_attempt() {
    let attempt = |attempt: i32, minute: u8| {
        json!({
            "attempt": attempt, "claimId": format!("{attempt:032x}"), "holderPod": "scraper-0-1",
            "claimedAt": format!("2026-01-01T00:{minute:02}:00.100000Z"), "endedAt": format!("2026-01-01T00:{minute:02}:00.900000Z"),
            "reason": "PluginError", "message": "no route to host",
        })
    };
    let message = "the next attempt is at 2026-01-01T00:12:00.000000Z; no route to host. Next move: Patchbay.";
    let mut job = job(
        json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 3}),
        json!({
            "phase": "Waiting", "reason": "BackingOff", "attempt": 2, "attempts": [attempt(1, 5), attempt(2, 6)],
            "nextAttemptTime": "2026-01-01T00:12:00.000000Z", "startTime": "2026-01-01T00:05:00.100000Z",
            "conditions": [
                accepted(), condition("Eligible", "False", "BackingOff", message, "00:06:00"),
                condition("Claimed", "False", "PluginError", "no route to host", "00:06:00"),
                condition("Started", "False", "PluginError", "no route to host", "00:06:00"),
            ],
        }),
    );
    job.metadata.labels = Some([("patchbay.dev/retry-of".to_owned(), "first".to_owned())].into());
    let objects = JobObjects {
        plugin: ready_plugin(),
        outputs: vec![chunk("fetch-1-1-0", "00:05:00")],
        events: vec![event(
            "Warning",
            "PluginError",
            "no route to host",
            "00:05:01.000000",
        )],
        ..JobObjects::default()
    };
    insta::assert_snapshot!(printed(&job, objects));
}

#[test]
fn describe_of_an_invalid_job_shows_the_refusal() {
    let message = "the plugin has no command \"wgte\"; did you mean \"wget\"? Next move: the author of this Job.";
    let job = job(
        json!({"command": {"name": "wgte"}}),
        json!({
            "phase": "Invalid", "reason": "UnknownCommand", "completionTime": "2026-01-01T00:00:01.250000Z",
            "conditions": [
                condition("Accepted", "False", "UnknownCommand", message, "00:00:01"),
                condition("Eligible", "False", "UnknownCommand", message, "00:00:01"),
            ],
        }),
    );
    insta::assert_snapshot!(printed(&job, with_plugin(ready_plugin())));
}

#[test]
fn describe_of_an_expired_job_places_its_row_at_the_end() {
    let output = json!({"bytes": 11, "rowCount": 1, "rows": [{"row": 1, "bytes": 11, "encoding": "Text", "content": "Job Timeout"}]});
    let job = job(
        json!({"expireTime": "2026-01-01T00:02:00.000000Z"}),
        json!({
            "phase": "Failed", "reason": "Expired", "completionTime": "2026-01-01T00:02:00.001000Z", "output": output,
            "conditions": [accepted(), condition("Failed", "True", "Expired", "too late", "00:02:00")],
        }),
    );
    let text = printed(&job, with_plugin(ready_plugin()));
    let steps: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("  2026"))
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert_eq!(steps, ["Created", "Accepted", "Output", "Failed"], "{text}");
}

#[test]
fn describe_as_json_has_times_reasons_and_the_next_move() {
    let job = claimed_job(not_started());
    let description = describe(&job, with_plugin(ready_plugin()), now());
    insta::assert_json_snapshot!(description);
}

#[test]
fn describe_says_that_the_plugin_is_missing_only_when_it_is() {
    let job = job(json!({}), json!({"phase": "Ready", "reason": "Eligible"}));
    let text = printed(&job, with_plugin(PluginLookup::Unknown));
    assert!(!text.contains("does not exist"), "{text}");
    let text = printed(&job, with_plugin(PluginLookup::Missing));
    assert!(text.contains("Plugin scraper does not exist"), "{text}");
}

#[test]
fn describe_of_a_new_job_waits_for_the_operator() {
    let text = printed(&job(json!({}), Value::Null), JobObjects::default());
    assert!(
        text.contains("Waiting for: the operator to process the new Job"),
        "{text}"
    );
}
