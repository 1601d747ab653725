//! Golden trees, from objects as the API server gives them.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use patchbay_api::Plugin;
use serde_json::{Value, json};

use super::summary::{PluginSummary, summarize};
use super::tree::draw;
use crate::color::Color;

fn plugin(status: Value) -> Plugin {
    let object = json!({
        "apiVersion": "patchbay.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "kv-go", "namespace": "demo", "generation": 2},
        "spec": {
            "replicas": 2,
            "image": "patchbay.dev/example-kv-go:v1",
            "command": ["/kv"],
            "protocol": {"goPlugin": {"cookie": {"key": "BASIC_PLUGIN", "value": "hello"}, "versions": [1, 2]}},
        },
        "status": status,
    });
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}"))
}

fn event(kind: &str, name: &str, type_: &str, minute: u8, reason: &str, note: &str) -> Event {
    let object = json!({
        "metadata": {"name": format!("{name}.{minute}"), "namespace": "demo"},
        "eventTime": format!("2026-01-02T03:{minute:02}:00.000000Z"),
        "regarding": {"kind": kind, "name": name, "namespace": "demo"},
        "type": type_, "reason": reason, "note": note,
    });
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{error}"))
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-02T03:00:00Z", "observedGeneration": 2,
    })
}

fn healthy() -> Value {
    let pod = |ordinal: i32, restarts: i32| {
        json!({
            "pod": format!("kv-go-{ordinal}-1"), "podUID": format!("uid-{ordinal}"), "ordinal": ordinal,
            "startId": "00112233445566aa", "startedAt": "2026-01-02T03:01:00Z", "restarts": restarts,
            "sidecarImage": "patchbay.dev/sidecar:0.1.0", "pluginImage": "patchbay.dev/example-kv-go:v1",
            "handshake": {"coreVersion": 1, "appVersion": 1, "offered": [1, 2], "transport": "unix", "tls": "None", "seconds": 0.1234},
            "state": "Ready",
        })
    };
    json!({
        "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2,
        "conditions": [
            condition("Accepted", "True", "Accepted", ""),
            condition("ResolvedRefs", "True", "Resolved", ""),
            condition("Handshaken", "True", "Handshaken", ""),
            condition("SidecarCurrent", "True", "Current", ""),
            condition("Ready", "True", "Ready", "2 of 2 replicas answer"),
        ],
        "provides": {"services": ["grpc.health.v1.Health", "plugin.GRPCStdio", "proto.KV"], "omitted": 3},
        "instances": [pod(0, 0), pod(1, 0)],
    })
}

fn drawn(summary: &PluginSummary, color: Color) -> String {
    let now: Timestamp = "2026-01-02T03:10:00Z".parse().unwrap_or_default();
    draw(summary, now, color)
}

#[test]
fn status_of_a_working_plugin_is_a_short_tree() {
    let events = [
        event(
            "Plugin",
            "kv-go",
            "Normal",
            1,
            "Created",
            "Pod kv-go-0-1 was created",
        ),
        event(
            "Plugin",
            "kv-go-old",
            "Warning",
            9,
            "Crashed",
            "of another plugin",
        ),
        event(
            "Pod",
            "kv-go-old-0-1",
            "Warning",
            9,
            "Failed",
            "of another plugin's pod",
        ),
        event(
            "Pod",
            "kv-go-0-1",
            "Warning",
            8,
            "Unhealthy",
            "Readiness probe failed: Starting: the plugin was started",
        ),
    ];
    let summary = summarize(&plugin(healthy()), &events);
    assert!(summary.ready);
    insta::assert_snapshot!(drawn(&summary, Color::None));
}

#[test]
fn status_of_a_failing_plugin_shows_the_problem_and_the_next_move() {
    let status = json!({
        "observedGeneration": 2, "replicas": 2, "readyReplicas": 0, "updatedReplicas": 2,
        "conditions": [
            condition("Accepted", "True", "Accepted", ""),
            condition("ResolvedRefs", "True", "Resolved", ""),
            condition("Handshaken", "False", "CookieRejected", "kv-go-0-1: the plugin says: \"This binary is a plugin.\""),
            condition("SidecarCurrent", "Unknown", "Pending", ""),
            condition("Ready", "False", "CookieRejected", "0 of 2 replicas answer"),
            condition("Degraded", "True", "CrashLoop", "restarted 4 times"),
        ],
        "instances": [{
            "pod": "kv-go-0-1", "podUID": "uid", "ordinal": 0, "startId": "ffff", "startedAt": "2026-01-02T03:09:30Z",
            "restarts": 4, "lastExit": "exit 1", "state": "BackingOff", "reason": "CookieRejected",
            "message": "the plugin says \u{1b}[31mno\nway",
        }],
        "instancesOmitted": 1,
        "update": {"change": "PluginSwap", "from": "a:1", "to": "a:2", "startedAt": "2026-01-02T03:05:00Z", "swapped": 0, "failed": 1},
    });
    let events = [
        event(
            "Pod",
            "kv-go-0-1",
            "Warning",
            8,
            "BackOff",
            "Back-off pulling\nimage",
        ),
        event(
            "Plugin",
            "kv-go",
            "Warning",
            9,
            "CookieRejected",
            "the cookie",
        ),
    ];
    let summary = summarize(&plugin(status), &events);
    assert!(!summary.ready);
    insta::assert_snapshot!(drawn(&summary, Color::None));
}

#[test]
fn color_changes_no_text() {
    let summary = summarize(&plugin(healthy()), &[]);
    let colored = drawn(&summary, Color::Ansi);
    let plain = ["1", "2", "31", "32", "33", "0"]
        .iter()
        .fold(colored.clone(), |text, code| {
            text.replace(&format!("\u{1b}[{code}m"), "")
        });
    assert_ne!(colored, plain);
    assert_eq!(plain, drawn(&summary, Color::None));
}

#[test]
fn plugin_without_status_is_not_ready() {
    let summary = summarize(&plugin(Value::Null), &[]);
    assert!(!summary.ready);
    assert!(drawn(&summary, Color::None).contains("Check that the operator is running."));
}

#[test]
fn ready_of_an_older_generation_is_not_ready() {
    let mut plugin = plugin(healthy());
    plugin.metadata.generation = Some(3);
    let summary = summarize(&plugin, &[]);
    assert!(!summary.ready);
    assert!(
        drawn(&summary, Color::None).contains("generation 3, status is of "),
        "{}",
        drawn(&summary, Color::None)
    );
}

#[test]
fn last_problem_is_the_present_one_then_a_warning_then_an_exit() {
    let warning = [event(
        "Plugin", "kv-go", "Warning", 4, "Crashed", "signal 9",
    )];
    let of = |status: Value, events: &[Event]| summarize(&plugin(status), events).last_problem;
    assert_eq!(of(healthy(), &[]), None);
    let warned = of(healthy(), &warning);
    assert_eq!(
        warned.as_ref().map(|t| (t.present, t.reason.as_str())),
        Some((false, "Crashed"))
    );

    let mut restarted = healthy();
    restarted["instances"][1]["lastExit"] = json!("signal 9");
    assert_eq!(
        of(restarted, &[]).and_then(|t| t.pod),
        Some("kv-go-1-1".to_owned())
    );

    let mut unready = healthy();
    unready["conditions"][4] = condition("Ready", "False", "Unhealthy", "");
    let now = of(unready, &warning);
    assert_eq!(
        now.as_ref().map(|t| (t.present, t.reason.as_str())),
        Some((true, "Unhealthy"))
    );
    assert_eq!(
        now.and_then(|t| t.next_move),
        Some("the maker of the plugin program")
    );
}
