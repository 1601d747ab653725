//! A client's calls reach plugins of every language, and live through the death of a sidecar.

use super::{Case, case};
use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, pretty};
use crate::world::{Outcome, World, fail, until};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("calls::go_plugin_answers", |world| {
            answers(world, "call-go", Plugin::kv_go("kv"), "None")
        }),
        case("calls::go_plugin_answers_over_automatic_tls", |world| {
            let plugin =
                Plugin::kv_go("kv").with("/protocol/goPlugin/tls", json!({"mode": "AutoMTLS"}));
            answers(world, "call-go-tls", plugin, "AutoMTLS")
        }),
        case("calls::old_go_plugin_answers", |world| {
            let plugin =
                Plugin::kv_go("kv").with("/image", json!("patchbay.dev/example-kv-go-old:v1"));
            answers(world, "call-go-old", plugin, "None")
        }),
        case("calls::python_plugin_answers", |world| {
            answers(
                world,
                "call-python",
                example(include_str!("../../../examples/kv-python.yaml")),
                "None",
            )
        }),
        case("calls::rust_plugin_answers", |world| {
            answers(
                world,
                "call-rust",
                example(include_str!("../../../examples/kv-rust.yaml")),
                "None",
            )
        }),
        case("calls::sidecar_death_leaves_the_plugin_running", |world| {
            sidecar_death(world, "sidecar-death", Plugin::kv_go("kv"))
        })
        .violent(),
        case(
            "calls::sidecar_death_leaves_the_plugin_running_over_automatic_tls",
            |world| {
                let plugin =
                    Plugin::kv_go("kv").with("/protocol/goPlugin/tls", json!({"mode": "AutoMTLS"}));
                sidecar_death(world, "sidecar-death-tls", plugin)
            },
        )
        .violent(),
    ]
}

/// The Plugin of an example manifest; the examples are what the README shows.
fn example(manifest: &str) -> Plugin {
    let documents = serde_norway::Deserializer::from_str(manifest);
    for document in documents {
        let Ok(object) = <Value as serde::Deserialize>::deserialize(document) else {
            continue;
        };
        if object["kind"] == "Plugin" {
            return Plugin {
                name: "kv".to_owned(),
                spec: object["spec"].clone(),
            };
        }
    }
    Plugin {
        name: "no-plugin-in-the-example".to_owned(),
        spec: Value::Null,
    }
}

async fn answers(world: Arc<World>, story: &str, plugin: Plugin, tls: &str) -> Outcome {
    let sandbox = Sandbox::new(world, story).await?;
    sandbox.apply(&plugin).await?;
    let status = sandbox.ready(&plugin.name).await?;
    let handshake = &status["handshake"];
    if handshake["coreVersion"] != 1 || handshake["appVersion"] != 1 {
        fail!("the handshake is not in status: {}", pretty(&status));
    }
    if !handshake["tls"]
        .as_str()
        .unwrap_or_default()
        .starts_with(tls)
    {
        fail!("expected tls {tls}: {}", pretty(handshake));
    }
    // Ready says that calls are answered; what reflection finds may follow it.
    sandbox
        .plugin_until(&plugin.name, "reflection finds proto.KV", |status| {
            pretty(&status["provides"]["services"]).contains("proto.KV")
        })
        .await?;
    round_trip(&sandbox, &plugin.name).await?;
    sandbox.close().await
}

/// Puts a value and gets it back; "aGVsbG8=" is "hello".
async fn round_trip(sandbox: &Sandbox, plugin: &str) -> Outcome {
    let world = &sandbox.world;
    let put = r#"{"key": "greeting", "value": "aGVsbG8="}"#;
    world
        .call(&sandbox.name, plugin, "proto.KV/Put", put)
        .await?;
    let got = world
        .call(
            &sandbox.name,
            plugin,
            "proto.KV/Get",
            r#"{"key": "greeting"}"#,
        )
        .await?;
    // Some of the examples add a line that says who wrote the value.
    if !got.contains("aGVsbG8") {
        fail!("Get did not return what Put stored: {got}");
    }
    Ok(())
}

async fn sidecar_death(world: Arc<World>, story: &str, plugin: Plugin) -> Outcome {
    let sandbox = Sandbox::new(world, story).await?;
    sandbox.apply(&plugin).await?;
    let before = sandbox.ready(&plugin.name).await?["instances"][0].clone();
    let pod = before["pod"].as_str().unwrap_or_default().to_owned();
    sandbox.kill_sidecar(&pod).await?;
    until("the kubelet started the sidecar again", || async {
        Ok((sidecar_restarts(&sandbox, &pod).await? > 0).then_some(()))
    })
    .await?;
    let after = sandbox
        .plugin_until(
            &plugin.name,
            "Ready again with the restarted sidecar",
            |status| status["readyReplicas"] == 1 && status["instances"][0]["state"] == "Ready",
        )
        .await?["instances"][0]
        .clone();
    for field in ["startId", "startedAt", "restarts"] {
        if before[field] != after[field] {
            fail!("{field} changed from {} to {}", before[field], after[field]);
        }
    }
    round_trip(&sandbox, &plugin.name).await?;
    sandbox.close().await
}

async fn sidecar_restarts(sandbox: &Sandbox, pod: &str) -> Outcome<i32> {
    let status = sandbox
        .api::<Pod>()
        .get(pod)
        .await?
        .status
        .unwrap_or_default();
    Ok(status
        .init_container_statuses
        .unwrap_or_default()
        .iter()
        .map(|c| c.restart_count)
        .sum())
}
