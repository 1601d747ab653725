//! What a user gets wrong is named in status and in an event.

use super::{Case, case};
use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, World, fail};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::PostParams;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("bad_input::wrong_cookie_is_named", |world| {
            let plugin =
                Plugin::kv_go("kv").with("/protocol/goPlugin/cookie/value", json!("goodbye"));
            refused_with(
                world,
                "wrong-cookie",
                plugin,
                "CookieRejected",
                &["BASIC_PLUGIN"],
            )
        }),
        case("bad_input::no_common_version_lists_both_sides", |world| {
            let plugin = Plugin::kv_go("kv").with("/protocol/goPlugin/versions", json!([7, 9]));
            refused_with(
                world,
                "no-version",
                plugin,
                "AppVersionUnsupported",
                &["1", "7, 9"],
            )
        }),
        case("bad_input::wrong_checksum_shows_the_right_one", |world| {
            let sums = json!([{"path": "/kv", "sha256": WRONG_SUM}]);
            let plugin = Plugin::kv_go("kv").with("/checksums", sums);
            refused_with(
                world,
                "wrong-checksum",
                plugin,
                "ChecksumMismatch",
                &["/kv", WRONG_SUM],
            )
        }),
        case("bad_input::hanging_start_times_out", |world| {
            let plugin = Plugin::script("hangs", "import signal; signal.pause()")
                .with("/protocol/goPlugin/handshake", json!({"timeoutSeconds": 2}));
            refused_with(world, "hangs", plugin, "StartTimeout", &["2"])
        }),
        case(
            "bad_input::crash_loop_is_counted_and_backed_off",
            crash_loop,
        ),
        case("bad_input::image_that_cannot_be_pulled_is_named", |world| {
            let plugin = Plugin::kv_go("kv").with("/image", json!("patchbay.dev/no-such-image:v1"));
            refused_with(
                world,
                "no-image",
                plugin,
                "ImagePullFailed",
                &["patchbay.dev/no-such-image:v1"],
            )
        }),
        case(
            "bad_input::missing_secret_is_named_and_found_when_it_comes",
            missing_secret,
        ),
        case(
            "bad_input::missing_config_map_is_named_and_found_when_it_comes",
            missing_config_map,
        ),
        case(
            "bad_input::a_foreign_service_of_our_name_is_left_alone",
            name_taken,
        ),
        case("bad_input::a_missing_program_is_named", |world| {
            let plugin = Plugin::kv_go("kv").with("/command", json!(["/no/such/program"]));
            refused_with(
                world,
                "no-program",
                plugin,
                "ExecFailed",
                &["/no/such/program"],
            )
        }),
        case(
            "bad_input::the_api_server_refuses_what_the_schema_forbids",
            refused_by_schema,
        ),
    ]
}

/// A digest that no file has.
const WRONG_SUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Applies the Plugin and expects the reason, and each word in the message.
async fn refused_with(
    world: Arc<World>,
    story: &str,
    plugin: Plugin,
    reason: &str,
    words: &[&str],
) -> Outcome {
    let sandbox = Sandbox::new(world, story).await?;
    sandbox.apply(&plugin).await?;
    let (status, took) = sandbox.refused(&plugin.name, reason).await?;
    let message = condition(&status, "Ready")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(word) = words.iter().find(|word| !message.contains(*word)) {
        fail!("the message of {reason} does not say `{word}`: {message}");
    }
    println!(
        "  {reason} after {:.1} s from creation: {message}",
        took.as_secs_f64()
    );
    sandbox.close().await
}

async fn crash_loop(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "crash-loop").await?;
    let plugin = Plugin::script("crashes", "import sys; sys.exit('the disk is full')")
        .with("/restart", json!({"initialSeconds": 1, "maxSeconds": 2}));
    sandbox.apply(&plugin).await?;
    sandbox.refused("crashes", "ExitedEarly").await?;
    let status = sandbox
        .plugin_until("crashes", "three restarts are counted", |status| {
            status["instances"][0]["restarts"].as_u64() >= Some(3)
        })
        .await?;
    let message = condition(&status, "Ready")["message"]
        .as_str()
        .unwrap_or_default();
    if !message.contains("the disk is full") {
        fail!("the plugin's last words are missing: {message}");
    }
    sandbox.close().await
}

async fn missing_secret(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "no-secret").await?;
    let env =
        json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}]);
    sandbox
        .apply(&Plugin::kv_go("kv").with("/env", env))
        .await?;
    let (status, _) = sandbox.refused("kv", "SecretMissing").await?;
    names(&status, "token")?;
    let secret = Secret {
        metadata: named("token"),
        string_data: Some([("t".to_owned(), "x".to_owned())].into()),
        ..Secret::default()
    };
    sandbox
        .api::<Secret>()
        .create(&PostParams::default(), &secret)
        .await?;
    sandbox.ready("kv").await?;
    sandbox.close().await
}

async fn missing_config_map(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "no-config-map").await?;
    let volumes = json!([{"name": "settings", "configMap": {"name": "settings"}}]);
    let mounts = json!([{"name": "settings", "mountPath": "/settings"}]);
    let plugin = Plugin::kv_go("kv")
        .with("/pod/volumes", volumes)
        .with("/volumeMounts", mounts);
    sandbox.apply(&plugin).await?;
    let (status, _) = sandbox.refused("kv", "ConfigMapMissing").await?;
    names(&status, "settings")?;
    let map = ConfigMap {
        metadata: named("settings"),
        ..ConfigMap::default()
    };
    sandbox
        .api::<ConfigMap>()
        .create(&PostParams::default(), &map)
        .await?;
    sandbox.ready("kv").await?;
    sandbox.close().await
}

async fn name_taken(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "name-taken").await?;
    let services = sandbox.api::<Service>();
    let theirs: Service = serde_json::from_value(json!({
        "metadata": {"name": "kv"},
        "spec": {"selector": {"app": "something-else"}, "ports": [{"port": 80}]},
    }))?;
    let before = services.create(&PostParams::default(), &theirs).await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    let status = sandbox
        .plugin_until("kv", "Accepted is False with reason NameTaken", |status| {
            let accepted = condition(status, "Accepted");
            accepted["status"] == "False" && accepted["reason"] == "NameTaken"
        })
        .await?;
    if !pretty(&status).contains("Service") {
        fail!(
            "the message does not say which object has the name: {}",
            pretty(&status)
        );
    }
    let after = services.get("kv").await?;
    if before.metadata.resource_version != after.metadata.resource_version {
        fail!("the foreign Service was changed");
    }
    services.delete("kv", &Default::default()).await?;
    sandbox.ready("kv").await?;
    sandbox.close().await
}

async fn refused_by_schema(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "schema").await?;
    let kv = Plugin::kv_go;
    let secret_volume = json!([{"name": "id", "secret": {"secretName": "pb-id-kv"}}]);
    for (plugin, word) in [
        (kv("kv").with("/command", json!([])), "command"),
        (
            kv("kv").with("/env", json!([{"name": "PLUGIN_MIN_PORT", "value": "1"}])),
            "PLUGIN_MIN_PORT",
        ),
        (kv("kv").with("/protocol", json!({})), "protocol"),
        (
            kv("kv").with("/protocol/goPlugin/tls", json!({"mode": "Explicit"})),
            "secretName",
        ),
        (
            kv("kv").with(
                "/pod/volumes",
                json!([{"name": "h", "hostPath": {"path": "/"}}]),
            ),
            "volumes",
        ),
        (kv("kv").with("/pod/volumes", secret_volume), "pb-id-"),
        (kv(&"a".repeat(49)), "48"),
    ] {
        let Err(refusal) = sandbox.apply(&plugin).await else {
            fail!("the API server accepted a Plugin that is wrong about {word}");
        };
        if !refusal.0.contains(word) {
            fail!("the refusal does not name `{word}`: {refusal}");
        }
    }
    sandbox.close().await
}

fn named(name: &str) -> kube::api::ObjectMeta {
    kube::api::ObjectMeta {
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn names(status: &Value, object: &str) -> Outcome {
    let message = condition(status, "Ready")["message"]
        .as_str()
        .unwrap_or_default();
    if !message.contains(object) {
        fail!("the message does not name {object}: {message}");
    }
    Ok(())
}
