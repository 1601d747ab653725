//! What comes back.

use crate::cases::{Case, case};
use crate::job::Job;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
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
            "jobs::output_beyond_the_limit_fails_with_its_digest",
            too_large,
        ),
    ]
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
self.respond_output(job, 'still mine')";
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
    sandbox.python(&pod, "open('/tmp/go', 'w')").await?;
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
