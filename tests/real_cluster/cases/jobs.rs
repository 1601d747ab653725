//! Jobs on their ordinary way: order, times, outputs, and what is refused. Numbers are those of
//! the conformance cases of the PCP job queue.

use super::{Case, case};
use crate::job::{Job, from_now};
use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "jobs::kubectl_waits_for_complete_and_reads_the_table",
            kubectl,
        ),
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
            "jobs::pcp_25_output_comes_back_as_it_was_given",
            kinds_of_output,
        ),
        case(
            "jobs::pcp_26_output_that_is_none_leaves_the_job_claimed",
            none_output,
        ),
        case(
            "jobs::pcp_27_output_of_five_mebibytes_leaves_the_job_small",
            large_output,
        ),
        case("jobs::pcp_28_partial_outputs_are_rows_in_order", rows),
        case("jobs::pcp_29_an_error_fails_the_job_with_its_output", error),
        case("jobs::pcp_30_output_after_an_error_is_late", late),
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
        case(
            "jobs::pcp_35_suspend_holds_a_ready_job_and_not_a_claimed_one",
            suspended,
        ),
        case(
            "jobs::pcp_36_ttl_deletes_what_has_ended_with_its_output",
            ttl,
        ),
        case(
            "jobs::pcp_37_an_answer_for_a_deleted_job_leaves_its_successor_alone",
            recreated,
        ),
        case("jobs::contradictions_are_refused_with_a_sentence", refused),
        case(
            "jobs::output_beyond_the_limit_fails_with_its_digest",
            too_large,
        ),
        case("jobs::a_job_can_be_cancelled_and_retried", cancelled),
        case("jobs::a_deadline_ends_a_job_that_takes_too_long", deadline),
        case("jobs::a_go_plugin_carries_out_calls", calls),
        case("jobs::limits_hold_for_a_plugin_and_for_a_client", limits),
        case(
            "jobs::a_plugin_that_is_missing_leaves_its_jobs_waiting",
            no_plugin,
        ),
    ]
}

async fn kubectl(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-kubectl").await?;
    sandbox.with_actor().await?;
    sandbox.submit(&Job::echo("hello", "world")).await?;
    let run = |arguments: &'static [&'static str]| {
        let namespace = sandbox.name.clone();
        async move {
            tokio::process::Command::new("kubectl")
                .args(arguments)
                .args(["-n", &namespace])
                .kill_on_drop(true)
                .output()
                .await
        }
    };
    let waited = run(&[
        "wait",
        "--for=condition=Complete",
        "pbjob/hello",
        "--timeout=60s",
    ])
    .await?;
    if !waited.status.success() {
        fail!("kubectl wait: {}", String::from_utf8_lossy(&waited.stderr));
    }
    let table = run(&["get", "pbjobs"]).await?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
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

async fn ordered(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-order").await?;
    let nobody = sandbox.actor().await?.with("/replicas", json!(0));
    sandbox.apply(&nobody).await?;
    // Everything is there before anybody asks.
    let count = "memory['n'] = memory.get('n', 0) + 1; self.respond_output(job, memory['n'])";
    for (name, start, priority) in [
        ("third", -10, 0),
        ("first", -30, 0),
        ("fifth", -5, 1),
        ("fourth", -5, 5),
        ("second", -20, 0),
    ] {
        let start = if start == -5 {
            json!("2026-01-02T00:00:00.000000Z")
        } else {
            json!(format!("2026-01-01T00:00:{:02}.000000Z", 40 + start))
        };
        let job = Job::act(name, count)
            .with("/startTime", start)
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

fn replicas(plugin: &Plugin, replicas: i32) -> Plugin {
    plugin.clone().with("/replicas", json!(replicas))
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
                .with("/target/location", json!("10.9.9.9"))
                .with("/startTime", from_now(-20)),
        )
        .await?;
    sandbox
        .submit(
            &Job::echo("a", "a")
                .with("/target/location", json!("10.1.2.3"))
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

async fn kinds_of_output(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-outputs").await?;
    sandbox.with_actor().await?;
    for (name, given, expected) in [
        ("float", "42.42", &b"42.42"[..]),
        ("int", "666", b"666"),
        ("bool", "True", b"True"),
        ("empty", "''", b""),
        (
            "text",
            "'gr\\u00fc\\u00dfe \\U0001f600'",
            "gr\u{fc}\u{df}e \u{1f600}".as_bytes(),
        ),
        ("bytes", "b'\\x00\\xff'", b"\x00\xff"),
    ] {
        sandbox
            .submit(&Job::act(
                name,
                &format!("self.respond_output(job, {given})"),
            ))
            .await?;
        let status = sandbox.job_phase(name, "Succeeded").await?;
        let back = sandbox.output(name).await?;
        if back != expected {
            fail!(
                "{name} came back as {back:?}; status is {}",
                pretty(&status)
            );
        }
        let row = &status["output"]["rows"][0];
        let encoded = name == "bytes";
        if (row["encoding"] == "Base64") != encoded || status["output"]["rowCount"] != 1 {
            fail!("{name}: {}", pretty(&status));
        }
        if encoded && row["content"] != STANDARD.encode(expected) {
            fail!("{name}: {}", pretty(row));
        }
    }
    sandbox.close().await
}

async fn none_output(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-none").await?;
    sandbox.with_actor().await?;
    let script = "
for wrong in (None, {}):
    try:
        self.respond_output(job, wrong)
        self.respond_error(job, 'no TypeError')
    except TypeError:
        pass
self.respond_output(job, self.get_status(job) if False else 'still mine')";
    sandbox.submit(&Job::act("none", script)).await?;
    let status = sandbox.job_phase("none", "Succeeded").await?;
    if status["output"]["preview"] != "still mine" || status["output"]["rowCount"] != 1 {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn large_output(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-large").await?;
    sandbox.with_actor().await?;
    let script = "
import hashlib
data = bytes(i * 7 % 251 for i in range(1024)) * 5120
self.memory['digest'] = hashlib.sha256(data).hexdigest()
self.respond_output(job, data)";
    sandbox.submit(&Job::act("large", script)).await?;
    let status = sandbox.job_phase("large", "Succeeded").await?;
    sandbox
        .submit(&Job::act(
            "digest",
            "self.respond_output(job, memory['digest'])",
        ))
        .await?;
    let digest = sandbox.job_phase("digest", "Succeeded").await?["output"]["preview"].clone();
    if status["output"]["bytes"] != 5 * 1024 * 1024 || status["output"]["sha256"] != digest {
        fail!(
            "the digest should be {digest}: {}",
            pretty(&status["output"])
        );
    }
    let size = serde_json::to_vec(&sandbox.jobs().get("large").await?)?.len();
    if size >= 64 * 1024 {
        fail!("the Job has {size} bytes");
    }
    let back = sandbox.output("large").await?;
    let expected: Vec<u8> = (0..1024u32)
        .map(|i| (i * 7 % 251) as u8)
        .collect::<Vec<_>>()
        .repeat(5120);
    if back != expected {
        fail!("{} bytes came back, not as given", back.len());
    }
    sandbox.close().await
}

async fn rows(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-rows").await?;
    sandbox.with_actor().await?;
    let script = "
for i in range(3):
    self.respond_output(job, 'row %d' % i, transition_state=False)
while not os.path.exists('/tmp/go'):
    time.sleep(0.05)
self.respond_output(job, 'last')";
    sandbox.submit(&Job::act("rows", script)).await?;
    let status = sandbox
        .job_until("rows", "Running with three rows", |s| {
            s["phase"] == "Running" && s["output"]["rowCount"] == 3
        })
        .await?;
    if condition(&status, "Started")["status"] != "True" {
        fail!("{}", pretty(&status));
    }
    let pod = sandbox.pods("actor").await?.remove(0).name_any();
    exec(&sandbox, &pod, "open('/tmp/go', 'w')").await?;
    let status = sandbox.job_phase("rows", "Succeeded").await?;
    let texts: Vec<_> = status["output"]["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| row["content"].clone())
        .collect();
    if texts != ["row 0", "row 1", "row 2", "last"] {
        fail!("{texts:?}");
    }
    sandbox.close().await
}

/// Runs Python in the plugin's container.
pub(super) async fn exec(sandbox: &Sandbox, pod: &str, code: &str) -> Outcome {
    let output = tokio::process::Command::new("kubectl")
        .args([
            "exec",
            "-n",
            &sandbox.name,
            pod,
            "-c",
            "plugin",
            "--",
            "python3",
            "-c",
            code,
        ])
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        fail!(
            "python in {pod}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

async fn error(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-error").await?;
    sandbox.with_actor().await?;
    sandbox
        .submit(&Job::act("error", "self.respond_error(job, 'x')"))
        .await?;
    let status = sandbox.job_failed("error", "PluginError").await?;
    if status["output"]["preview"] != "x" || sandbox.output("error").await? != b"x" {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

async fn late(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-late").await?;
    sandbox.with_actor().await?;
    sandbox
        .submit(&Job::act(
            "late",
            "self.respond_error(job, 'x'); self.respond_output(job, 'y')",
        ))
        .await?;
    let status = sandbox
        .job_until("late", "a late row", |s| s["output"]["lateCount"] == 1)
        .await?;
    if status["phase"] != "Failed" || status["output"]["rows"][1]["late"] != true {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
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
        .apply(&crate::job::controller("bare", "bare", "Bare"))
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
    exec(&sandbox, &pod, "open('/tmp/go', 'w')").await?;
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
    sandbox
        .until("the Job and its output are gone", || async {
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
    sandbox
        .until("the first is gone", || async {
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
    exec(&sandbox, &pod, "open('/tmp/go', 'w')").await?;
    let status = sandbox.job_phase("twin", "Succeeded").await?;
    // The plugin saw no exception, and its answer went nowhere.
    if status["output"]["preview"] != "new True" || status["output"]["rowCount"] != 1 {
        fail!("{}", pretty(&status));
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
        (
            job().with("/target/location", json!("10.1.2.3 ")),
            "location",
        ),
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

async fn too_large(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "job-too-large").await?;
    sandbox.with_actor().await?;
    let job = Job::act("large", "self.respond_output(job, 'ab' * 1000000)")
        .with("/outputPolicy", json!({"maxBytes": 1000}));
    sandbox.submit(&job).await?;
    let status = sandbox.job_failed("large", "OutputTooLarge").await?;
    let output = &status["output"];
    if output["truncated"] != true
        || !output["preview"]
            .as_str()
            .unwrap_or_default()
            .starts_with("abab")
        || output["sha256"].as_str().unwrap_or_default().len() != 64
    {
        fail!("{}", pretty(output));
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
            .submit(&Job::act(name, script).with("/target/location", json!(client)))
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
    sandbox.with_actor().await?;
    sandbox.job_phase("orphan", "Succeeded").await?;
    sandbox.close().await
}
