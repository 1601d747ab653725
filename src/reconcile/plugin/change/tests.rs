use super::*;
use crate::plugin::samples::{controller, observed, settings, wanted};
use patchbay_api::PluginSpec;
use patchbay_api::plugin::{Checksum, Medium, TlsMode};

const ALLOWED: Allowed = Allowed {
    strategy: Strategy::InPlace,
    sidecar: SidecarUpdate::Auto,
};

fn built(change: impl FnOnce(&mut PluginSpec)) -> Built {
    let mut observed = observed();
    change(&mut observed.plugin.spec);
    Built::wanted(&wanted(&observed), &settings())
}

/// A name, an edit, and what it costs.
type Row = (&'static str, fn(&mut PluginSpec), Change);

#[test]
fn every_field_has_the_change_class_of_the_table() {
    let table: &[Row] = &[
        ("nothing", |_| {}, Change::Nothing),
        ("replicas", |s| s.replicas = 5, Change::Nothing),
        ("service", |s| s.service.port = 80, Change::Nothing),
        ("update", |s| s.update.max_unavailable = 2, Change::Nothing),
        ("health", |s| s.health.period_seconds = 1, Change::Live),
        (
            "jobs of a pod",
            |s| s.jobs.max_running_per_pod = 1,
            Change::Live,
        ),
        (
            "jobs of all pods",
            |s| s.jobs.max_running = Some(1),
            Change::Nothing,
        ),
        ("family", controller, Change::ReplacePod),
        ("restart", |s| s.restart.max_seconds = 9, Change::Live),
        ("shutdown", |s| s.shutdown.term_seconds = 60, Change::Live),
        (
            "cookie",
            |s| go(s).cookie.value = "other".into(),
            Change::PluginRestart,
        ),
        (
            "versions",
            |s| go(s).versions = vec![5],
            Change::PluginRestart,
        ),
        (
            "order of versions",
            |s| go(s).versions.reverse(),
            Change::Nothing,
        ),
        (
            "tls mode",
            |s| go(s).tls.mode = TlsMode::AutoMTLS,
            Change::PluginRestart,
        ),
        ("ports", |s| go(s).ports.max = 10_001, Change::PluginRestart),
        (
            "handshake",
            |s| go(s).handshake.skip_lines = 1,
            Change::PluginRestart,
        ),
        (
            "checksums",
            |s| {
                s.checksums.push(Checksum {
                    path: "/kv".into(),
                    sha256: "0".repeat(64),
                })
            },
            Change::PluginRestart,
        ),
        (
            "image",
            |s| s.image = "registry.example/kv:2".into(),
            Change::PluginSwap,
        ),
        (
            "command",
            |s| s.command.push("-v".into()),
            Change::ReplacePod,
        ),
        ("args", |s| s.args.clear(), Change::ReplacePod),
        ("env", |s| s.env.clear(), Change::ReplacePod),
        (
            "working dir",
            |s| s.working_dir = Some("/".into()),
            Change::ReplacePod,
        ),
        (
            "scratch",
            |s| s.scratch.medium = Medium::Disk,
            Change::ReplacePod,
        ),
        (
            "placement",
            |s| s.pod.priority_class_name = Some("high".into()),
            Change::ReplacePod,
        ),
        (
            "user",
            |s| s.pod.security_context.run_as_user = None,
            Change::ReplacePod,
        ),
        (
            "certificates",
            |s| {
                let tls = &mut go(s).tls;
                tls.mode = TlsMode::Explicit;
                tls.secret_name = Some("certificates".into());
                tls.server_name = Some("kv".into());
            },
            Change::ReplacePod,
        ),
    ];
    let before = built(|_| {});
    for (name, edit, expected) in table {
        let found = classify(Some(&before), &built(edit), ALLOWED).greatest();
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn pcp_controller_restarts_for_settings_and_is_replaced_for_a_port() {
    let table: &[Row] = &[
        ("nothing", |_| {}, Change::Nothing),
        (
            "stage",
            |s| of_controller(s).stage = patchbay_api::plugin::Stage::Dev,
            Change::PluginRestart,
        ),
        (
            "class",
            |s| of_controller(s).class_name = None,
            Change::PluginRestart,
        ),
        (
            "timeout",
            |s| of_controller(s).start_timeout_seconds = 9,
            Change::PluginRestart,
        ),
        ("recovery", |s| s.jobs.recover_seconds = 0, Change::Live),
        (
            "port",
            |s| of_controller(s).port = 10_001,
            Change::ReplacePod,
        ),
    ];
    let before = built(controller);
    for (name, edit, expected) in table {
        let after = built(|s| {
            controller(s);
            edit(s);
        });
        let found = classify(Some(&before), &after, ALLOWED).greatest();
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn missing_job_limits_in_a_record_mean_the_defaults() {
    let usual: Jobs = serde_json::from_str("{}").unwrap();
    let config = pod_config(&wanted(&observed()), &settings());
    assert_eq!(config.jobs, usual);
}

fn of_controller(spec: &mut PluginSpec) -> &mut patchbay_api::plugin::PcpController {
    spec.protocol.pcp_controller.as_mut().unwrap()
}

fn go(spec: &mut PluginSpec) -> &mut patchbay_api::plugin::GoPlugin {
    spec.protocol.go_plugin.as_mut().unwrap()
}

#[test]
fn new_sidecar_image_is_swapped_with_auto_and_ignored_with_manual() {
    let before = built(|_| {});
    let mut after = before.clone();
    after.sidecar = "patchbay.dev/sidecar:v2".into();
    assert_eq!(
        classify(Some(&before), &after, ALLOWED).greatest(),
        Change::SidecarSwap
    );
    let manual = Allowed {
        sidecar: SidecarUpdate::Manual,
        ..ALLOWED
    };
    assert_eq!(
        classify(Some(&before), &after, manual).greatest(),
        Change::Nothing
    );
}

#[test]
fn replace_strategy_replaces_the_pod_for_a_new_image() {
    let before = built(|_| {});
    let after = built(|s| s.image = "registry.example/kv:2".into());
    let replace = Allowed {
        strategy: Strategy::Replace,
        ..ALLOWED
    };
    assert_eq!(
        classify(Some(&before), &after, replace).greatest(),
        Change::ReplacePod
    );
}

#[test]
fn pod_of_another_contract_is_kept_until_the_spec_changes() {
    let mut before = built(|_| {});
    before.contract += 1;
    before.pod = "of another operator".into();
    let mut after = built(|_| {});
    assert_eq!(
        classify(Some(&before), &after, ALLOWED).greatest(),
        Change::Nothing
    );
    after.generation += 1;
    assert_eq!(
        classify(Some(&before), &after, ALLOWED).greatest(),
        Change::ReplacePod
    );
}

#[test]
fn a_pod_without_a_readable_record_is_replaced() {
    let after = built(|_| {});
    assert_eq!(
        classify(None, &after, ALLOWED).greatest(),
        Change::ReplacePod
    );
    assert_eq!(Built::read(Some("{}")), None);
    assert_eq!(Built::read(Some(&after.write())), Some(after));
}

/// Pods compare these words with their own: other words for the same spec would replace every pod
/// of every installation at the next release.
#[test]
fn built_record_format_is_stable_across_releases() {
    insta::assert_snapshot!(built(|_| {}).write());
}
