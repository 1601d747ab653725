//! For tests: the published schema of a kind, its rules and its defaults, as an API server reads
//! them.

use kube::CustomResourceExt;
use kube::core::cel::{ValidationError, Validator};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The schema of the only version.
pub(crate) fn schema<K: CustomResourceExt>() -> Value {
    let crd = K::crd();
    let schema = crd.spec.versions[0].schema.as_ref();
    serde_json::to_value(schema.and_then(|s| s.open_api_v3_schema.as_ref())).unwrap()
}

/// A JSON merge: objects are merged, everything else replaces, null removes.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    let (Some(object), Some(changes)) = (into.as_object_mut(), from.as_object()) else {
        *into = from.clone();
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key).or_insert(json!({})), change);
        }
    }
}

/// What the rules say of an object that is created, or that takes the place of another.
pub(crate) fn violations(
    schema: &Value,
    object: &Value,
    before: Option<&Value>,
) -> Vec<ValidationError> {
    match Validator::new().validate_with_defaults(schema, object, before) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    }
}

/// Every rule that a schema holds.
pub(crate) fn rules(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(schema, &mut found);
    found
}

fn collect(schema: &Value, rules: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "x-kubernetes-validations" {
                    let list = value.as_array().into_iter().flatten();
                    rules.extend(list.filter_map(|r| r["rule"].as_str().map(str::to_owned)));
                } else {
                    collect(value, rules);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, rules)),
        _ => {}
    }
}

/// Visits a schema and everything beneath it.
pub(crate) fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
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
pub(crate) fn defaults(schema: &Value) -> Value {
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

/// Every string, list and map has an upper bound.
pub(crate) fn is_bounded(schema: &Value) {
    walk("", schema, &mut |path, schema| {
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

/// Every list of objects of ours says how several writers share it.
pub(crate) fn has_list_types(schema: &Value) {
    walk("", schema, &mut |path, schema| {
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

/// Every value of an enum is explained in the description of its field.
pub(crate) fn explains_enum_values(schema: &Value) {
    let mut seen = 0;
    walk("", schema, &mut |path, schema| {
        let description = schema["description"].as_str().unwrap_or_default();
        for value in schema["enum"].as_array().into_iter().flatten() {
            let Some(value) = value.as_str() else {
                continue;
            };
            let explained = description
                .split_once(&format!("\n- `{value}`: "))
                .is_some_and(|(_, rest)| rest.starts_with(char::is_alphanumeric));
            assert!(
                explained,
                "the description of {path} does not explain {value}: {description}"
            );
            seen += 1;
        }
    });
    assert!(seen > 0, "the schema has no enum");
}

/// The description of a setting says its default, and the limits of a number and of a list.
pub(crate) fn states_limits_and_defaults(schema: &Value) {
    walk("", schema, &mut |path, schema| {
        // Inside types of Kubernetes there are no descriptions.
        let Some(description) = schema["description"].as_str() else {
            return;
        };
        if !path.starts_with(".spec") {
            return;
        }
        let states = |text: String| {
            // The description may be wrapped anywhere.
            let words = description.replace('\n', " ");
            assert!(
                words.contains(&text),
                "the description of {path} does not say {text:?}: {words}"
            );
        };
        match &schema["default"] {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => states(format!("Defaults to {text}.")),
            Value::Number(_) | Value::Bool(_) => {
                states(format!("Defaults to {}.", schema["default"]));
            }
            _ => {}
        }
        if let (Some(least), Some(most)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64())
        {
            states(format!("Must be between {least} and {most}."));
        }
        if let Some(most) = schema["maxItems"].as_u64() {
            states(format!("t most {most} entries."));
        }
    });
}

/// Formats are those that Kubernetes knows.
pub(crate) fn has_known_formats(schema: &Value) {
    walk("", schema, &mut |path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(
                ["int32", "int64", "double", "date-time"].contains(&format),
                "{path} has the format {format}"
            );
        }
    });
}

/// What the API server fills in decodes to the default of the type here: as a whole, and piece by
/// piece, because a default of the whole must not differ from those of its parts.
pub(crate) fn has_the_default<T>(place: &Value)
where
    T: Default + PartialEq + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let published = defaults(place);
    let decoded: T = serde_json::from_value(published.clone()).unwrap();
    assert_eq!(decoded, T::default(), "{published}");
    let mut parts = place.clone();
    parts.as_object_mut().unwrap().remove("default");
    let decoded: T = serde_json::from_value(defaults(&parts)).unwrap();
    assert_eq!(decoded, T::default(), "{parts}");
}
