//! What is not in the conformance list's first part, and what only several processes show.

use crate::calls::{check, finish, proxy, start, who_am_i};
use crate::pod::{Pod, memory_kib};
use crate::programs;
use crate::setup::Setup;
use patchbay_protocol::pod_config::{Checksum, Tls};
use patchbay_protocol::session::Phase;
use patchbay_protocol::session::exit::How;
use rustix::process::Signal;
use std::process::Command;

pub async fn a_killed_sidecar_is_replaced_and_the_plain_plugin_lives_on() {
    lives_on(Tls::None).await;
}

pub async fn a_killed_sidecar_is_replaced_and_the_auto_mtls_plugin_lives_on() {
    lives_on(Tls::AutoMTLS).await;
}

async fn lives_on(tls: Tls) {
    let mut pod = Pod::start(Setup::echo().tls(tls)).await;
    let before = pod.ready().await;
    let plugin = who_am_i(&proxy(pod.proxy()).await).await;
    let target = pod.proxy().to_string();
    let load = start(
        "echo-client",
        &[
            "load",
            "-target",
            &target,
            "-rate",
            "200",
            "-duration",
            "8s",
            "-wait-for-ready",
        ],
    );
    for round in 1..=3 {
        pod.replace_sidecar(Signal::KILL).await;
        let after = pod.ready().await;
        assert_eq!(
            (&after.start_id, after.started_at_ms),
            (&before.start_id, before.started_at_ms)
        );
        assert_eq!(after.restarts, 0);
        assert_eq!(
            after.handshake.as_ref().map(|handshake| &handshake.tls),
            before.handshake.as_ref().map(|handshake| &handshake.tls)
        );
        let counters = pod
            .counters("the re-attachment", |counters| counters.reattachments == 1)
            .await;
        assert_eq!(counters.reattachments, 1, "round {round}");
        let now = who_am_i(&proxy(pod.proxy()).await).await;
        assert_eq!(now.pid, plugin.pid);
        assert!(now.calls > plugin.calls, "the process's own count went on");
    }
    let printed = finish(load).await;
    assert!(printed.is_success, "{}", printed.stderr);
    let report: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    let (calls, ok) = (
        report["calls"].as_u64().unwrap(),
        report["ok"].as_u64().unwrap(),
    );
    // What was in flight at a kill is lost; nothing else may be.
    assert!(calls - ok <= 3 * 4 && ok > 1000, "{report}");
}

pub async fn a_sidecar_that_is_asked_to_go_loses_no_call() {
    let mut pod = Pod::start(Setup::echo().tls(Tls::AutoMTLS)).await;
    let before = pod.ready().await;
    let target = pod.proxy().to_string();
    let load = start(
        "echo-client",
        &[
            "load",
            "-target",
            &target,
            "-rate",
            "500",
            "-connections",
            "4",
            "-duration",
            "6s",
            "-wait-for-ready",
        ],
    );
    for _ in 0..3 {
        pod.replace_sidecar(Signal::TERM).await;
        assert_eq!(pod.ready().await.start_id, before.start_id);
    }
    let printed = finish(load).await;
    let report: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(report["calls"], report["ok"], "{report}");
    assert!(report["ok"].as_u64().unwrap() > 1000, "{report}");
}

pub async fn the_go_client_finds_every_kind_of_call_working() {
    for tls in [Tls::None, Tls::AutoMTLS] {
        let mut pod = Pod::start(Setup::echo().tls(tls)).await;
        pod.ready().await;
        let printed = check(pod.proxy(), "").await;
        assert!(printed.is_success, "{}{}", printed.stdout, printed.stderr);
    }
}

pub async fn a_stock_host_attaches_and_leaves_the_plugin_running() {
    let mut pod = Pod::start(Setup::fixture("kv-go").tls(Tls::AutoMTLS)).await;
    let before = pod.ready().await;
    let target = pod.proxy().to_string();
    for attached in 1..=2 {
        let printed = finish(start(
            "stock-host",
            &["reattach", "-addr", &target, "-plugin", "kv"],
        ))
        .await;
        assert!(printed.is_success, "{}", printed.stderr);
        let answer: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
        assert_eq!(answer["calls"], 3);
        assert_eq!(answer["ping"], true);
        let answered = move |counters: &patchbay_protocol::session::Counters| {
            counters.shutdowns_answered == attached
        };
        pod.counters("the answered Shutdown", answered).await;
    }
    assert_eq!(pod.ready().await.start_id, before.start_id);
    assert_eq!(pod.plugin_processes().len(), 1);
}

pub async fn a_wrong_checksum_starts_nothing_and_a_right_one_the_plugin() {
    let program = programs::fixture("echo-plugin");
    let printed = Command::new("sha256sum").arg(&program).output().unwrap();
    let right = String::from_utf8(printed.stdout).unwrap()[..64].to_owned();
    let flipped = if right.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{flipped}{}", &right[1..]);
    let path = program.display().to_string();
    let with = |sha256: &str| {
        vec![Checksum {
            path: path.clone(),
            sha256: sha256.to_owned(),
        }]
    };
    let mut pod = Pod::start(Setup::echo().with(|config| config.checksums = with(&wrong))).await;
    let failure = pod.failure().await;
    assert_eq!(failure.reason, "ChecksumMismatch");
    assert!(
        failure.message.contains(&right) && failure.message.contains(&wrong),
        "{}",
        failure.message
    );
    assert_eq!(pod.plugin_processes(), [0; 0]);
    assert_eq!(pod.text("launcher.out"), "");
    pod.configure(|config| config.checksums = with(&right))
        .await;
    pod.wait("Ready", |instance| instance.phase() == Phase::Ready)
        .await;
    pod.configure(|config| config.checksums[0].path = "/no/such/file".into())
        .await;
    let failure = pod
        .wait("the refusal", |instance| instance.reason == "ChecksumError")
        .await;
    assert!(failure.message.contains("/no/such/file"));
}

pub async fn the_end_of_a_pod_is_a_drain_and_a_shutdown() {
    let mut pod = Pod::start(Setup::echo()).await;
    pod.ready().await;
    let target = pod.proxy().to_string();
    let call = start(
        "echo-client",
        &[
            "check",
            "-target",
            &target,
            "-only",
            "each message when it is sent",
        ],
    );
    pod.counters("a call in flight", |counters| counters.calls_in_flight > 0)
        .await;
    pod.terminate_launcher();
    let stopping =
        |instance: &patchbay_protocol::session::Instance| instance.phase() == Phase::Stopping;
    pod.wait("Stopping", stopping).await;
    let ended = pod
        .wait("the end", |instance| instance.last_exit.is_some())
        .await
        .last_exit
        .unwrap();
    assert_eq!(
        (ended.ended_by.as_str(), ended.how),
        ("Shutdown", Some(How::Code(0)))
    );
    assert_eq!(pod.launcher_exit_code().await, Some(0));
    let printed = finish(call).await;
    assert!(
        printed.is_success,
        "the call in flight was cut: {}{}",
        printed.stdout, printed.stderr
    );
}

pub async fn a_plugin_that_hangs_in_its_shutdown_is_killed() {
    let setup = Setup::echo()
        .env("ECHO_HANG_SHUTDOWN", "1")
        .env("ECHO_IGNORE_SIGTERM", "1")
        .with(|config| {
            config.shutdown.rpc_seconds = 1;
            config.shutdown.exit_seconds = 1;
            config.shutdown.term_seconds = 1;
        });
    let mut pod = Pod::start(setup).await;
    pod.ready().await;
    pod.terminate_launcher();
    let ended = pod
        .wait("the end", |instance| instance.last_exit.is_some())
        .await
        .last_exit
        .unwrap();
    assert_eq!(
        (ended.ended_by.as_str(), ended.how),
        ("Kill", Some(How::Signal(9)))
    );
    let told: Vec<&str> = pod
        .history
        .iter()
        .map(|instance| instance.message.as_str())
        .collect();
    for step in ["SIGTERM", "SIGKILL"] {
        assert!(
            told.iter().any(|message| message.contains(step)),
            "{step} was not told: {told:?}"
        );
    }
    assert_eq!(pod.launcher_exit_code().await, Some(128 + 9));
}

pub async fn idle_processes_are_small() {
    let mut pod = Pod::start(Setup::fixture("kv-go").tls(Tls::AutoMTLS)).await;
    pod.ready().await;
    let launcher = memory_kib(pod.launcher(), "Anonymous");
    let sidecar = memory_kib(pod.sidecar(), "Anonymous");
    println!("idle: launcher {launcher} KiB, sidecar {sidecar} KiB, both anonymous");
    assert!(launcher <= 256, "the launcher has {launcher} KiB");
    // Resident memory counts pages of the program that all pods of a node share, and how many are
    // mapped depends on the machine's page cache: `make bench` shows it.
    if programs::are_optimized() {
        assert!(sidecar <= 1536, "the sidecar has {sidecar} KiB");
    }
}
