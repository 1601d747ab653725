//! How jobs end and go.

use super::order::replicas;
use crate::cases::{Case, case};
use crate::job::Job;
use crate::sandbox::{Sandbox, pretty};
use crate::world::{Outcome, World, fail, until};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "jobs::pcp_36_ttl_deletes_what_has_ended_with_its_output",
            ttl,
        ),
        case(
            "jobs::pcp_37_an_answer_for_a_deleted_job_leaves_its_successor_alone",
            recreated,
        ),
        case("jobs::a_job_can_be_cancelled_and_retried", cancelled),
        case("jobs::a_deadline_ends_a_job_that_takes_too_long", deadline),
    ]
}

async fn ttl(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-ttl").await?;
    sandbox.with_actor().await?;
    let large = Job::act("gone", "self.respond_output(job, b'x' * 1000000)")
        .with("/ttlSecondsAfterFinished", json!(0));
    let kept = Job::echo("kept", "x")
        .with("/suspend", json!(true))
        .with("/ttlSecondsAfterFinished", json!(0));
    sandbox.submit(&kept).await?;
    sandbox.submit(&large).await?;
    until("the Job and its output are gone", || async {
        let job = sandbox.jobs().get_opt("gone").await?;
        let left = sandbox.outputs().list(&ListParams::default()).await?.items;
        Ok((job.is_none() && left.is_empty()).then_some(()))
    })
    .await?;
    let kept = sandbox.jobs().get("kept").await?;
    if kept.data["status"]["phase"] != "Suspended" {
        fail!("{}", pretty(&kept.data["status"]));
    }
    sandbox.close().await
}

async fn recreated(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-recreated").await?;
    sandbox.with_actor().await?;
    let script = "\nwhile not os.path.exists('/tmp/go'):\n    time.sleep(0.05)\nself.respond_output(job, 'old')\nself.memory['answered'] = True";
    sandbox.submit(&Job::act("twin", script)).await?;
    sandbox
        .job_until("twin", "Claimed", |s| s["phase"] == "Claimed")
        .await?;
    sandbox
        .jobs()
        .delete("twin", &DeleteParams::default())
        .await?;
    until("the first is gone", || async {
        Ok(sandbox
            .jobs()
            .get_opt("twin")
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    let second = Job::act(
        "twin",
        "self.respond_output(job, 'new %s' % memory.get('answered'))",
    );
    sandbox.submit(&second).await?;
    let pod = sandbox.pods("actor").await?.remove(0).name_any();
    sandbox.python(&pod, "open('/tmp/go', 'w')").await?;
    let status = sandbox.job_phase("twin", "Succeeded").await?;
    // The plugin saw no exception, and its answer went nowhere.
    if status["output"]["preview"] != "new True" || status["output"]["rowCount"] != 1 {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn cancelled(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "job-cancel").await?;
    let nobody = sandbox.actor().await?.with("/replicas", json!(0));
    sandbox.apply(&nobody).await?;
    sandbox.submit(&Job::echo("stop", "x")).await?;
    let printed = world
        .patchbay(&["cancel", "-n", &sandbox.name, "stop"])
        .await?;
    if !printed.success {
        fail!("cancel: {}{}", printed.out, printed.err);
    }
    sandbox.job_failed("stop", "Cancelled").await?;
    sandbox.apply(&replicas(&nobody, 1)).await?;
    let printed = world
        .patchbay(&["retry", "-n", &sandbox.name, "stop"])
        .await?;
    if !printed.out.contains("stop-r1 created") {
        fail!("retry: {}{}", printed.out, printed.err);
    }
    sandbox.job_phase("stop-r1", "Succeeded").await?;
    let retried = sandbox.jobs().get("stop-r1").await?;
    if retried
        .labels()
        .get("patchbay.dev/retry-of")
        .map(String::as_str)
        != Some("stop")
    {
        fail!("{:?}", retried.labels());
    }
    let described = world
        .patchbay(&["describe", "job", "-n", &sandbox.name, "stop"])
        .await?
        .out;
    if !described.contains("Failed (Cancelled)") || !described.contains("stop-r1 Succeeded") {
        fail!("describe prints\n{described}");
    }
    let printed = world
        .patchbay(&[
            "submit",
            "-n",
            &sandbox.name,
            "actor",
            "echo",
            "typed",
            "--wait",
        ])
        .await?;
    if !printed.success || printed.out != "typed" {
        fail!("submit: {}{}", printed.out, printed.err);
    }
    sandbox.close().await
}

async fn deadline(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-deadline").await?;
    sandbox.with_actor().await?;
    let slow = Job::act(
        "slow",
        "time.sleep(6); self.respond_output(job, 'too late')",
    )
    .with("/activeDeadlineSeconds", json!(2));
    sandbox.submit(&slow).await?;
    sandbox.job_failed("slow", "DeadlineExceeded").await?;
    sandbox
        .job_until("slow", "the answer is kept as late", |s| {
            s["phase"] == "Failed" && s["output"]["lateCount"] == 1
        })
        .await?;
    sandbox.close().await
}
