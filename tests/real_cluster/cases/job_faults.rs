//! Jobs when something breaks: the plugin, the sidecar, the pod, the operator, the API server.
//! Each ends in the state that the failure matrix of the job queue says.

use super::{Case, case};
use crate::job::{Job, from_now};
use crate::operator::{self, Stage};
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Holds its job until the file /tmp/go appears.
const HOLD: &str = "
while not os.path.exists('/tmp/go'):
    time.sleep(0.05)
self.respond_output(job, 'done')";

pub(super) fn side_by_side() -> Vec<Case> {
    vec![
        case(
            "job_faults::pcp_21_a_killed_plugin_loses_its_job_once",
            plugin_killed,
        )
        .violent(),
        case("job_faults::pcp_22_at_least_once_tries_again", tried_again).violent(),
        case(
            "job_faults::pcp_23_a_killed_sidecar_loses_nothing",
            sidecar_killed,
        )
        .violent(),
        case(
            "job_faults::a_sidecar_killed_before_the_hand_over_gives_its_job_back",
            sidecar_killed_early,
        )
        .violent(),
        case(
            "job_faults::pcp_41_a_restarted_plugin_answers_what_it_remembers",
            recovered,
        ),
        case("job_faults::a_pod_that_is_gone_loses_its_job", pod_gone),
        case(
            "job_faults::a_poison_job_fails_once_and_the_fleet_lives",
            poison,
        ),
    ]
}

pub(super) fn one_by_one() -> Vec<Case> {
    vec![
        case(
            "job_faults::pcp_24_fifty_jobs_outlive_the_operator",
            operator_restarted,
        ),
        case(
            "job_faults::a_rebooted_node_loses_what_it_had_and_goes_on",
            node_rebooted,
        ),
        case("job_faults::a_full_etcd_loses_nothing", full_etcd),
        case(
            "job_faults::jobs_outlive_a_minute_without_api_server",
            without_api_server,
        ),
        case(
            "job_faults::a_leader_whose_clock_is_wrong_hands_out_nothing",
            wrong_clock,
        ),
        case(
            "job_faults::pcp_43_a_loop_without_sleep_reads_nothing",
            tight_loop,
        ),
    ]
}

async fn the_pod(sandbox: &Sandbox) -> Outcome<String> {
    match sandbox.pods("actor").await?.first() {
        Some(pod) => Ok(pod.name_any()),
        None => fail!("the actor has no pod"),
    }
}

async fn claimed(sandbox: &Sandbox, name: &str) -> Outcome<serde_json::Value> {
    sandbox
        .job_until(name, "Claimed", |s| {
            s["phase"] == "Claimed" || s["phase"] == "Running"
        })
        .await
}

async fn plugin_killed(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-plugin-killed").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/jobs", json!({"recoverSeconds": 2}));
    sandbox.apply(&actor).await?;
    sandbox.ready("actor").await?;
    sandbox.submit(&Job::act("lost", HOLD)).await?;
    let before = claimed(&sandbox, "lost").await?;
    sandbox.kill_plugin(&the_pod(&sandbox).await?).await?;
    let status = sandbox.job_failed("lost", "PluginLost").await?;
    let message = condition(&status, "Failed")["message"].to_string();
    if !message.contains("signal 9") || status["claim"]["claimId"] != before["claim"]["claimId"] {
        fail!("{}", pretty(&status));
    }
    // The fleet lives on, and nobody gets the lost one.
    sandbox.submit(&Job::echo("next", "x")).await?;
    sandbox.job_phase("next", "Succeeded").await?;
    let lost = sandbox.jobs().get("lost").await?;
    if lost.data["status"]["attempt"] != 1 {
        fail!("{}", pretty(&lost.data["status"]));
    }
    sandbox.close().await
}

async fn tried_again(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-again").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/jobs", json!({"recoverSeconds": 1}));
    sandbox.apply(&actor).await?;
    sandbox.ready("actor").await?;
    let again = Job::act("again", HOLD)
        .with("/deliveryPolicy", json!("AtLeastOnce"))
        .with("/backoffLimit", json!(2))
        .with("/backoff", json!({"initialSeconds": 1, "maxSeconds": 1}));
    sandbox.submit(&again).await?;
    claimed(&sandbox, "again").await?;
    let uid = sandbox.jobs().get("again").await?.uid();
    let pod = the_pod(&sandbox).await?;
    sandbox.kill_plugin(&pod).await?;
    sandbox
        .job_until("again", "a second attempt", |s| {
            s["attempt"] == 2 && s["phase"] == "Claimed"
        })
        .await?;
    sandbox.python(&pod, "open('/tmp/go', 'w')").await?;
    let status = sandbox.job_phase("again", "Succeeded").await?;
    if status["attempts"][0]["reason"] != "PluginLost"
        || sandbox.jobs().get("again").await?.uid() != uid
    {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn sidecar_killed(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-sidecar-killed").await?;
    sandbox.with_actor().await?;
    sandbox.submit(&Job::act("kept", HOLD)).await?;
    claimed(&sandbox, "kept").await?;
    let pod = the_pod(&sandbox).await?;
    let before = sandbox.ready("actor").await?["instances"][0]["startId"].clone();
    sandbox.kill_sidecar(&pod).await?;
    sandbox.python(&pod, "open('/tmp/go', 'w')").await?;
    let status = sandbox.job_phase("kept", "Succeeded").await?;
    if status["output"]["rowCount"] != 1
        || status["output"]["preview"] != "done"
        || status["attempt"] != 1
    {
        fail!("{}", pretty(&status));
    }
    let after = sandbox.ready("actor").await?["instances"][0]["startId"].clone();
    if before != after {
        fail!("the plugin was started again: {before}, {after}");
    }
    sandbox.close().await
}

async fn sidecar_killed_early(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-sidecar-early").await?;
    sandbox.with_actor().await?;
    let pod = the_pod(&sandbox).await?;
    // It has asked for work and cannot take the answer.
    sandbox.pause_sidecar(&pod).await?;
    sandbox.submit(&Job::echo("early", "x")).await?;
    let before = claimed(&sandbox, "early").await?;
    sandbox.kill_sidecar(&pod).await?;
    let after = sandbox.job_phase("early", "Succeeded").await?;
    let first = &before["claim"]["claimId"];
    if first.is_null() || after["claim"]["claimId"] == *first || after["attempt"] != 1 {
        fail!("{}, then {}", pretty(&before), pretty(&after));
    }
    sandbox.close().await
}

async fn recovered(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-recovered").await?;
    let on_start = "
try:
    self.recover()
except Exception:
    pass
for name, job in list(self.tracked_jobs.items()):
    self.respond_output(job, 'after all')";
    let actor = sandbox
        .actor()
        .await?
        .with("/env", json!([{"name": "ON_START", "value": on_start}]));
    sandbox.apply(&actor).await?;
    sandbox.ready("actor").await?;
    let script = "
self.tracked_jobs[job['id']] = job
self.record_tracker()
os.kill(os.getpid(), 9)";
    sandbox.submit(&Job::act("remembered", script)).await?;
    let status = sandbox.job_phase("remembered", "Succeeded").await?;
    if status["output"]["preview"] != "after all" || status["attempt"] != 1 {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn pod_gone(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-pod-gone").await?;
    sandbox.with_actor().await?;
    sandbox.submit(&Job::act("gone", HOLD)).await?;
    claimed(&sandbox, "gone").await?;
    let pod = the_pod(&sandbox).await?;
    let now = DeleteParams::default().grace_period(0);
    sandbox.api::<Pod>().delete(&pod, &now).await?;
    sandbox.job_failed("gone", "PluginLost").await?;
    sandbox.submit(&Job::echo("next", "x")).await?;
    sandbox.job_phase("next", "Succeeded").await?;
    sandbox.close().await
}

async fn poison(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-poison").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/replicas", json!(2))
        .with("/jobs", json!({"recoverSeconds": 1}));
    sandbox.apply(&actor).await?;
    sandbox.ready("actor").await?;
    sandbox.submit(&Job::act("poison", "os._exit(7)")).await?;
    let status = sandbox.job_failed("poison", "PluginLost").await?;
    if !condition(&status, "Failed")["message"]
        .to_string()
        .contains("exit code 7")
    {
        fail!("{}", pretty(&status));
    }
    sandbox.submit(&Job::echo("next", "x")).await?;
    sandbox.job_phase("next", "Succeeded").await?;
    sandbox.ready("actor").await?;
    sandbox.close().await
}

async fn operator_restarted(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-operator").await?;
    sandbox
        .apply(&sandbox.actor().await?.with("/replicas", json!(2)))
        .await?;
    sandbox.ready("actor").await?;
    // Fifty threads of one job each, all running while the operator dies.
    let script = "
def later(job=job):
    while not os.path.exists('/tmp/go'):
        time.sleep(0.1)
    self.respond_output(job, 'done')
threading.Thread(target=later).start()";
    for number in 0..50 {
        sandbox
            .submit(&Job::act(&format!("job-{number}"), script))
            .await?;
    }
    for number in 0..50 {
        claimed(&sandbox, &format!("job-{number}")).await?;
    }
    world
        .kill_all(operator::NAMESPACE, "app.kubernetes.io/name=patchbay")
        .await?;
    for pod in sandbox.pods("actor").await? {
        sandbox
            .python(&pod.name_any(), "open('/tmp/go', 'w')")
            .await?;
    }
    for number in 0..50 {
        let status = sandbox
            .job_phase(&format!("job-{number}"), "Succeeded")
            .await?;
        if status["attempt"] != 1 || status["output"]["rowCount"] != 1 {
            fail!("{}", pretty(&status));
        }
    }
    sandbox.close().await
}

async fn without_api_server(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-no-api-server").await?;
    sandbox.with_actor().await?;
    sandbox
        .submit(&Job::act(
            "early",
            "time.sleep(5); self.respond_output(job, 'spooled')",
        ))
        .await?;
    claimed(&sandbox, "early").await?;
    world.cluster(&["stop-apiserver"]).await?;
    // The fault's length is the story: an outage of one minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.cluster(&["start-apiserver"]).await?;
    let status = sandbox.job_phase("early", "Succeeded").await?;
    if status["output"]["preview"] != "spooled" || status["attempt"] != 1 {
        fail!("{}", pretty(&status));
    }
    sandbox.submit(&Job::echo("late", "x")).await?;
    sandbox.job_phase("late", "Succeeded").await?;
    sandbox.close().await
}

async fn wrong_clock(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-clock").await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/env", json!([{"name": "CLIENT", "value": "10.1.2.3"}]));
    sandbox.apply(&actor).await?;
    sandbox.ready("actor").await?;
    let stage = Stage::clear(&world).await?;
    let told = wrong_clocks(&sandbox, &stage).await;
    stage.close(told).await?;

    // The right one does what was due, and that alone.
    sandbox.job_phase("after", "Succeeded").await?;
    for (name, phase) in [
        ("later", "Waiting"),
        ("due", "Waiting"),
        ("lasting", "Ready"),
    ] {
        let status = sandbox
            .job_until(name, phase, |status| status["phase"] == phase)
            .await?;
        if !status["claim"].is_null() {
            fail!("{name}: {}", pretty(&status));
        }
    }
    sandbox.close().await
}

async fn wrong_clocks(sandbox: &Sandbox, stage: &Stage) -> Outcome {
    let world = &sandbox.world;

    // Ten minutes ahead while it leads: what is due in five minutes would be done, and what lasts
    // for five minutes would be over.
    let jumping = stage
        .operator(&["--shift-clock-seconds=600", "--shift-clock-on-signal"])
        .await?;
    sandbox.submit(&Job::echo("before", "x")).await?;
    sandbox.job_phase("before", "Succeeded").await?;
    for (name, field) in [("later", "/startTime"), ("lasting", "/expireTime")] {
        let job = Job::echo(name, "x")
            .with("/target/client", json!("10.9.9.9"))
            .with(field, from_now(300));
        sandbox.submit(&job).await?;
    }
    let due = Job::echo("due", "x").with("/startTime", from_now(300));
    sandbox.submit(&due).await?;
    for name in ["later", "lasting", "due"] {
        let seen = |status: &serde_json::Value| !status["phase"].is_null();
        sandbox.job_until(name, "seen", seen).await?;
    }
    jumping.signal()?;
    until("the Lease is given up", || async {
        Ok(operator::leader(world).await?.is_empty().then_some(()))
    })
    .await?;
    jumping.bury(world).await?;

    // Ten minutes behind from the start: it never leads, so nobody takes up the new job.
    let late = stage.operator(&["--shift-clock-seconds=-600"]).await?;
    sandbox.submit(&Job::echo("after", "x")).await?;
    // Many times as long as a right one takes.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let leader = operator::leader(world).await?;
    let after = sandbox.jobs().get("after").await?;
    if !leader.is_empty() || !after.data["status"].is_null() {
        fail!("{leader:?} leads: {}", pretty(&after.data["status"]));
    }
    late.bury(world).await
}

async fn node_rebooted(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-reboot").await?;
    sandbox.with_actor().await?;
    sandbox.submit(&Job::act("had", HOLD)).await?;
    claimed(&sandbox, "had").await?;
    let before = sandbox.pods("actor").await?.remove(0);
    // The pod keeps its uid; its memory volumes, the ledger among them, are gone.
    world.cluster(&["node-reboot"]).await?;
    sandbox.job_failed("had", "PluginLost").await?;
    sandbox.submit(&Job::echo("next", "x")).await?;
    sandbox.job_phase("next", "Succeeded").await?;
    let after = sandbox.pods("actor").await?.remove(0);
    if before.uid() != after.uid() {
        fail!("the pod was replaced, so this was no reboot");
    }
    sandbox.close().await
}

async fn full_etcd(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-full-etcd").await?;
    sandbox.with_actor().await?;
    sandbox
        .submit(&Job::act(
            "early",
            "time.sleep(2); self.respond_output(job, 'spooled')",
        ))
        .await?;
    sandbox.submit(&Job::echo("second", "x")).await?;
    claimed(&sandbox, "early").await?;
    world.cluster(&["fill-etcd"]).await?;
    // Long enough for the answer to meet the full store, short enough for the node's own lease.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let during = sandbox.jobs().get("early").await?;
    if during.data["status"]["phase"] == "Succeeded" {
        fail!("etcd was not full: {}", pretty(&during.data["status"]));
    }
    world.cluster(&["empty-etcd"]).await?;
    let status = sandbox.job_phase("early", "Succeeded").await?;
    if status["output"]["preview"] != "spooled" || status["output"]["rowCount"] != 1 {
        fail!("{}", pretty(&status));
    }
    sandbox.job_phase("second", "Succeeded").await?;
    sandbox.close().await
}

async fn tight_loop(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-tight-loop").await?;
    // The actor asks again at once whenever it gets nothing.
    sandbox.with_actor().await?;
    let before = operator::reads(&world).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = operator::reads(&world).await?;
    if after - before >= 60 {
        fail!(
            "{} API reads in ten seconds of asking for nothing",
            after - before
        );
    }
    sandbox.close().await
}
