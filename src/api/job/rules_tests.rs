//! One accepted and one rejected example for every rule. No rule is left out: the last test
//! compares with what the schemas publish.

use super::Job;
use crate::JobOutput;
use crate::published::{self, merge, violations};
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Case {
    name: &'static str,
    /// Merged into [`sample`]: the object before, when the rule is about a change.
    before: Option<Value>,
    /// Merged into [`sample`].
    accept: Value,
    reject: Value,
    /// What the message must say of the rejected one.
    says: &'static str,
}

fn sample() -> Value {
    json!({
        "apiVersion": "patchbay.dev/v1alpha1",
        "kind": "Job",
        "metadata": {"name": "fetch-1", "namespace": "demo"},
        "spec": {
            "pluginRef": {"name": "scraper"},
            "command": {"name": "wget", "inputs": [{"name": "url", "value": "a"}]},
            "startTime": "2026-11-22T12:00:00Z",
        }
    })
}

fn with(change: &Value) -> Value {
    let mut object = sample();
    merge(&mut object, change);
    object
}

fn new(name: &'static str, accept: Value, reject: Value, says: &'static str) -> Case {
    Case {
        name,
        before: None,
        accept: json!({"spec": accept}),
        reject: json!({"spec": reject}),
        says,
    }
}

/// A change of a spec that has all of `before`: to nothing else, and to `reject`.
fn fixed(name: &'static str, before: Value, reject: Value) -> Case {
    let before = json!({"spec": before});
    Case {
        name,
        accept: before.clone(),
        before: Some(before),
        reject: json!({"spec": reject}),
        says: "create a new Job",
    }
}

/// A change of status.
fn status(
    name: &'static str,
    before: Value,
    accept: Value,
    reject: Value,
    says: &'static str,
) -> Case {
    Case {
        name,
        before: Some(json!({"status": before})),
        accept: json!({"status": accept}),
        reject: json!({"status": reject}),
        says,
    }
}

fn claim(id: &str) -> Value {
    json!({
        "claimId": id, "sequence": 1, "observedResourceVersion": "7", "holderPod": "scraper-0-1",
        "holderPodUID": "u", "ledgerEpoch": "e", "claimedAt": "2026-11-22T12:00:00.000000Z"
    })
}

fn condition(type_: &str, status: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "Completed", "message": "",
        "lastTransitionTime": "2026-11-22T12:00:00Z"
    })
}

fn call(request: Value) -> Value {
    json!({"command": null, "call": {"service": "proto.KV", "method": "Get", "request": request}})
}

fn target(location: &str, port: &str) -> Value {
    json!({"target": {"client": location, "port": port}})
}

fn of_the_spec() -> Vec<Case> {
    vec![
        new(
            "command and call",
            call(json!({"key": "a"})),
            json!({"call": {"service": "proto.KV", "method": "Get"}}),
            "both command and call, or neither",
        ),
        new(
            "order of times",
            json!({"expireTime": "2026-11-22T12:00:00.000001Z"}),
            json!({"expireTime": "2026-11-22T13:00:00+01:00"}),
            "spec.expireTime is 2026-11-22T13:00:00+01:00 and startTime 2026-11-22T12:00:00Z",
        ),
        new(
            "a start in milliseconds",
            json!({"startTime": "1970-01-01T00:00:00Z"}),
            json!({"startTime": "2200-01-01T00:00:00Z"}),
            "the time is 2200-01-01T00:00:00Z",
        ),
        new(
            "an end before time",
            json!({"startTime": null, "expireTime": "2199-12-31T23:59:59.999999Z"}),
            json!({"startTime": null, "expireTime": "1969-12-31T23:59:59Z"}),
            "the time is 1969-12-31T23:59:59Z",
        ),
        new(
            "further attempts",
            json!({"backoffLimit": 2, "deliveryPolicy": "AtLeastOnce"}),
            json!({"backoffLimit": 2}),
            "expected retries with AtLeastOnce only",
        ),
        new(
            "back-off",
            json!({"backoff": {"initialSeconds": 5, "maxSeconds": 5}}),
            json!({"backoff": {"initialSeconds": 6, "maxSeconds": 5}}),
            "backoff.initialSeconds is greater than maxSeconds",
        ),
        new(
            "name of the plugin",
            json!({"pluginRef": {"name": "sample-plugin"}}),
            json!({"pluginRef": {"name": "SamplePlugin"}}),
            "pluginRef.name is SamplePlugin",
        ),
        new(
            "client",
            target("10.1.2.3", ""),
            target("10.1.2.3:10000", ""),
            "target.client is 10.1.2.3:10000",
        ),
        new(
            "port",
            target("", "65535"),
            target("", "010000"),
            "target.port is 010000",
        ),
    ]
}

fn of_a_change() -> Vec<Case> {
    vec![
        fixed("plugin", json!({}), json!({"pluginRef": {"name": "other"}})),
        fixed(
            "target",
            json!({"target": {"client": "a", "optional": {"a": 1}}}),
            json!({"target": {"client": "a", "optional": {"b": 1}}}),
        ),
        fixed(
            "command",
            json!({}),
            json!({"command": {"inputs": [{"name": "url", "value": "b"}]}}),
        ),
        fixed("call", call(json!({"key": "a"})), call(json!({"key": "b"}))),
        fixed("start", json!({}), json!({"startTime": null})),
        fixed(
            "deadline",
            json!({"activeDeadlineSeconds": 5}),
            json!({"activeDeadlineSeconds": 6}),
        ),
        fixed(
            "limit",
            json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 2}),
            json!({"deliveryPolicy": "AtLeastOnce", "backoffLimit": 3}),
        ),
        fixed(
            "back-off",
            json!({}),
            json!({"backoff": {"maxSeconds": 99}}),
        ),
        fixed(
            "policy",
            json!({}),
            json!({"deliveryPolicy": "AtLeastOnce"}),
        ),
        fixed(
            "output",
            json!({}),
            json!({"outputPolicy": {"maxBytes": 1}}),
        ),
    ]
}

fn of_the_status() -> Vec<Case> {
    let held = |phase: &str, id: &str| json!({"phase": phase, "attempt": 1, "claim": claim(id)});
    vec![
        status(
            "status vanishes",
            held("Running", "a"),
            held("Succeeded", "a"),
            json!(null),
            "status was removed",
        ),
        status(
            "out of the end",
            json!({"phase": "Failed"}),
            json!({"phase": "Failed", "output": {"lateCount": 1}}),
            json!({"phase": "Ready"}),
            "expected no change from Invalid, Succeeded and Failed",
        ),
        status(
            "phase vanishes",
            json!({"phase": "Waiting"}),
            json!({"phase": "Ready"}),
            json!({"reason": "Eligible"}),
            "was removed or was changed from a final phase",
        ),
        status(
            "ready and back",
            json!({"phase": "Ready"}),
            json!({"phase": "Suspended"}),
            json!({"phase": "Waiting"}),
            "even if a clock is set back",
        ),
        status(
            "backing off",
            held("Running", "a"),
            json!({"phase": "Waiting", "attempt": 1}),
            json!({"phase": "Claimed", "attempt": 1}),
            "without a claim",
        ),
        status(
            "claimed by nobody",
            json!({"phase": "Ready"}),
            held("Claimed", "a"),
            json!({"phase": "Claimed"}),
            "without a claim",
        ),
        status(
            "over a claim",
            held("Claimed", "a"),
            held("Running", "a"),
            held("Claimed", "b"),
            "replaced by another claim",
        ),
        status(
            "attempts",
            json!({"phase": "Waiting", "attempt": 1}),
            json!({"phase": "Ready", "attempt": 1}),
            json!({"phase": "Ready", "attempt": 0}),
            "status.attempt was decreased",
        ),
        status(
            "two ends",
            held("Running", "a"),
            json!({"phase": "Failed", "attempt": 1, "conditions": [
                condition("Complete", "False"), condition("Failed", "True")
            ]}),
            json!({"phase": "Failed", "attempt": 1, "conditions": [
                condition("Complete", "True"), condition("Failed", "True")
            ]}),
            "both Complete and Failed",
        ),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases = of_the_spec();
    cases.extend(of_a_change());
    cases.extend(of_the_status());
    cases
}

#[test]
fn every_rule_accepts_the_valid_and_rejects_the_invalid_example() {
    let schema = published::schema::<Job>();
    for case in cases() {
        let before = case.before.as_ref().map(with);
        let good = violations(&schema, &with(&case.accept), before.as_ref());
        assert!(good.is_empty(), "{}: {good:#?}", case.name);
        let bad = violations(&schema, &with(&case.reject), before.as_ref());
        assert!(
            bad.len() == 1 && bad[0].message.contains(case.says),
            "{}: {bad:#?}",
            case.name
        );
    }
}

#[test]
fn mutable_fields_can_be_changed() {
    let schema = published::schema::<Job>();
    let change = json!({"spec": {
        "suspend": true, "priority": 7, "ttlSecondsAfterFinished": 0,
        "expireTime": "2026-12-01T00:00:00Z",
        // The same time, as another program writes it.
        "startTime": "2026-11-22T12:00:00.000000Z"
    }});
    let found = violations(&schema, &with(&change), Some(&sample()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn target_client_must_be_an_address_or_a_host_name() {
    let schema = published::schema::<Job>();
    let found = |location: &str| {
        violations(&schema, &with(&json!({"spec": target(location, "")})), None).len()
    };
    for good in [
        "",
        "10.1.2.3",
        "2001:db8::1",
        "::1",
        "::ffff:10.1.2.3",
        "::FFFF:10.1.2.3",
        "worker-7",
        "Worker_7.Example.org",
    ] {
        assert_eq!(found(good), 0, "{good}");
    }
    for bad in [
        " ",
        "10.1.2.3 ",
        "a b",
        "[::1]",
        "[::1]:80",
        "worker:80",
        "fe80::1%eth0",
        "-a",
        "a.",
        "é",
        "1::2::3",
        "a/b",
        "\u{0}",
    ] {
        assert_eq!(found(bad), 1, "{bad:?}");
    }
}

#[test]
fn target_port_must_be_a_decimal_number() {
    let schema = published::schema::<Job>();
    let found =
        |port: &str| violations(&schema, &with(&json!({"spec": target("", port)})), None).len();
    for good in ["", "1", "80", "65535"] {
        assert_eq!(found(good), 0, "{good}");
    }
    for bad in [
        "0", "080", "65536", "99999", "-1", "+1", "1 ", "1e3", "٣", "http",
    ] {
        assert_eq!(found(bad), 1, "{bad}");
    }
}

#[test]
fn final_phases_cannot_be_changed_and_other_phases_can() {
    let schema = published::schema::<Job>();
    let phases = [
        "Invalid",
        "Waiting",
        "Ready",
        "Suspended",
        "Claimed",
        "Running",
        "Succeeded",
        "Failed",
    ];
    for from in phases {
        for to in phases {
            let at = |phase| with(&json!({"status": {"phase": phase, "claim": claim("a")}}));
            let refused = !violations(&schema, &at(to), Some(&at(from))).is_empty();
            let end = ["Invalid", "Succeeded", "Failed"].contains(&from);
            let back = (from, to) == ("Ready", "Waiting");
            assert_eq!(refused, (end && from != to) || back, "{from} to {to}");
        }
    }
}

#[test]
fn job_output_is_immutable() {
    let schema = published::schema::<JobOutput>();
    let object = |content: &str| {
        json!({
            "apiVersion": "patchbay.dev/v1alpha1",
            "kind": "JobOutput",
            "metadata": {"name": "fetch-1-1-1-0", "namespace": "demo"},
            "spec": {
                "job": "fetch-1", "attempt": 1, "row": 1, "chunk": 0, "bytes": 1,
                "sha256": "0".repeat(64), "encoding": "Text", "content": content
            }
        })
    };
    assert!(violations(&schema, &object("a"), None).is_empty());
    assert!(violations(&schema, &object("a"), Some(&object("a"))).is_empty());
    let bad = violations(&schema, &object("b"), Some(&object("a")));
    assert!(
        bad.len() == 1 && bad[0].message.contains("stored output is immutable"),
        "{bad:#?}"
    );
    assert_eq!(
        published::rules(&schema),
        BTreeSet::from([bad[0].rule.clone()])
    );
}

#[test]
fn invalid_name_is_rejected_and_shown_in_the_message() {
    let schema = published::schema::<Job>();
    for bad in ["Job", "job.1", &"a".repeat(49)] {
        let found = violations(&schema, &with(&json!({"metadata": {"name": bad}})), None);
        assert!(
            found.len() == 1 && found[0].message.contains(bad),
            "{found:#?}"
        );
    }
    for good in ["9", &"a".repeat(48)] {
        let object = with(&json!({"metadata": {"name": good}}));
        assert!(violations(&schema, &object, None).is_empty());
    }
}

#[test]
fn every_published_rule_has_examples() {
    let schema = published::schema::<Job>();
    let bad_name = with(&json!({"metadata": {"name": "Job"}}));
    let mut tried: BTreeSet<String> = violations(&schema, &bad_name, None)
        .into_iter()
        .map(|v| v.rule)
        .collect();
    for case in cases() {
        let before = case.before.as_ref().map(with);
        let found = violations(&schema, &with(&case.reject), before.as_ref());
        tried.extend(found.into_iter().map(|v| v.rule));
    }
    assert_eq!(published::rules(&schema), tried);
}
