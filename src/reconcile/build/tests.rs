//! What is built, to the letter.

use crate::build;
use crate::plugin::samples::{controller, observed, settings, wanted};
use patchbay_api::names;
use patchbay_api::names::PodName;
use patchbay_launcher::layout;
use serde_json::json;

fn full() -> crate::plugin::resolve::Resolved {
    let mut observed = observed();
    let spec = &mut observed.plugin.spec;
    spec.service = serde_json::from_value(json!({
        "type": "NodePort", "port": 80, "externalTrafficPolicy": "Local",
        "clients": [
            {"pods": {"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
        ]
    }))
    .unwrap();
    spec.pod = serde_json::from_value(json!({
        "labels": {"team.example/name": "storage"},
        "annotations": {"note": "mine"},
        "nodeSelector": {"disk": "fast"},
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "kv"}},
            {"name": "settings", "configMap": {"name": "kv"}}
        ]
    }))
    .unwrap();
    spec.volume_mounts = serde_json::from_value(json!([
        {"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/etc/kv"}
    ]))
    .unwrap();
    let go_plugin = spec.protocol.go_plugin.as_mut().unwrap();
    go_plugin.tls = serde_json::from_value(
        json!({"mode": "Explicit", "secretName": "certificates", "serverName": "kv.example"}),
    )
    .unwrap();
    wanted(&observed)
}

fn name(resolved: &crate::plugin::resolve::Resolved) -> PodName {
    PodName {
        plugin: resolved.id.name.clone(),
        ordinal: 0,
        incarnation: 1,
    }
}

#[test]
fn pod_of_a_minimal_plugin_matches_the_snapshot() {
    let resolved = wanted(&observed());
    insta::assert_yaml_snapshot!(build::pod::pod(&resolved, &settings(), &name(&resolved)));
}

#[test]
fn pod_of_a_plugin_with_all_fields_matches_the_snapshot() {
    let resolved = full();
    insta::assert_yaml_snapshot!(build::pod::pod(&resolved, &settings(), &name(&resolved)));
}

fn workers(service: serde_json::Value) -> crate::plugin::resolve::Resolved {
    let mut observed = observed();
    controller(&mut observed.plugin.spec);
    observed.plugin.spec.service = serde_json::from_value(service).unwrap();
    wanted(&observed)
}

#[test]
fn pod_of_a_pcp_controller_matches_the_snapshot() {
    let resolved = workers(json!({}));
    insta::assert_yaml_snapshot!(build::pod::pod(&resolved, &settings(), &name(&resolved)));
}

#[test]
fn workers_can_reach_only_the_port_of_a_pcp_controller() {
    let resolved = workers(json!({
        "type": "LoadBalancer", "port": 9000, "clients": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    }));
    insta::assert_yaml_snapshot!([
        json!(build::service::service(&resolved)),
        json!(build::service::headless(&resolved)),
        json!(build::network_policy::network_policy(
            &resolved,
            &settings()
        )),
    ]);
}

#[test]
fn traffic_policy_of_a_pcp_controller_defaults_to_local() {
    let policy = |service| {
        let spec = build::service::service(&workers(service)).spec.unwrap();
        spec.external_traffic_policy
    };
    assert_eq!(policy(json!({})), None);
    assert_eq!(
        policy(json!({"type": "NodePort"})).as_deref(),
        Some("Local")
    );
    assert_eq!(
        policy(json!({"type": "NodePort", "externalTrafficPolicy": "Cluster"})).as_deref(),
        Some("Cluster")
    );
}

#[test]
fn services_match_the_snapshot() {
    insta::assert_yaml_snapshot!([
        build::service::service(&wanted(&observed())),
        build::service::service(&full()),
        build::service::headless(&full()),
    ]);
}

#[test]
fn network_policies_match_the_snapshot() {
    insta::assert_yaml_snapshot!([
        build::network_policy::network_policy(&wanted(&observed()), &settings()),
        build::network_policy::network_policy(&full(), &settings()),
    ]);
}

#[test]
fn proxy_port_is_closed_when_there_are_no_clients() {
    let policy = build::network_policy::network_policy(&wanted(&observed()), &settings());
    let spec = policy.spec.unwrap();
    let ingress = spec.ingress.unwrap();
    assert_eq!(ingress.len(), 1);
    assert!(
        ingress
            .iter()
            .all(|rule| rule.from.as_ref().is_some_and(|from| !from.is_empty()))
    );
    assert_eq!(spec.egress, None);
    assert!(spec.policy_types.unwrap().contains(&"Egress".to_owned()));
}

#[test]
fn pod_is_built_deterministically() {
    let text = || {
        let resolved = full();
        serde_json::to_string(&build::pod::pod(&resolved, &settings(), &name(&resolved))).unwrap()
    };
    assert_eq!(text(), text());
}

#[test]
fn plugin_container_has_no_secrets_and_mounts_the_launcher_read_only() {
    let resolved = full();
    let mounts = build::volumes::plugin_mounts(&resolved);
    let at = |path: &str| mounts.iter().find(|m| m.mount_path == path);
    assert_eq!(at(layout::BIN).unwrap().read_only, Some(true));
    for secret in [
        layout::PRIVATE,
        layout::IDENTITY,
        layout::CONFIG,
        layout::PLUGIN_TLS,
    ] {
        assert!(at(secret).is_none(), "{secret}");
    }
}

#[test]
fn ports_and_ids_are_equal_in_both_crates() {
    assert_eq!(names::SESSION_PORT, layout::SESSION_PORT);
    assert_eq!(names::PROXY_PORT, layout::PROXY_PORT);
    assert_eq!(names::CANARY_PORT, layout::CANARY_PORT);
    assert_eq!(patchbay_api::plugin::pod::DEFAULT_ID, layout::DEFAULT_UID);
}

#[test]
fn every_reason_of_the_sidecar_is_in_the_catalogue() {
    for reason in patchbay_protocol::reason::Reason::ALL {
        assert!(
            patchbay_api::Reason::parse(reason.as_str()).is_some(),
            "{reason}"
        );
    }
}
