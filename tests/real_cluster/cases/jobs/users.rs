//! What people and other families do with jobs.

use crate::cases::{Case, case};
use crate::job::Job;
use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "jobs::kubectl_waits_for_complete_and_reads_the_table",
            kubectl,
        ),
        case("jobs::a_go_plugin_carries_out_calls", calls),
    ]
}

async fn kubectl(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-kubectl").await?;
    sandbox.with_actor().await?;
    sandbox.submit(&Job::echo("hello", "world")).await?;
    let kubectl = |arguments| sandbox.world.kubectl(&sandbox.name, arguments);
    let waited = kubectl(&[
        "wait",
        "--for=condition=Complete",
        "pbjob/hello",
        "--timeout=60s",
    ])
    .await?;
    if !waited.success {
        fail!("kubectl wait: {}", waited.err);
    }
    let table = kubectl(&["get", "pbjobs"]).await?.out;
    let words: Vec<_> = table.split_whitespace().collect();
    if !table.starts_with("NAME")
        || !["actor", "echo", "Succeeded"]
            .iter()
            .all(|w| words.contains(w))
    {
        fail!("kubectl get pbjobs prints\n{table}");
    }
    let plugin = sandbox.plugins().get("actor").await?;
    let commands = &plugin.data["status"]["provides"]["commands"];
    if commands[0]["name"] != "act" || commands[1]["inputs"][0]["name"] != "text" {
        fail!("status.provides.commands is {}", pretty(commands));
    }
    sandbox.close().await
}

async fn calls(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-calls").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let call = |name: &str, method: &str, request| Job {
        name: name.to_owned(),
        spec: json!({"pluginRef": {"name": "kv"}, "call": {"service": "proto.KV", "method": method, "request": request}}),
    };
    sandbox
        .submit(&call("put", "Put", json!({"key": "a", "value": "aGk="})))
        .await?;
    sandbox.job_phase("put", "Succeeded").await?;
    sandbox
        .submit(&call("get", "Get", json!({"key": "a"})))
        .await?;
    let status = sandbox.job_phase("get", "Succeeded").await?;
    if !status["output"]["preview"]
        .as_str()
        .unwrap_or_default()
        .contains("aGk")
    {
        fail!("{}", pretty(&status));
    }
    sandbox
        .submit(&call("missing", "Get", json!({"key": "none"})))
        .await?;
    let failed = sandbox.job_failed("missing", "CallFailed").await?;
    if condition(&failed, "Failed")["message"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        fail!("{}", pretty(&failed));
    }
    sandbox.submit(&call("wrong", "Fetch", json!({}))).await?;
    let status = sandbox
        .job_until("wrong", "its end", |s| {
            s["phase"] == "Failed" || s["phase"] == "Invalid"
        })
        .await?;
    if status["reason"] != "UnknownCommand" {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}
