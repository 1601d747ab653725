//! When a job is handed out, and to whom.

use crate::cases::{Case, case};
use crate::job::{Job, from_now};
use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "jobs::pcp_10_jobs_come_in_the_order_of_their_start",
            ordered,
        ),
        case(
            "jobs::pcp_12_an_expired_job_fails_and_reaches_nobody",
            expired,
        ),
        case(
            "jobs::pcp_14_a_job_waits_for_its_start",
            waits_for_its_start,
        ),
        case(
            "jobs::pcp_15_a_job_for_another_client_is_skipped",
            other_client,
        ),
        case(
            "jobs::pcp_35_suspend_holds_a_ready_job_and_not_a_claimed_one",
            suspended,
        ),
        case("jobs::limits_hold_for_a_plugin_and_for_a_client", limits),
        case(
            "jobs::a_plugin_that_is_missing_leaves_its_jobs_waiting",
            no_plugin,
        ),
    ]
}

async fn ordered(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-order").await?;
    let nobody = sandbox.actor().await?.with("/replicas", json!(0));
    sandbox.apply(&nobody).await?;
    // Everything is there before anybody asks.
    let count = "memory['n'] = memory.get('n', 0) + 1; self.respond_output(job, memory['n'])";
    for (name, start, priority) in [
        ("third", "2026-01-01T00:00:30Z", 0),
        ("first", "2026-01-01T00:00:10Z", 0),
        ("fifth", "2026-01-02T00:00:00Z", 1),
        ("fourth", "2026-01-02T00:00:00Z", 5),
        ("second", "2026-01-01T00:00:20Z", 0),
    ] {
        let job = Job::act(name, count)
            .with("/startTime", json!(start))
            .with("/priority", json!(priority));
        sandbox.submit(&job).await?;
    }
    sandbox.apply(&replicas(&nobody, 1)).await?;
    for (name, place) in [
        ("first", "1"),
        ("second", "2"),
        ("third", "3"),
        ("fourth", "4"),
        ("fifth", "5"),
    ] {
        let status = sandbox.job_phase(name, "Succeeded").await?;
        if status["output"]["preview"] != place {
            fail!("{name} came as number {}", status["output"]["preview"]);
        }
    }
    sandbox.close().await
}

async fn expired(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-expired").await?;
    sandbox
        .apply(&sandbox.actor().await?.with("/replicas", json!(0)))
        .await?;
    let past = Job::echo("past", "x")
        .with("/startTime", from_now(-10))
        .with("/expireTime", from_now(-1));
    let soon = Job::echo("soon", "x").with("/expireTime", from_now(3));
    sandbox.submit(&past).await?;
    sandbox.submit(&soon).await?;
    for name in ["past", "soon"] {
        let status = sandbox.job_failed(name, "Expired").await?;
        if status["output"]["preview"] != "Job Timeout" || !status["claim"].is_null() {
            fail!("{name}: {}", pretty(&status));
        }
    }
    sandbox.close().await
}

async fn waits_for_its_start(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-start").await?;
    sandbox.with_actor().await?;
    let start = from_now(4);
    sandbox
        .submit(
            &Job::act("later", "self.respond_output(job, time.time())")
                .with("/startTime", start.clone()),
        )
        .await?;
    let status = sandbox
        .job_until("later", "Waiting", |s| s["phase"] == "Waiting")
        .await?;
    if condition(&status, "Eligible")["reason"] != "StartTimeInFuture" {
        fail!("{}", pretty(&status));
    }
    let status = sandbox.job_phase("later", "Succeeded").await?;
    let began: f64 = status["output"]["preview"]
        .as_str()
        .unwrap_or_default()
        .parse()
        .unwrap_or(0.0);
    let start: k8s_openapi::jiff::Timestamp = start.as_str().unwrap_or_default().parse()?;
    if began < start.as_microsecond() as f64 / 1e6 {
        fail!("it began at {began}, before {start}");
    }
    sandbox.close().await
}

async fn other_client(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-client").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/env", json!([{"name": "CLIENT", "value": "10.1.2.3"}]));
    sandbox
        .submit(
            &Job::echo("b", "b")
                .with("/target/client", json!("10.9.9.9"))
                .with("/startTime", from_now(-20)),
        )
        .await?;
    sandbox
        .submit(
            &Job::echo("a", "a")
                .with("/target/client", json!("10.1.2.3"))
                .with("/target/port", json!("10000"))
                .with("/startTime", from_now(-10)),
        )
        .await?;
    sandbox.apply(&actor).await?;
    let status = sandbox.job_phase("a", "Succeeded").await?;
    if status["claim"]["clientLocation"] != "10.1.2.3" {
        fail!("{}", pretty(&status));
    }
    let other = sandbox.jobs().get("b").await?;
    if other.data["status"]["phase"] != "Ready" {
        fail!(
            "the other client's job is {}",
            pretty(&other.data["status"])
        );
    }
    sandbox.close().await
}

async fn suspended(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-suspend").await?;
    let nobody = sandbox.actor().await?.with("/replicas", json!(0));
    sandbox.apply(&nobody).await?;
    sandbox.submit(&Job::echo("held", "x")).await?;
    sandbox
        .job_until("held", "known", |s| {
            s["phase"] == "Waiting" || s["phase"] == "Ready"
        })
        .await?;
    sandbox
        .change_job("held", json!({"spec": {"suspend": true}}))
        .await?;
    let status = sandbox
        .job_until("held", "Suspended", |s| s["phase"] == "Suspended")
        .await?;
    if condition(&status, "Suspended")["status"] != "True" {
        fail!("{}", pretty(&status));
    }
    sandbox.submit(&Job::act("busy", "\nwhile not os.path.exists('/tmp/go'):\n    time.sleep(0.05)\nself.respond_output(job, 'done')")).await?;
    sandbox.apply(&replicas(&nobody, 1)).await?;
    sandbox
        .job_until("busy", "Claimed", |s| s["phase"] == "Claimed")
        .await?;
    sandbox
        .change_job("busy", json!({"spec": {"suspend": true}}))
        .await?;
    sandbox.event_about("busy", "AlreadyClaimed").await?;
    let pod = sandbox.pods("actor").await?.remove(0).name_any();
    sandbox.python(&pod, "open('/tmp/go', 'w')").await?;
    sandbox.job_phase("busy", "Succeeded").await?;
    let held = sandbox.jobs().get("held").await?;
    if held.data["status"]["phase"] != "Suspended" {
        fail!("a suspended job went on: {}", pretty(&held.data["status"]));
    }
    sandbox
        .change_job("held", json!({"spec": {"suspend": false}}))
        .await?;
    let status = sandbox.job_phase("held", "Succeeded").await?;
    if condition(&status, "Suspended")["status"] == "True" {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn limits(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-limits").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/replicas", json!(3))
        .with("/jobs", json!({"maxRunning": 2, "maxRunningPerClient": 1}));
    sandbox.apply(&actor).await?;
    sandbox
        .plugin_until("actor", "three are ready", |s| s["readyReplicas"] == 3)
        .await?;
    let script = "time.sleep(1); self.respond_output(job, '')";
    for (name, client) in [
        ("a1", "10.0.0.1"),
        ("a2", "10.0.0.1"),
        ("b1", "10.0.0.2"),
        ("c1", "10.0.0.3"),
    ] {
        sandbox
            .submit(&Job::act(name, script).with("/target/client", json!(client)))
            .await?;
    }
    let mut spans = Vec::new();
    for name in ["a1", "a2", "b1", "c1"] {
        let status = sandbox.job_phase(name, "Succeeded").await?;
        let time = |value: &serde_json::Value| -> Outcome<k8s_openapi::jiff::Timestamp> {
            Ok(value.as_str().unwrap_or_default().parse()?)
        };
        spans.push((
            name,
            time(&status["claim"]["claimedAt"])?,
            time(&status["completionTime"])?,
        ));
    }
    for (name, from, _) in &spans {
        let running: Vec<_> = spans
            .iter()
            .filter(|(_, other, until)| other <= from && from < until)
            .map(|s| s.0)
            .collect();
        let same_client = running.iter().filter(|n| n.starts_with('a')).count();
        if running.len() > 2 || same_client > 1 {
            fail!("when {name} was claimed, {running:?} were in the hands of plugins");
        }
    }
    sandbox.close().await
}

async fn no_plugin(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-no-plugin").await?;
    sandbox.submit(&Job::echo("orphan", "x")).await?;
    let status = sandbox
        .job_until("orphan", "Waiting", |s| s["phase"] == "Waiting")
        .await?;
    let accepted = condition(&status, "Accepted");
    if accepted["status"] != "Unknown" || accepted["reason"] != "PluginMissing" {
        fail!("{}", pretty(&status));
    }
    let printed = world.patchbay(&["queue", "-n", &sandbox.name]).await?;
    if !printed.out.contains("PluginMissing 1") {
        fail!("queue prints\n{}{}", printed.out, printed.err);
    }
    let described = world
        .patchbay(&["describe", "job", "-n", &sandbox.name, "orphan"])
        .await?;
    if !described.out.contains("to be created") {
        fail!("describe prints\n{}{}", described.out, described.err);
    }
    sandbox.with_actor().await?;
    sandbox.job_phase("orphan", "Succeeded").await?;
    sandbox.close().await
}

pub(super) fn replicas(plugin: &Plugin, replicas: i32) -> Plugin {
    plugin.clone().with("/replicas", json!(replicas))
}
