use clap::Parser;
use jiff::Timestamp;
use patchbay_api::{Job, Plugin};
use serde_json::{Value, json};

use super::queue::{QueueRows, table};
use super::retry::retry_job;
use super::submit::job;
use crate::args::{Cli, CliCommand, SubmitArgs};

const NOW: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap_or_default()
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

fn scraper(commands: Value) -> Plugin {
    parse(json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin", "metadata": {"name": "scraper"},
        "spec": {"image": "i", "command": ["python3"], "protocol": {"pcpController": {"port": 10000}}},
        "status": {"provides": {"commands": commands}},
    }))
}

fn wget() -> Value {
    json!([{"name": "wget", "output": true, "inputs": [{"name": "Target IP Address"}]}])
}

fn submit(line: &[&str]) -> SubmitArgs {
    let words = [&["x", "submit", "scraper"], line].concat();
    match Cli::try_parse_from(words).map(|read| read.command) {
        Ok(CliCommand::Submit(submit)) => submit,
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("{error}"),
    }
}

fn made(line: &[&str]) -> Result<Value, String> {
    let job = job(&scraper(wget()), &submit(line), now())?;
    Ok(serde_json::to_value(&job.spec).unwrap_or_default())
}

#[test]
fn submit_matches_values_to_inputs_by_position_or_name() {
    for line in [
        &["wget", "10.1.2.3"][..],
        &["wget", "Target IP Address=10.1.2.3"][..],
    ] {
        let spec = made(line).unwrap_or_default();
        assert_eq!(
            spec["command"],
            json!({"name": "wget", "inputs": [{"name": "Target IP Address", "value": "10.1.2.3"}]})
        );
    }
    let spec = made(&["wget", "http://x/?a=b"]).unwrap_or_default();
    assert_eq!(spec["command"]["inputs"][0]["value"], "http://x/?a=b");
}

#[test]
fn submit_is_refused_when_the_plugin_does_not_know_the_work() {
    let error = made(&["wegt", "1"]).err().unwrap_or_default();
    assert!(error.contains("it has wget; did you mean wget?"), "{error}");
    let error = made(&["wget", "1", "2"]).err().unwrap_or_default();
    assert!(error.contains("value number 2"), "{error}");
    let error = made(&["proto.KV/Get", "[1]"]).err().unwrap_or_default();
    assert!(error.contains("expected a JSON object"), "{error}");
    let error = made(&["wget", "1", "--start", "noon"])
        .err()
        .unwrap_or_default();
    assert!(error.contains("\"noon\""), "{error}");
}

#[test]
fn submit_of_a_method_is_a_call_and_times_may_be_durations() {
    let line = [
        "proto.KV/Get",
        r#"{"key": "a"}"#,
        "--start",
        "+1m",
        "--expire",
        "+2m",
    ];
    let spec = made(&line).unwrap_or_default();
    assert_eq!(
        spec["call"],
        json!({"service": "proto.KV", "method": "Get", "request": {"key": "a"}})
    );
    assert_eq!(spec["startTime"], "2026-01-01T00:01:00.000000Z");
    assert_eq!(spec["expireTime"], "2026-01-01T00:02:00.000000Z");
}

fn open(name: &str, client: &str, status: Value) -> Job {
    parse(json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
        "metadata": {"name": name, "namespace": "demo", "creationTimestamp": "2025-12-31T23:59:00Z"},
        "spec": {"pluginRef": {"name": "scraper"}, "command": {"name": "wget"},
                 "target": {"client": client}, "expireTime": "2026-01-01T00:00:00.000000Z"},
        "status": status,
    }))
}

#[test]
fn queue_counts_open_jobs_with_their_reasons() {
    let mut rows = QueueRows::default();
    rows.add(
        &open(
            "a",
            "10.0.0.1",
            json!({"phase": "Ready", "reason": "Eligible"}),
        ),
        now(),
    );
    rows.add(
        &open(
            "b",
            "10.0.0.1",
            json!({"phase": "Waiting", "reason": "PluginNotReady"}),
        ),
        now(),
    );
    rows.add(
        &open(
            "c",
            "10.0.0.1",
            json!({"phase": "Claimed", "reason": "Claimed"}),
        ),
        now(),
    );
    rows.add(&open("d", "", json!({})), now());
    let text = table(&rows.sorted(), false);
    let expected = "\
PLUGIN    CLIENT     READY   WAITING   SUSPENDED   RUNNING   OLDEST   REASONS
scraper   any        0       1         0           0         60s      Pending 1
scraper   10.0.0.1   1       1         0           1         60s      Eligible 1, PluginNotReady 1
";
    assert_eq!(text, expected);
}

#[test]
fn retry_is_labelled_with_the_first_job_and_needs_a_future_expire_time() {
    let old = open("scrape", "", json!({"phase": "Failed"}));
    let error = retry_job(&old, 1, None, now()).err().unwrap_or_default();
    assert!(error.contains("--expire"), "{error}");
    let first = retry_job(&old, 1, Some(now()), now()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(first.metadata.name.as_deref(), Some("scrape-r1"));
    let second = retry_job(&first, 2, Some(now()), now()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(second.metadata.name.as_deref(), Some("scrape-r2"));
    let labels = second.metadata.labels.unwrap_or_default();
    assert_eq!(labels["patchbay.dev/retry-of"], "scrape");
}
