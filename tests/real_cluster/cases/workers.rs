//! External workers connect through the Service; each address gets its own jobs only.

use super::readme::{EXAMPLES, shell};
use super::{Case, case};
use crate::job::{Job, pcp_plugin};
use crate::sandbox::{Sandbox, pretty};
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "workers::each_of_three_addresses_gets_its_own_jobs_in_order",
            three_workers,
        ),
        case(
            "workers::the_plugin_file_of_sample_plugin_runs_byte_for_byte",
            sample_plugin,
        ),
    ]
}

/// The example, as its readers run it.
async fn three_workers(world: Arc<World>) -> Outcome {
    shell(
        &world,
        &format!(
            "kubectl apply -f {EXAMPLES}/00-namespace.yaml && kubectl apply -f {EXAMPLES}/pcp"
        ),
    )
    .await?;
    shell(
        &world,
        &format!("PREFIX=story LEAD=5 {EXAMPLES}/pcp/jobs.sh"),
    )
    .await?;
    shell(
        &world,
        "kubectl wait -n patchbay-demo -l example=pcp --for=condition=Complete pbjob --timeout=120s",
    )
    .await?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "patchbay-demo");
    for worker in ["a", "b", "c"] {
        let pod = pods.get(&format!("worker-{worker}")).await?;
        let address = pod.status.and_then(|s| s.pod_ip).unwrap_or_default();
        let mut times = Vec::new();
        for order in 1..=3 {
            let name = format!("story-{worker}-{order}");
            let printed = world
                .patchbay(&["output", "-n", "patchbay-demo", &name])
                .await?;
            let said: BTreeMap<_, _> = printed
                .out
                .lines()
                .filter_map(|line| line.split_once(' '))
                .collect();
            let by = said.get("worker").copied().unwrap_or_default();
            if by != format!("{address} on worker-{worker}") {
                fail!("{name} is for {address} and was done by {by:?}");
            }
            times.push(said.get("time").copied().unwrap_or_default().to_owned());
        }
        if !times.is_sorted() || times[0].is_empty() {
            fail!("worker {worker} did its jobs at {times:?}");
        }
    }
    shell(
        &world,
        "kubectl delete -n patchbay-demo -l example=pcp pbjob",
    )
    .await
}

/// A plugin file that nobody here has written.
async fn sample_plugin(world: Arc<World>) -> Outcome {
    let Some(path) = std::env::var_os("SAMPLE_PLUGIN") else {
        println!("  skipped: SAMPLE_PLUGIN names no plugin file");
        return Ok(());
    };
    let file = std::path::PathBuf::from(&path);
    let class = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let text = std::fs::read_to_string(&file)?;
    let sandbox = Sandbox::new(world, "sample-plugin").await?;
    sandbox
        .code("sample", &format!("{class}.py"), &text)
        .await?;
    let plugin = pcp_plugin("sample", "sample", &class).with(
        "/service",
        json!({"port": 10000, "clients": [{"pods": {"podSelector": {}}}]}),
    );
    sandbox.apply(&plugin).await?;
    let status = sandbox.ready("sample").await?;
    let Some(command) = status["provides"]["commands"][0]["name"].as_str() else {
        fail!("{class} advertises {}", pretty(&status["provides"]));
    };
    let command = json!({"name": command, "inputs": []});
    // Any connection makes it ask for a job of whoever connects.
    let knock = "
import socket, time
while True:
    try:
        socket.create_connection(('sample', 10000), timeout=5)
    except OSError:
        pass
    time.sleep(0.5)";
    let worker: Pod = serde_json::from_value(worker(knock))?;
    sandbox
        .api::<Pod>()
        .create(&PostParams::default(), &worker)
        .await?;
    let address = until("the worker has an address", || async {
        let worker = sandbox.api::<Pod>().get("worker").await?;
        Ok(worker.status.and_then(|status| status.pod_ip))
    })
    .await?;
    let mut job = Job::command("sample", command)
        .with("/target", json!({"client": address, "port": "10000"}));
    job.spec["pluginRef"] = json!({"name": "sample"});
    sandbox.submit(&job).await?;
    let status = sandbox.job_phase("sample", "Succeeded").await?;
    let output = &status["output"];
    if output["bytes"] != 0
        || output["rowCount"] != 1
        || status["claim"]["clientLocation"] != address
    {
        fail!("{}", pretty(&status));
    }
    sandbox.close().await
}

fn worker(program: &str) -> Value {
    json!({
        "metadata": {"name": "worker"},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "worker",
                "image": "patchbay.dev/patchbay-python:v1",
                "command": ["python3", "-c", program],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}
