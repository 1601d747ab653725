//! Properties of the published schema.

use super::{
    GoPlugin, Health, PodOptions, PortRange, Restart, Scratch, ServiceOptions, Shutdown,
    TlsOptions, Update,
};
use super::{Plugin, PluginSpec};
use crate::PluginStatus;
use kube::CustomResourceExt;
use serde_json::{Value, json};

fn schema() -> Value {
    let crd = Plugin::crd();
    let schema = crd.spec.versions[0].schema.as_ref();
    serde_json::to_value(schema.and_then(|s| s.open_api_v3_schema.as_ref())).unwrap()
}

fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            walk(&format!("{path}.{name}"), property, visit);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}[]"), &schema[inner], visit);
        }
    }
}

/// What an API server fills in for an object of that schema.
fn defaults(schema: &Value) -> Value {
    let mut value = schema.get("default").cloned().unwrap_or(json!({}));
    if let (Some(object), Some(properties)) =
        (value.as_object_mut(), schema["properties"].as_object())
    {
        for (name, property) in properties {
            if let Some(default) = property.get("default") {
                object.entry(name).or_insert(default.clone());
            }
        }
    }
    value
}

#[test]
fn every_published_default_decodes_to_the_default_here() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    macro_rules! same {
        ($($type:ty, $place:expr;)+) => {$(
            let published = defaults(&$place);
            let decoded: $type = serde_json::from_value(published.clone()).unwrap();
            assert_eq!(decoded, <$type>::default(), "{published}");
            // And piece by piece: a default of the whole must not differ from those of its parts.
            let mut parts = $place.clone();
            parts.as_object_mut().unwrap().remove("default");
            let decoded: $type = serde_json::from_value(defaults(&parts)).unwrap();
            assert_eq!(decoded, <$type>::default(), "{parts}");
        )+};
    }
    let family = &spec["protocol"]["properties"]["goPlugin"]["properties"];
    same! {
        Health, spec["health"];
        Restart, spec["restart"];
        Shutdown, spec["shutdown"];
        Update, spec["update"];
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
fn a_minimal_spec_decodes_as_if_the_defaults_were_written() {
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
fn null_leaves_the_user_to_the_cluster() {
    let spec: PodOptions =
        serde_json::from_value(json!({"securityContext": {"runAsUser": null}})).unwrap();
    assert_eq!(spec.security_context.run_as_user, None);
    assert_eq!(spec.security_context.fs_group, Some(65_532));
    let written = serde_json::to_value(&spec).unwrap();
    assert_eq!(written["securityContext"]["runAsUser"], Value::Null);
}

#[test]
fn every_string_list_and_map_has_a_maximum() {
    walk("", &schema(), &mut |path, schema| {
        if path.is_empty()
            || path.starts_with(".metadata")
            || path == ".apiVersion"
            || path == ".kind"
        {
            return;
        }
        let bounded = match schema["type"].as_str() {
            Some("string") => {
                schema["maxLength"].is_u64()
                    || schema["enum"].is_array()
                    || schema["format"].is_string()
            }
            Some("array") => schema["maxItems"].is_u64(),
            Some("object") if schema["additionalProperties"].is_object() => {
                schema["maxProperties"].is_u64()
            }
            _ => true,
        };
        assert!(bounded, "{path} has no maximum: {schema}");
    });
}

#[test]
fn every_list_of_objects_says_how_writers_share_it() {
    walk("", &schema(), &mut |path, schema| {
        if schema["type"] != "array" || schema["items"]["type"] != "object" {
            return;
        }
        // Inside types of Kubernetes the markers are Kubernetes' own business.
        let ours = path.matches('[').count() == 0 && !path.contains("affinity");
        let marked = schema["x-kubernetes-list-type"].is_string();
        assert!(
            marked || !ours || path.ends_with(".items") || path.ends_with("matchExpressions"),
            "{path} has no list type"
        );
    });
}

#[test]
fn nothing_in_the_schema_keeps_unknown_fields() {
    walk("", &schema(), &mut |path, schema| {
        assert!(
            schema.get("x-kubernetes-preserve-unknown-fields").is_none(),
            "{path}"
        );
        assert!(schema.get("$ref").is_none(), "{path}");
    });
}

#[test]
fn numbers_have_formats_that_kubernetes_knows() {
    walk("", &schema(), &mut |path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(
                ["int32", "int64", "double", "date-time"].contains(&format),
                "{path} has the format {format}"
            );
        }
    });
}

#[test]
fn the_definition_fits_into_an_annotation_of_kubectl_apply() {
    let size = serde_json::to_string(&Plugin::crd()).unwrap().len();
    assert!(size < 200 * 1024, "{size} bytes");
}

#[test]
fn an_empty_status_decodes_and_writes_nothing_needless() {
    let status: PluginStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({"replicas": 0, "readyReplicas": 0, "updatedReplicas": 0})
    );
}
