//! Cases 14 to 18: how a plugin does not come to its line, and what it is told.

use super::fails;
use crate::pod::{Pod, now_ms};
use crate::programs;
use crate::setup::Setup;
use patchbay_protocol::pod_config::FamilyConfig;
use patchbay_protocol::session::Phase;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const ROUNDS: u32 = 100;

pub async fn case_14_the_same_end_has_the_same_reason_every_time() {
    let cookie = "echo 'This binary is a plugin. Do not run it directly.' >&2; exit 1";
    always(cookie, "CookieRejected", "BASIC_PLUGIN").await;
    let error = r#"echo '{"@level":"error","@message":"bind: no such directory"}' >&2; exit 0"#;
    always(error, "ExitedEarly", "bind: no such directory").await;
    always("kill -SEGV $$", "ExitedEarly", "SIGSEGV").await;
}

/// Every change of the configuration starts the plugin anew, without a pause.
async fn always(script: &str, reason: &str, word: &str) {
    let mut pod = Pod::start(Setup::shell(script)).await;
    for round in 1..=ROUNDS {
        let revision = pod
            .configure(|config| {
                if let FamilyConfig::GoPlugin(family) = &mut config.protocol {
                    family.max_port = 25_000 - u16::try_from(round).unwrap();
                }
            })
            .await;
        let over = move |instance: &patchbay_protocol::session::Instance| {
            instance.revision == revision && instance.phase() == Phase::BackingOff
        };
        let instance = pod.wait("the round's failure", over).await;
        assert_eq!(
            instance.reason, reason,
            "round {round}: {}",
            instance.message
        );
        assert!(
            instance.message.contains(word),
            "round {round}: {}",
            instance.message
        );
    }
}

pub async fn case_15_a_silent_plugin_times_out_and_is_gone() {
    let script = "sleep 1000 & setsid sleep 1000 & trap '' TERM; sleep 1000; sleep 1000";
    let mut pod = Pod::start(Setup::shell(script).timeout(1)).await;
    let instance = pod.failure().await;
    let now = now_ms();
    assert_eq!(instance.reason, "StartTimeout", "{}", instance.message);
    assert_eq!(pod.plugin_processes(), [0; 0], "processes live on");
    let started = pod
        .history
        .iter()
        .map(|instance| instance.started_at_ms)
        .max()
        .unwrap();
    let took = now - started;
    // The sidecar counts from its order, which comes a moment before the start.
    assert!(
        (900..=2000).contains(&took),
        "it was over {took} ms after the start"
    );
}

pub async fn case_16_four_ways_not_to_start_have_four_hints() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let mut foreign = fs::read("/bin/true").unwrap();
    foreign[18..20].copy_from_slice(&[0xf3, 0]); // e_machine: RISC-V
    let starts = |path: &Path| Setup::new(vec![path.display().to_string()]);
    let missing = starts(&folder.path().join("missing"));
    fails(
        missing,
        "ExecFailed",
        &["No such file in the plugin's image"],
    )
    .await;
    let plain = starts(&file("plain", b"#!/bin/sh\n", 0o644));
    fails(plain, "ExecFailed", &["execute bit"]).await;
    let foreign = starts(&file("foreign", &foreign, 0o755));
    fails(foreign, "ExecFailed", &["another processor than x86_64"]).await;
    let script = starts(&file("script", b"#!/no/such/interpreter\n", 0o755));
    fails(
        script,
        "ExecFailed",
        &["/no/such/interpreter", "interpreter"],
    )
    .await;
}

pub async fn case_17_a_wrong_cookie_is_named() {
    for plugin in ["kv-go", "kv-go-1.0", "echo-plugin"] {
        let wrong = Setup::fixture(plugin).family(|family| family.cookie_value = "wrong".into());
        fails(wrong, "CookieRejected", &["BASIC_PLUGIN", "cookie"]).await;
    }
    let by_hand = Command::new(programs::fixture("kv-go"))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(by_hand.status.code(), Some(1));
    assert!(by_hand.stdout.is_empty());
    assert_eq!(
        String::from_utf8_lossy(&by_hand.stderr)
            .trim_end()
            .lines()
            .count(),
        3
    );
}

/// That a Plugin cannot name a reserved variable itself is a rule of its kind; the accept and
/// reject tests of the API cover it. Here a container that carries such variables by mistake is
/// looked at.
pub async fn case_18_the_environment_is_what_the_contract_says() {
    let setup = Setup::shell("env >$DIR/../../private/env; exec sleep 1000")
        .versions(&[5, 3])
        .env("KEPT", "of the container")
        .env("PLUGIN_CLIENT_CERT", "of somebody else");
    let mut pod = Pod::start(setup).await;
    let written = pod.path("private/env");
    let instance = pod
        .wait("a start", |instance| {
            !instance.start_id.is_empty() && instance.started_at_ms > 0
        })
        .await;
    let text = crate::pod::until("the environment is written", || {
        fs::read_to_string(&written)
            .ok()
            .filter(|text| text.contains("\nPATH=") || text.starts_with("PATH="))
    })
    .await;
    let env: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let directory = pod
        .path("run")
        .join(&instance.start_id)
        .display()
        .to_string();
    for (key, value) in [
        ("BASIC_PLUGIN", "hello"),
        ("PLUGIN_PROTOCOL_VERSIONS", "3,5"),
        ("PLUGIN_MIN_PORT", "10000"),
        ("PLUGIN_MAX_PORT", "25000"),
        ("PLUGIN_UNIX_SOCKET_DIR", &directory),
        ("TMPDIR", &directory),
        ("KEPT", "of the container"),
    ] {
        assert_eq!(env.get(key), Some(&value), "{key}");
    }
    for key in [
        "PLUGIN_MULTIPLEX_GRPC",
        "PLUGIN_CLIENT_CERT",
        "SIDECAR_SECRET",
    ] {
        assert_eq!(env.get(key), None, "{key}");
    }
}
