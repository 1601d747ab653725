//! What an engineer sees without a restart: the debug page of a sidecar and the level of its log.

use super::{Case, case};
use crate::operator;
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("debug::sidecar_prints_its_state_and_claims", page),
        case("debug::sidecar_logs_more_after_its_level_is_raised", level),
    ]
}

async fn page(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "debug-page").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let pod = sandbox.pods("kv").await?.remove(0).name_any();
    let command = [
        "exec",
        &pod,
        "-c",
        "sidecar",
        "--",
        "/patchbay-sidecar",
        "debug",
    ];
    let printed = sandbox.world.kubectl(&sandbox.name, &command).await?;
    let page: serde_json::Value = serde_json::from_str(&printed.out)?;
    if page["phase"] != "PHASE_READY" || page["jobs"]["session"] != true {
        fail!("the page of a ready plugin says {page:#}");
    }
    sandbox.close().await
}

async fn level(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(Arc::clone(&world), "debug-level").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let pod = sandbox.pods("kv").await?.remove(0).name_any();
    put_level(&world, "debug").await?;
    let logged = || async {
        let parameters = LogParams {
            container: Some("sidecar".to_owned()),
            ..LogParams::default()
        };
        let log = sandbox.api::<Pod>().logs(&pod, &parameters).await?;
        let found = log.lines().any(|line| line.contains("\"level\":\"debug\""));
        Ok(found.then_some(()))
    };
    let seen = until("the sidecar logs at debug", logged).await;
    put_level(&world, "info").await?;
    seen?;
    sandbox.close().await
}

/// `PUT /sidecar-log-level`, as through `kubectl port-forward`.
async fn put_level(world: &World, filter: &str) -> Outcome {
    let Some(pod) = operator::pods(world).await?.into_iter().next() else {
        fail!("no operator pod");
    };
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), operator::NAMESPACE);
    let mut forwarder = pods.portforward(&pod.name_any(), &[8080]).await?;
    let Some(mut stream) = forwarder.take_stream(8080) else {
        fail!("the port is not forwarded");
    };
    let request = format!(
        "PUT /sidecar-log-level HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{filter}",
        filter.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        fail!("PUT /sidecar-log-level is answered with {answer}");
    }
    Ok(())
}
