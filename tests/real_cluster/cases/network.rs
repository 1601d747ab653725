//! Who reaches a plugin, and what a plugin reaches.

use super::{Case, case};
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("network::only_listed_clients_reach_the_service", clients),
        case("network::a_plugin_reaches_nothing", egress),
        case("network::the_policy_is_older_than_the_pod", order),
        case("network::the_operators_account_is_fenced_in", fence),
    ]
}

/// Tries a connection about four times a second and ends with code 0 as soon as the answer was
/// `sys.argv[3]` (open or denied) three times in a row, with code 1 after 80 tries.
const PROBE: &str = r"
import socket, sys, time
row = 0
for _ in range(80):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
        seen = 'open'
    except OSError as error:
        seen = 'denied'
    row = row + 1 if seen == sys.argv[3] else 0
    if row == 3:
        sys.exit(0)
    time.sleep(0.25)
sys.exit(1)
";

async fn clients(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "clients").await?;
    let friends = json!([{"pods": {"podSelector": {"matchLabels": {"role": "friend"}}}}]);
    sandbox
        .apply(&Plugin::kv_go("kv").with("/service/clients", friends))
        .await?;
    sandbox.ready("kv").await?;
    let service = sandbox.api::<Service>().get("kv").await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default();
    let arguments = |expected: &str| vec![address.clone(), "7444".to_owned(), expected.to_owned()];
    probe(&sandbox, "friend", arguments("open")).await?;
    probe(&sandbox, "stranger", arguments("denied")).await?;
    // An empty list admits nobody, and is no empty `from`, which would admit everybody.
    sandbox
        .apply(&Plugin::kv_go("kv").with("/service/clients", json!([])))
        .await?;
    sandbox.ready("kv").await?;
    probe(&sandbox, "friend", arguments("denied")).await?;
    sandbox.close().await
}

async fn egress(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "egress").await?;
    let plugin = Plugin::script("kv", "import signal; signal.pause()");
    sandbox.apply(&plugin).await?;
    let pod = until("the plugin container runs", || async {
        let pods = sandbox.pods("kv").await?;
        Ok(pods.into_iter().find_map(|pod| {
            let status = pod.status?.container_statuses?;
            status
                .iter()
                .all(|c| c.started == Some(true))
                .then_some(pod.metadata.name?)
        }))
    })
    .await?;
    let api = Api::<Service>::namespaced(world.client.clone(), "default");
    let address = api
        .get("kubernetes")
        .await?
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default();
    let command = ["/usr/bin/python3", "-c", PROBE, &address, "443", "denied"];
    let parameters = kube::api::AttachParams::default().container("plugin");
    let mut process = sandbox
        .api::<Pod>()
        .exec(&pod, command, &parameters)
        .await?;
    let status = match process.take_status() {
        Some(status) => status.await,
        None => None,
    };
    if status.as_ref().and_then(|status| status.status.as_deref()) != Some("Success") {
        fail!("the plugin reached {address}:443: {status:?}");
    }
    sandbox.close().await
}

async fn order(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "policy-order").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let pod = sandbox.pods("kv").await?.remove(0);
    let policy = sandbox.api::<NetworkPolicy>().get("pb-net-kv").await?;
    if policy.metadata.creation_timestamp > pod.metadata.creation_timestamp {
        fail!("the pod was created before its NetworkPolicy");
    }
    let spec = policy.spec.unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    if !types.iter().any(|kind| kind == "Egress")
        || spec.egress.is_some_and(|rules| !rules.is_empty())
    {
        fail!("the policy lets something out");
    }
    sandbox.close().await
}

/// The chart's own trial: two dozen requests in the operator's name, each judged by the admission
/// policy.
async fn fence(world: Arc<World>) -> Outcome {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/fence.sh");
    let printed = world.script(script).await?;
    if !printed.success {
        fail!("{}{}", printed.out, printed.err);
    }
    Ok(())
}

/// Runs the probe as a pod with the label `role` and expects exit code 0.
async fn probe(sandbox: &Sandbox, role: &str, arguments: Vec<String>) -> Outcome {
    let mut command = vec![
        "/usr/bin/python3".to_owned(),
        "-c".to_owned(),
        PROBE.to_owned(),
    ];
    let expected = arguments.last().cloned().unwrap_or_default();
    command.extend(arguments);
    let name = format!("{role}-{expected}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"role": role}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": "patchbay.dev/example-python:v1",
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))?;
    sandbox
        .api::<Pod>()
        .create(&PostParams::default(), &pod)
        .await?;
    let phase = until(&format!("the probe {name} ended"), || async {
        let status = sandbox
            .api::<Pod>()
            .get(&name)
            .await?
            .status
            .unwrap_or_default();
        Ok(status
            .phase
            .filter(|phase| phase == "Succeeded" || phase == "Failed"))
    })
    .await?;
    if phase != "Succeeded" {
        fail!("a {role} never saw the port {expected}");
    }
    Ok(())
}
