//! Cases 24, 25, 27 and 28: services of the library, health, messages.

use crate::calls::{self, NOT_SERVING, Nothing, Payload, SetHealth, proxy, unary};
use crate::pod::{Pod, now_ms};
use crate::setup::Setup;
use patchbay_protocol::pod_config::{OnFailure, Restart};
use patchbay_protocol::session::exit::How;
use patchbay_protocol::session::{Instance, Phase};
use std::time::Duration;

pub async fn case_24_a_plugin_without_any_service_of_the_library_is_ready() {
    let mut pod = Pod::start(Setup::python("tests/process/plugins/bare.py")).await;
    let ready = pod.ready().await;
    let same: Payload = unary(
        &proxy(pod.proxy()).await,
        "/bare.Bare/Same",
        Payload {
            data: b"x".to_vec(),
        },
    )
    .await
    .unwrap();
    assert_eq!(same.data, b"x");
    let warned = |instance: &Instance, word: &str| {
        instance
            .warnings
            .iter()
            .any(|warning| warning.contains(word))
    };
    assert!(warned(&ready, "health"), "{:?}", ready.warnings);
    let instance = pod
        .wait("the warning about stdio", |instance| {
            warned(instance, "stdio")
        })
        .await;
    assert_eq!(instance.start_id, ready.start_id);

    pod.terminate_launcher();
    let ended = pod
        .wait("the end", |instance| instance.last_exit.is_some())
        .await
        .last_exit
        .unwrap();
    assert_eq!(
        ended.ended_by, "Term",
        "without a controller only signals are left"
    );
    assert_eq!(ended.how, Some(How::Signal(15)));
}

pub async fn case_25_a_silent_plugin_is_ready_at_once() {
    // It writes nothing to its stdio stream, so that stream's headers never come.
    let mut quickest = u64::MAX;
    for _ in 0..3 {
        let mut pod = Pod::start(Setup::fixture("kv-go")).await;
        let instance = pod.ready().await;
        let now = now_ms();
        quickest = quickest.min(now - instance.started_at_ms);
    }
    assert!(quickest <= 1000, "ready only {quickest} ms after the start");
}

pub async fn case_27_health_decides_readiness_and_restarts() {
    let sick = |state: &str| Setup::echo().env("ECHO_HEALTH", state);
    for (state, word) in [
        ("NOT_SERVING", "NOT_SERVING"),
        ("HANG", "not answered in time"),
    ] {
        let mut pod = Pod::start(sick(state)).await;
        let unhealthy = |instance: &Instance| instance.phase() == Phase::Unhealthy;
        let instance = pod.wait("Unhealthy", unhealthy).await;
        assert_eq!(instance.reason, "Unhealthy");
        assert!(instance.message.contains(word), "{}", instance.message);
        let was_ready = pod
            .history
            .iter()
            .any(|instance| instance.phase() == Phase::Ready);
        assert!(!was_ready);
    }
    flapping().await;
}

async fn flapping() {
    let setup = Setup::echo().with(|config| {
        config.health.on_failure = OnFailure::Restart;
        config.restart = Restart {
            initial_seconds: 1,
            max_seconds: 2,
        };
    });
    let mut pod = Pod::start(setup).await;
    let mut before = pod.ready().await;
    for restarts in 1..=3 {
        let channel = proxy(pod.proxy()).await;
        let state = SetHealth { state: NOT_SERVING };
        let _: Nothing = unary(&channel, "/patchbay.test.v1.Control/SetHealth", state)
            .await
            .unwrap();
        let failure = pod.failure().await;
        assert_eq!(failure.reason, "Unhealthy");
        let now = pod.ready().await;
        assert_ne!(now.start_id, before.start_id);
        assert_eq!(now.restarts, restarts, "one restart for one failure");
        let ended = now.last_exit.clone().unwrap();
        assert_eq!(ended.ended_by, "Shutdown");
        let pause = now.started_at_ms - ended.at_ms;
        // The pause is spread by chance; a start within half of it would be none.
        assert!(pause >= 500, "started again after {pause} ms");
        before = now;
    }
}

pub async fn case_28_large_messages_pass_and_limits_are_the_plugins() {
    let mut pod = Pod::start(Setup::echo()).await;
    pod.ready().await;
    for only in ["20 MiB", "5 MiB"] {
        let check = calls::check(pod.proxy(), only);
        let printed = tokio::time::timeout(Duration::from_secs(60), check)
            .await
            .unwrap();
        assert!(printed.is_success, "{}{}", printed.stdout, printed.stderr);
        assert!(
            printed.stdout.contains("1 passed, 0 failed"),
            "{}",
            printed.stdout
        );
    }
}
