//! Pieces of the published schema that a derive cannot say: rules in CEL, and types of Kubernetes
//! itself with an upper bound on every string, list and map.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// A rule with a fixed message.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A rule whose message is computed, so that it can show what was found. `fallback` is said when
/// the expression itself fails.
pub(crate) fn telling(rule: &str, message: &str, fallback: &str) -> Value {
    json!({ "rule": rule, "messageExpression": message, "message": fallback })
}

/// Puts rules on the items of a list's schema.
pub(crate) fn rules_on_items(schema: &mut Schema, rules: Value) {
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        items.insert("x-kubernetes-validations".to_owned(), rules);
    }
}

/// Upper bounds for a schema that comes from Kubernetes.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) string: u32,
    pub(crate) list: u32,
    pub(crate) map: u32,
}

/// Names, keys and label values.
pub(crate) const SMALL: Bounds = Bounds {
    string: 512,
    list: 32,
    map: 32,
};
/// Environment: a value may be a whole document.
pub(crate) const LARGE: Bounds = Bounds {
    string: 32_768,
    list: 128,
    map: 64,
};

/// The schema of a type of Kubernetes, bounded. Its descriptions are left out: the field that
/// holds it says where they stand.
pub(crate) fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator, bounds: Bounds) -> Schema {
    let mut value = T::json_schema(generator).to_value();
    bound(&mut value, bounds);
    Schema::try_from(value).unwrap_or_default()
}

/// Marks a list as keyed, so that several writers can own its items.
pub(crate) fn keyed(schema: &mut Schema, keys: &[&str]) {
    schema.insert("x-kubernetes-list-type".to_owned(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".to_owned(), keys.into());
}

/// The conditions of a status: one of each type.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let bounds = Bounds {
        string: 32_768,
        list: 16,
        ..SMALL
    };
    let mut schema = bounded::<Vec<Condition>>(generator, bounds);
    keyed(&mut schema, &["type"]);
    schema
}

/// Adds the values of an enum and what they mean to the description of the field, so that `kubectl
/// explain` shows them. What a value means is the documentation of its variant. For use on a field,
/// because the documentation of a field replaces that of its type.
pub(crate) fn explain_values(schema: &mut Schema) {
    // An optional field is "any of the enum and null". A description of the enum in it would replace
    // that of the field.
    let optional = schema.get_mut("anyOf").and_then(|any| any.get_mut(0));
    let values = match optional.and_then(Value::as_object_mut) {
        Some(of_the_type) => {
            of_the_type.remove("description");
            of_the_type.get("oneOf").cloned()
        }
        None => schema.get("oneOf").cloned(),
    };
    let Some(Value::String(description)) = schema.get_mut("description") else {
        return;
    };
    description.push_str("\nValid values are:");
    for value in values
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = value["const"].as_str().unwrap_or_default();
        let meaning = value["description"].as_str().unwrap_or_default();
        description.push_str(&format!("\n- `{name}`: {}", meaning.replace('\n', " ")));
    }
}

fn bound(value: &mut Value, bounds: Bounds) {
    let Value::Object(schema) = value else { return };
    schema.remove("description");
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !schema.contains_key("enum") && !schema.contains_key("format") => {
            limit(schema, "maxLength", bounds.string);
        }
        Some("array") => limit(schema, "maxItems", bounds.list),
        Some("object") if schema.contains_key("additionalProperties") => {
            limit(schema, "maxProperties", bounds.map);
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            bound(property, bounds);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            bound(inner, bounds);
        }
    }
}

fn limit(schema: &mut Map<String, Value>, keyword: &str, most: u32) {
    schema.entry(keyword).or_insert_with(|| Value::from(most));
}
