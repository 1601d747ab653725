//! What is refused, and how it is said.

use crate::cases::{Case, case};
use crate::job::{Job, from_now};
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "jobs::pcp_31_a_command_that_is_not_advertised_is_invalid",
            unknown_command,
        ),
        case(
            "jobs::pcp_32_a_value_that_is_no_text_is_refused",
            wrong_type,
        ),
        case(
            "jobs::pcp_33_a_command_without_optional_inputs_is_delivered_with_a_list",
            optional_inputs,
        ),
        case(
            "jobs::pcp_34_no_functionality_is_a_placeholder_and_degraded",
            placeholder,
        ),
        case("jobs::contradictions_are_refused_with_a_sentence", refused),
        case(
            "jobs::far_times_and_large_data_leave_their_neighbours_alone",
            extremes,
        ),
    ]
}

async fn unknown_command(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-unknown").await?;
    sandbox.with_actor().await?;
    sandbox
        .submit(&Job::command("unknown", json!({"name": "ehco"})))
        .await?;
    let status = sandbox.job_phase("unknown", "Invalid").await?;
    let accepted = condition(&status, "Accepted");
    let message = accepted["message"].as_str().unwrap_or_default();
    if accepted["reason"] != "UnknownCommand"
        || !message.contains("ehco")
        || !message.contains("echo")
    {
        fail!("{}", pretty(&status));
    }
    let bad = json!({"name": "echo", "inputs": [{"name": "txet", "value": ""}]});
    sandbox.submit(&Job::command("bad-input", bad)).await?;
    let status = sandbox.job_phase("bad-input", "Invalid").await?;
    let accepted = condition(&status, "Accepted");
    if accepted["reason"] != "BadInputs"
        || !accepted["message"]
            .as_str()
            .unwrap_or_default()
            .contains("txet")
    {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn wrong_type(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-type").await?;
    let job = Job::command(
        "wrong",
        json!({"name": "echo", "inputs": [{"name": "text", "value": 13}]}),
    );
    let message = sandbox.submit_refused(&job).await?;
    if !message.contains("spec.command.inputs[0].value") || !message.contains("string") {
        fail!("{message}");
    }
    sandbox.close().await
}

async fn optional_inputs(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-optional").await?;
    sandbox.with_actor().await?;
    let script = "self.respond_output(job, json.dumps([job['JobCommand']['OptionalInputs'], len(self.get_args(job)[1])]))";
    sandbox.submit(&Job::act("optional", script)).await?;
    let status = sandbox.job_phase("optional", "Succeeded").await?;
    if status["output"]["preview"] != "[[], 0]" {
        fail!("{}", pretty(&status));
    }
    let ending = json!({"name": "echo", "inputs": [{"name": "text", "value": "a"}], "optionalInputs": [{"name": "ending", "value": "z"}]});
    sandbox.submit(&Job::command("given", ending)).await?;
    let status = sandbox.job_phase("given", "Succeeded").await?;
    if status["output"]["preview"] != "az" {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn placeholder(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-placeholder").await?;
    let code = "
import time
from src.controller_plugin import ControllerPlugin
class Bare(ControllerPlugin):
    def __init__(self):
        super().__init__('Bare', [])
    def _start(self):
        while True:
            time.sleep(60)
plugin = Bare()
";
    sandbox.code("bare", "bare.py", code).await?;
    sandbox
        .apply(&crate::job::pcp_plugin("bare", "bare", "Bare"))
        .await?;
    let status = sandbox
        .plugin_until("bare", "Degraded", |s| {
            condition(s, "Degraded")["status"] == "True"
        })
        .await?;
    if status["provides"]["commands"][0]["name"] != "Functionality Error" {
        fail!("{}", pretty(&status["provides"]));
    }
    sandbox.close().await
}

async fn refused(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-refused").await?;
    let job = || Job::echo("refused", "x");
    for (job, field) in [
        (
            job()
                .with("/startTime", from_now(20))
                .with("/expireTime", from_now(10)),
            "expireTime",
        ),
        (
            job().with("/expireTime", json!("1900-01-01T00:00:00.000000Z")),
            "expireTime",
        ),
        (
            job().with("/startTime", json!("2300-01-01T00:00:00.000000Z")),
            "startTime",
        ),
        (job().with("/target/port", json!("10000/tcp")), "port"),
        (job().with("/backoffLimit", json!(2)), "backoffLimit"),
        (
            job().with("/call", json!({"service": "a", "method": "b"})),
            "exactly one",
        ),
        (job().with("/target/client", json!("10.1.2.3 ")), "client"),
    ] {
        let message = sandbox.submit_refused(&job).await?;
        if !message.contains(field) {
            fail!("{field} is not named: {message}");
        }
    }
    sandbox
        .submit(&Job::echo("fixed", "x").with("/suspend", json!(true)))
        .await?;
    let change = json!({"spec": {"command": {"name": "act"}}});
    match sandbox.change_job("fixed", change).await {
        Err(why) if why.0.contains("command") => {}
        Err(why) => fail!("{why}"),
        Ok(()) => fail!("the command of a Job could be changed"),
    }
    sandbox.close().await
}

async fn extremes(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-extremes").await?;
    sandbox.with_actor().await?;
    let (past, future) = ("1999-12-31T23:59:59Z", "2126-11-23T00:00:00Z");
    let job = |name| Job::echo(name, "x");
    let large = |bytes| json!({"data": "x".repeat(bytes)});
    for (job, phase, reason) in [
        (
            job("future").with("/startTime", json!(future)),
            "Waiting",
            "Accepted",
        ),
        (
            job("over").with("/expireTime", json!(past)),
            "Failed",
            "Expired",
        ),
        (
            job("large").with("/target/optional", large(20_000)),
            "Invalid",
            "BadInputs",
        ),
        (
            job("fits").with("/target/optional", large(16_000)),
            "Succeeded",
            "Completed",
        ),
        (
            job("past")
                .with("/startTime", json!(past))
                .with("/expireTime", json!(future)),
            "Succeeded",
            "Completed",
        ),
    ] {
        sandbox.submit(&job).await?;
        let status = sandbox.job_phase(&job.name, phase).await?;
        let told = ["Accepted", "Complete", "Failed"].map(|kind| condition(&status, kind));
        if !told.iter().any(|condition| condition["reason"] == reason) {
            fail!("{} without {reason}: {}", job.name, pretty(&status));
        }
    }
    let large = Job::echo("large-input", &"x".repeat(40_000));
    let message = sandbox.submit_refused(&large).await?;
    if !message.contains("spec.command.inputs[0].value") || !message.contains("32768") {
        fail!("{message}");
    }
    sandbox.close().await
}
