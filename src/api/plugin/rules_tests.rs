//! One accepted and one rejected example for every rule. No rule is left out: the last test
//! compares with what the schema publishes.

use super::Plugin;
use crate::published::{self, merge};
use kube::core::cel::ValidationError;
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Case {
    name: &'static str,
    /// Merged into the spec of [`sample`].
    accept: Value,
    reject: Value,
    /// What the message must say of the rejected one.
    says: &'static str,
}

fn sample() -> Value {
    json!({
        "apiVersion": "patchbay.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "kv", "namespace": "demo"},
        "spec": {
            "image": "registry.example/kv:1.4.0",
            "command": ["/kv"],
            "protocol": {"goPlugin": {
                "cookie": {"key": "BASIC_PLUGIN", "value": "hello"},
                "versions": [1]
            }}
        }
    })
}

fn with(spec: &Value) -> Value {
    let mut object = sample();
    merge(&mut object["spec"], spec);
    object
}

fn schema() -> Value {
    published::schema::<Plugin>()
}

fn violations(schema: &Value, object: &Value) -> Vec<ValidationError> {
    published::violations(schema, object, None)
}

fn go_plugin(change: Value) -> Value {
    json!({"protocol": {"goPlugin": change}})
}

/// A PCP controller plugin with these settings.
fn family(settings: Value) -> Value {
    json!({"protocol": {"goPlugin": null, "pcpController": settings}})
}

/// A PCP controller plugin, changed.
fn controller(change: Value) -> Value {
    let mut spec = family(json!({"port": 10000}));
    merge(&mut spec, &change);
    spec
}

fn volume(change: Value) -> Value {
    let mut volume = json!({"name": "data"});
    merge(&mut volume, &change);
    json!({"pod": {"volumes": [volume]}})
}

fn mounted_at(path: &str) -> Value {
    json!({
        "pod": {"volumes": [{"name": "data", "emptyDir": {}}]},
        "volumeMounts": [{"name": "data", "mountPath": path}]
    })
}

fn secret_env(name: &str) -> Value {
    json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}}]})
}

fn cases() -> Vec<Case> {
    let case = |name, accept, reject, says| Case {
        name,
        accept,
        reject,
        says,
    };
    let sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    vec![
        case(
            "command",
            json!({"command": ["/kv", "-v"]}),
            json!({"command": []}),
            "cannot read the image's ENTRYPOINT",
        ),
        case(
            "cookie in env",
            json!({"env": [{"name": "OTHER", "value": "x"}]}),
            json!({"env": [{"name": "BASIC_PLUGIN", "value": "x"}]}),
            "spec.env sets BASIC_PLUGIN",
        ),
        case(
            "mount without volume",
            mounted_at("/data"),
            json!({"volumeMounts": [{"name": "lost", "mountPath": "/d"}]}),
            "names a volume that spec.pod.volumes does not contain",
        ),
        case(
            "reserved env",
            json!({"env": [{"name": "PLUGIN_OTHER", "value": "x"}]}),
            json!({"env": [{"name": "PLUGIN_MIN_PORT", "value": "1"}]}),
            "env sets PLUGIN_MIN_PORT",
        ),
        case(
            "identity in env",
            secret_env("mine"),
            secret_env("pb-id-kv"),
            "begins with pb-id-",
        ),
        case(
            "identity in envFrom",
            json!({"envFrom": [{"secretRef": {"name": "mine"}}]}),
            json!({"envFrom": [{"secretRef": {"name": "pb-id-kv"}}]}),
            "begins with pb-id-",
        ),
        case(
            "envFrom source",
            json!({"envFrom": [{"configMapRef": {"name": "a"}}]}),
            json!({"envFrom": [{"prefix": "A_"}]}),
            "expected exactly one of configMapRef and secretRef",
        ),
        case(
            "envFrom prefix",
            json!({"envFrom": [{"prefix": "MY_", "configMapRef": {"name": "a"}}]}),
            json!({"envFrom": [{"prefix": "PLUGIN_", "configMapRef": {"name": "a"}}]}),
            "has the prefix PLUGIN_",
        ),
        case(
            "mount path form",
            mounted_at("/data/.hidden/a"),
            mounted_at("/data/../patchbay"),
            "mountPath is /data/../patchbay",
        ),
        case(
            "mount path place",
            mounted_at("/patchbays"),
            mounted_at("/patchbay/run"),
            "beneath /patchbay",
        ),
        case(
            "checksum path",
            json!({"checksums": [{"path": "/kv", "sha256": sum}]}),
            json!({"checksums": [{"path": "kv", "sha256": sum}]}),
            "path is kv",
        ),
        case(
            "checksum digest",
            json!({"checksums": [{"path": "/kv", "sha256": sum}]}),
            json!({"checksums": [{"path": "/kv", "sha256": format!("sha256:{sum}")}]}),
            "expected 64 lower-case hexadecimal digits",
        ),
        case(
            "scratch",
            json!({"scratch": {"sizeLimit": "1Gi"}}),
            json!({"scratch": {"sizeLimit": "much"}}),
            "sizeLimit is much",
        ),
        case(
            "family",
            json!({}),
            json!({"protocol": {"goPlugin": null}}),
            "expected exactly one family",
        ),
        case(
            "two families",
            family(json!({"port": 10000})),
            json!({"protocol": {"pcpController": {"port": 10000}}}),
            "expected exactly one family",
        ),
        case(
            "controller env",
            controller(json!({"env": [
                {"name": "PLUGIN_NAME", "value": "Sample"}, {"name": "LOGLEVEL", "value": "INFO"}
            ]})),
            controller(
                json!({"env": [{"name": "A", "value": "1"}, {"name": "STAGE", "value": "QA"}]}),
            ),
            "spec.env sets STAGE",
        ),
        case(
            "env of the other family",
            json!({"env": [{"name": "PORT", "value": "1"}]}),
            controller(json!({"env": [{"name": "PORT", "value": "1"}]})),
            "spec.env sets PORT",
        ),
        case(
            "jobs per pod",
            json!({"jobs": {"maxRunningPerPod": 9}}),
            controller(json!({"jobs": {"maxRunningPerPod": 9}})),
            "expected it with goPlugin only",
        ),
        case(
            "controller port",
            family(json!({"port": 7446})),
            family(json!({"port": 7444})),
            "pcpController.port is between 7443 and 7445",
        ),
        case(
            "class name",
            family(json!({"port": 10000, "className": "Sample_Plugin2"})),
            family(json!({"port": 10000, "className": "plugins.SamplePlugin"})),
            "pcpController.className is plugins.SamplePlugin",
        ),
        case(
            "cookie key",
            go_plugin(json!({"cookie": {"key": "_A1"}})),
            go_plugin(json!({"cookie": {"key": "A-B"}})),
            "key is A-B",
        ),
        case(
            "explicit tls",
            go_plugin(json!({"tls": {"mode": "Explicit", "secretName": "s", "serverName": "n"}})),
            go_plugin(json!({"tls": {"mode": "Explicit", "secretName": "s"}})),
            "tls.mode is Explicit without secretName or serverName",
        ),
        case(
            "tls names",
            go_plugin(json!({"tls": {"mode": "AutoMTLS"}})),
            go_plugin(json!({"tls": {"mode": "AutoMTLS", "serverName": "n"}})),
            "tls.mode is AutoMTLS",
        ),
        case(
            "tls secret",
            go_plugin(
                json!({"tls": {"mode": "Explicit", "secretName": "mine", "serverName": "n"}}),
            ),
            go_plugin(
                json!({"tls": {"mode": "Explicit", "secretName": "pb-id-kv", "serverName": "n"}}),
            ),
            "tls.secretName begins with pb-id-",
        ),
        case(
            "port order",
            go_plugin(json!({"ports": {"min": 9000, "max": 9000}})),
            go_plugin(json!({"ports": {"min": 9001, "max": 9000}})),
            "ports.min is greater than ports.max",
        ),
        case(
            "our ports",
            go_plugin(json!({"ports": {"min": 7446, "max": 8000}})),
            go_plugin(json!({"ports": {"min": 7000, "max": 8000}})),
            "ports includes a port from 7443 to 7445",
        ),
        case(
            "back-off",
            json!({"restart": {"initialSeconds": 5, "maxSeconds": 5}}),
            json!({"restart": {"initialSeconds": 6, "maxSeconds": 5}}),
            "restart.initialSeconds is greater than maxSeconds",
        ),
        case(
            "traffic policy",
            json!({"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}}),
            json!({"service": {"externalTrafficPolicy": "Local"}}),
            "service.type is ClusterIP",
        ),
        case(
            "client",
            json!({"service": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}),
            json!({"service": {"clients": [{}]}}),
            "expected exactly one of pods and ipBlock",
        ),
        case(
            "client pods",
            json!({"service": {"clients": [{"pods": {"podSelector": {}}}]}}),
            json!({"service": {"clients": [{"pods": {}}]}}),
            "expected podSelector or namespaceSelector",
        ),
        case(
            "client range",
            json!({"service": {"clients": [{"ipBlock": {"cidr": "fd00::/8"}}]}}),
            json!({"service": {"clients": [{"ipBlock": {"cidr": "10.0.0.0"}}]}}),
            "cidr is 10.0.0.0",
        ),
        case(
            "client exception",
            json!({"service": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}}),
            json!({"service": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.1.0.0/16"]}}]}}),
            "not a CIDR within 10.0.0.0/8",
        ),
        case(
            "labels",
            json!({"pod": {"labels": {"team.example/a": "b"}}}),
            json!({"pod": {"labels": {"patchbay.dev/plugin": "other"}}}),
            "pod.labels contains a label that Patchbay sets",
        ),
        case(
            "annotations",
            json!({"pod": {"annotations": {"a": "b"}}}),
            json!({"pod": {"annotations": {"patchbay.dev/built": "{}"}}}),
            "pod.annotations contains an annotation that Patchbay sets",
        ),
        case(
            "volume name",
            volume(json!({"emptyDir": {}})),
            volume(json!({"name": "patchbay-run", "emptyDir": {}})),
            "a volume has the name patchbay-run",
        ),
        case(
            "volume source",
            volume(json!({"configMap": {"name": "a"}})),
            volume(json!({"configMap": {"name": "a"}, "emptyDir": {}})),
            "the volume data has no source or more than one",
        ),
        case(
            "volume secret",
            volume(json!({"secret": {"secretName": "mine"}})),
            volume(json!({"secret": {"secretName": "pb-id-kv"}})),
            "begins with pb-id-",
        ),
        case(
            "volume csi",
            volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "mine"}}})),
            volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "pb-id-kv"}}})),
            "to a CSI driver",
        ),
    ]
}

#[test]
fn every_rule_accepts_the_valid_and_rejects_the_invalid_example() {
    let schema = schema();
    for case in cases() {
        let good = violations(&schema, &with(&case.accept));
        assert!(good.is_empty(), "{}: {good:#?}", case.name);
        let bad = violations(&schema, &with(&case.reject));
        assert!(
            bad.len() == 1 && bad[0].message.contains(case.says),
            "{}: {bad:#?}",
            case.name
        );
    }
}

#[test]
fn invalid_name_is_rejected_and_shown_in_the_message() {
    let schema = schema();
    for bad in ["9kv", "kv.1", &"a".repeat(49)] {
        let mut object = sample();
        object["metadata"]["name"] = bad.into();
        let found = violations(&schema, &object);
        assert!(
            found.len() == 1 && found[0].message.contains(bad),
            "{found:#?}"
        );
    }
    let mut object = sample();
    object["metadata"]["name"] = "a".repeat(48).into();
    assert!(violations(&schema, &object).is_empty());
}

#[test]
fn every_published_rule_has_examples() {
    let schema = schema();
    let mut bad_name = sample();
    bad_name["metadata"]["name"] = "9kv".into();
    let mut tried: BTreeSet<String> = violations(&schema, &bad_name)
        .into_iter()
        .map(|v| v.rule)
        .collect();
    for case in cases() {
        tried.extend(
            violations(&schema, &with(&case.reject))
                .into_iter()
                .map(|v| v.rule),
        );
    }
    assert_eq!(published::rules(&schema), tried);
}
