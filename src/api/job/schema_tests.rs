//! Properties of the published schemas of Job and JobOutput.

use super::{Backoff, Job, JobSpec, OutputPolicy, Target};
use crate::job_status::{
    CHUNK_BYTES, Claim, JobStatus, MAX_ATTEMPTS, MAX_PREVIEW, MAX_ROWS, Output,
};
use crate::published::{self, walk};
use crate::{JobOutput, JobOutputSpec};
use kube::CustomResourceExt;
use serde_json::{Value, json};

fn both() -> [Value; 2] {
    [published::schema::<Job>(), published::schema::<JobOutput>()]
}

#[test]
fn schema_defaults_equal_the_defaults_of_the_types() {
    let schema = published::schema::<Job>();
    let spec = &schema["properties"]["spec"]["properties"];
    let status = &schema["properties"]["status"];
    published::has_the_default::<Target>(&spec["target"]);
    published::has_the_default::<Backoff>(&spec["backoff"]);
    published::has_the_default::<OutputPolicy>(&spec["outputPolicy"]);
    published::has_the_default::<JobStatus>(status);
    published::has_the_default::<Output>(&status["properties"]["output"]);
}

#[test]
fn minimal_spec_decodes_like_a_spec_with_all_defaults() {
    let minimal = json!({"pluginRef": {"name": "scraper"}, "command": {"name": "wget"}});
    let bare: JobSpec = serde_json::from_value(minimal.clone()).unwrap();
    let schema = published::schema::<Job>();
    let mut written = published::defaults(&schema["properties"]["spec"]);
    published::merge(&mut written, &minimal);
    let filled: JobSpec = serde_json::from_value(written).unwrap();
    assert_eq!(filled, bare);
    let back: JobSpec = serde_json::from_value(serde_json::to_value(&bare).unwrap()).unwrap();
    assert_eq!(back, bare);
}

#[test]
fn accepted_times_are_read_with_microseconds() {
    let read = |time: &str| -> JobSpec {
        serde_json::from_value(json!({"pluginRef": {"name": "a"}, "startTime": time})).unwrap()
    };
    for (text, micros) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:01.5+00:00", 1_500_000),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T23:59:00+23:59", 0),
        ("2199-12-31T23:59:59.999999Z", 7_258_118_399_999_999),
    ] {
        let time = read(text).start_time.unwrap().0;
        assert_eq!(time.as_microsecond(), micros, "{text}");
    }
}

#[test]
fn every_string_list_and_map_has_a_maximum() {
    both().iter().for_each(published::is_bounded);
}

#[test]
fn every_list_of_objects_has_a_list_type() {
    both().iter().for_each(published::has_list_types);
}

#[test]
fn enum_descriptions_explain_every_value() {
    both().iter().for_each(published::explains_enum_values);
}

#[test]
fn descriptions_state_limits_and_defaults() {
    both()
        .iter()
        .for_each(published::states_limits_and_defaults);
}

#[test]
fn formats_are_known_to_kubernetes() {
    both().iter().for_each(published::has_known_formats);
}

#[test]
fn only_data_for_the_plugin_keeps_unknown_fields() {
    let mut free = Vec::new();
    for schema in both() {
        walk("", &schema, &mut |path, schema| {
            if schema.get("x-kubernetes-preserve-unknown-fields").is_some() {
                free.push(path.to_owned());
            }
            assert!(schema.get("$ref").is_none(), "{path}");
        });
    }
    assert_eq!(free, [".spec.call.request[]", ".spec.target.optional[]"]);
}

#[test]
fn free_objects_keep_null_and_nested_values() {
    let request =
        json!({"a": null, "b": {"c": [1, 2.5, null]}, "d": 18_446_744_073_709_551_615_u64});
    let spec: JobSpec = serde_json::from_value(json!({
        "pluginRef": {"name": "kv"}, "call": {"service": "proto.KV", "method": "Get", "request": request}
    }))
    .unwrap();
    let back = serde_json::to_value(&spec).unwrap();
    assert_eq!(back["call"]["request"], request);
}

#[test]
fn limit_constants_equal_the_limits_of_the_schema() {
    let schema = published::schema::<Job>();
    let status = &schema["properties"]["status"]["properties"];
    assert_eq!(status["attempts"]["maxItems"], MAX_ATTEMPTS);
    let output = &status["output"]["properties"];
    assert_eq!(output["rows"]["maxItems"], MAX_ROWS);
    assert_eq!(output["preview"]["maxLength"], MAX_PREVIEW);
    // Base64 takes four characters for three bytes.
    let inline = &schema["properties"]["spec"]["properties"]["outputPolicy"]["properties"];
    let content = &output["rows"]["items"]["properties"]["content"]["maxLength"];
    let room = |bytes: u64| bytes.div_ceil(3) * 4;
    assert!(
        content.as_u64()
            >= inline["inlineMaxBytes"]["maximum"]
                .as_f64()
                .map(|b| room(b as u64))
    );
    let schema = published::schema::<JobOutput>();
    let content = &schema["properties"]["spec"]["properties"]["content"]["maxLength"];
    assert!(content.as_u64() >= Some(room(CHUNK_BYTES as u64)));
}

#[test]
fn selectable_fields_are_published() {
    let fields = |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let fields = crd.spec.versions[0].selectable_fields.clone().unwrap_or_default();
        fields.into_iter().map(|f| f.json_path).collect::<Vec<_>>()
    };
    assert_eq!(
        fields(Job::crd()),
        [
            ".spec.pluginRef.name",
            ".spec.target.client",
            ".status.phase"
        ]
    );
    assert_eq!(fields(JobOutput::crd()), [".spec.job"]);
}

#[test]
fn crds_fit_into_the_annotation_of_kubectl_apply() {
    for crd in [Job::crd(), JobOutput::crd()] {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(size < 200 * 1024, "{size} bytes");
    }
}

#[test]
fn status_is_serialized_with_the_published_field_names() {
    let empty: JobStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(serde_json::to_value(&empty).unwrap(), json!({"attempt": 0}));
    let claim: Claim = serde_json::from_value(json!({
        "claimId": "0", "sequence": 1, "observedResourceVersion": "7", "holderPod": "scraper-0-1",
        "holderPodUID": "u", "ledgerEpoch": "e", "claimedAt": "2026-11-22T12:00:00.000001Z"
    }))
    .unwrap();
    let written = serde_json::to_value(&claim).unwrap();
    assert_eq!(written["holderPodUID"], "u");
    assert_eq!(written["claimedAt"], "2026-11-22T12:00:00.000001Z");
}

#[test]
fn job_output_survives_a_round_trip() {
    let spec: JobOutputSpec = serde_json::from_value(json!({
        "job": "a", "attempt": 1, "row": 2, "chunk": 0, "bytes": 3,
        "sha256": "0".repeat(64), "encoding": "Base64", "content": "AP9h"
    }))
    .unwrap();
    let back: JobOutputSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    assert_eq!(back, spec);
}
