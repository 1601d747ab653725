//! Properties of the published schema.

use super::{
    GoPlugin, Health, PodOptions, PortRange, Restart, Scratch, ServiceOptions, Shutdown,
    TlsOptions, Update,
};
use super::{Plugin, PluginSpec};
use crate::PluginStatus;
use crate::published::{self, walk};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde_json::{Value, json};

fn schema() -> Value {
    published::schema::<Plugin>()
}

#[test]
fn schema_defaults_equal_the_defaults_of_the_types() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    macro_rules! same {
        ($($type:ty, $place:expr;)+) => {$(published::has_the_default::<$type>(&$place);)+};
    }
    let family = &spec["protocol"]["properties"]["goPlugin"]["properties"];
    same! {
        Health, spec["health"];
        Restart, spec["restart"];
        Shutdown, spec["shutdown"];
        Update, spec["update"];
        super::JobOptions, spec["jobs"];
        ServiceOptions, spec["service"];
        Scratch, spec["scratch"];
        PodOptions, spec["pod"];
        super::PodSecurity, spec["pod"]["properties"]["securityContext"];
        TlsOptions, family["tls"];
        PortRange, family["ports"];
        super::Handshake, family["handshake"];
    }
    assert_eq!(spec["replicas"]["default"], 1);
    assert_eq!(spec["imagePullPolicy"]["default"], "IfNotPresent");
}

#[test]
fn minimal_spec_decodes_like_a_spec_with_all_defaults() {
    let minimal = json!({
        "image": "kv:1",
        "command": ["/kv"],
        "protocol": {"goPlugin": {"cookie": {"key": "K", "value": "v"}, "versions": [1]}}
    });
    let spec: PluginSpec = serde_json::from_value(minimal).unwrap();
    let family: &GoPlugin = spec.protocol.go_plugin.as_ref().unwrap();
    assert_eq!(spec.replicas, 1);
    assert_eq!(spec.health, Health::default());
    assert_eq!(
        family.ports,
        PortRange {
            min: 10_000,
            max: 25_000
        }
    );
    assert_eq!(spec.pod.security_context.run_as_user, Some(65_532));
    let back: PluginSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    assert_eq!(back, spec);
}

#[test]
fn null_user_id_stays_null() {
    let spec: PodOptions =
        serde_json::from_value(json!({"securityContext": {"runAsUser": null}})).unwrap();
    assert_eq!(spec.security_context.run_as_user, None);
    assert_eq!(spec.security_context.fs_group, Some(65_532));
    let written = serde_json::to_value(&spec).unwrap();
    assert_eq!(written["securityContext"]["runAsUser"], Value::Null);
}

#[test]
fn every_string_list_and_map_has_a_maximum() {
    published::is_bounded(&schema());
}

#[test]
fn every_list_of_objects_has_a_list_type() {
    published::has_list_types(&schema());
}

#[test]
fn schema_keeps_no_unknown_fields() {
    walk("", &schema(), &mut |path, schema| {
        assert!(
            schema.get("x-kubernetes-preserve-unknown-fields").is_none(),
            "{path}"
        );
        assert!(schema.get("$ref").is_none(), "{path}");
    });
}

#[test]
fn enum_descriptions_explain_every_value() {
    published::explains_enum_values(&schema());
}

#[test]
fn descriptions_state_limits_and_defaults() {
    published::states_limits_and_defaults(&schema());
}

#[test]
fn copied_fields_begin_with_the_sentence_of_kubernetes() {
    let schema = schema();
    let spec = &schema["properties"]["spec"];
    let pod = &spec["properties"]["pod"];
    let service = &spec["properties"]["service"];
    let peer = &service["properties"]["clients"]["items"];
    macro_rules! same {
        ($($place:expr, $original:ty, $names:expr;)+) => {$(
            let original = schemars::SchemaGenerator::default().into_root_schema_for::<$original>();
            for name in $names {
                let ours = &$place["properties"][name]["description"];
                let ours = ours.as_str().unwrap_or_default().replace('\n', " ");
                let theirs = original.as_value()["properties"][name]["description"].as_str().unwrap();
                let first = theirs.split(". ").next().unwrap_or_default().trim_end_matches('.');
                assert!(ours.starts_with(&format!("{first}.")), "{name}: {ours}; expected: {first}.");
            }
        )+};
    }
    same! {
        spec, core::Container, [
            "image", "imagePullPolicy", "command", "args", "env", "envFrom", "workingDir", "resources",
            "volumeMounts",
        ];
        spec["properties"]["scratch"], core::EmptyDirVolumeSource, ["medium", "sizeLimit"];
        spec["properties"]["health"], core::Probe, ["periodSeconds", "timeoutSeconds", "failureThreshold"];
        pod, core::PodSpec, [
            "imagePullSecrets", "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints",
            "priorityClassName", "runtimeClassName", "serviceAccountName", "securityContext", "volumes",
        ];
        pod, ObjectMeta, ["labels", "annotations"];
        pod["properties"]["securityContext"], core::PodSecurityContext, ["runAsUser", "runAsGroup", "fsGroup"];
        pod["properties"]["volumes"]["items"], core::Volume, [
            "name", "configMap", "secret", "emptyDir", "persistentVolumeClaim", "csi",
        ];
        service, core::ServiceSpec, ["type", "externalTrafficPolicy"];
        service, core::ServicePort, ["port"];
        peer, NetworkPolicyPeer, ["ipBlock"];
        peer["properties"]["pods"], NetworkPolicyPeer, ["podSelector", "namespaceSelector"];
    }
}

#[test]
fn formats_are_known_to_kubernetes() {
    published::has_known_formats(&schema());
}

#[test]
fn pcp_controller_requires_only_its_port() {
    let schema = schema();
    let place =
        &schema["properties"]["spec"]["properties"]["protocol"]["properties"]["pcpController"];
    let mut written = published::defaults(place);
    written["port"] = 10_000.into();
    let filled: super::PcpController = serde_json::from_value(written).unwrap();
    let bare: super::PcpController = serde_json::from_value(json!({"port": 10_000})).unwrap();
    assert_eq!(filled, bare);
    assert_eq!(
        (bare.stage.as_str(), bare.start_timeout_seconds),
        ("PROD", 60)
    );
}

#[test]
fn crd_fits_into_the_annotation_of_kubectl_apply() {
    let size = serde_json::to_string(&Plugin::crd()).unwrap().len();
    assert!(size < 200 * 1024, "{size} bytes");
}

#[test]
fn empty_status_serializes_only_the_replica_counts() {
    let status: PluginStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0})
    );
}
