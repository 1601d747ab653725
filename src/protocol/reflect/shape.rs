//! The shape of a message for people, like the JSON that is meant. Pure.

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

/// Nested messages are written out so deep.
const DEPTH: usize = 3;

/// The shape of a message, like the JSON that is meant: `{"key": string, "value": bytes}`.
pub fn shape(message: &MessageDescriptor) -> String {
    nested(message, &mut Vec::new())
}

/// `open` holds the messages around this one: a message within itself is not written out again.
fn nested(message: &MessageDescriptor, open: &mut Vec<String>) -> String {
    if let Some(known) = well_known(message.full_name()) {
        return known.to_owned();
    }
    if message.fields().len() == 0 {
        return "{}".to_owned();
    }
    if open.len() == DEPTH || open.iter().any(|name| name == message.full_name()) {
        return "{…}".to_owned();
    }
    open.push(message.full_name().to_owned());
    let fields: Vec<String> = message
        .fields()
        .map(|field| format!("{:?}: {}", field.json_name(), value(&field, open)))
        .collect();
    open.pop();
    format!("{{{}}}", fields.join(", "))
}

fn value(field: &FieldDescriptor, open: &mut Vec<String>) -> String {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let key = kind(&entry.map_entry_key_field().kind(), open);
        let value = kind(&entry.map_entry_value_field().kind(), open);
        return format!("{{{key}: {value}}}");
    }
    let one = kind(&field.kind(), open);
    let one = if field.is_list() {
        format!("[{one}, …]")
    } else {
        one
    };
    match field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
    {
        Some(oneof) => format!("{one} (one of {})", oneof.name()),
        None if field.cardinality() == Cardinality::Required => format!("{one} (required)"),
        None => one,
    }
}

fn kind(kind: &Kind, open: &mut Vec<String>) -> String {
    match kind {
        Kind::Double | Kind::Float => "number".to_owned(),
        Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32 => {
            "integer".to_owned()
        }
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => {
            "integer as string".to_owned()
        }
        Kind::Bool => "true | false".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "base64".to_owned(),
        Kind::Message(message) => nested(message, open),
        Kind::Enum(enumeration) => {
            let names: Vec<String> = enumeration
                .values()
                .take(8)
                .map(|value| format!("{:?}", value.name()))
                .collect();
            let more = if enumeration.values().len() > 8 {
                " | …"
            } else {
                ""
            };
            format!("{}{more}", names.join(" | "))
        }
    }
}

/// Messages that JSON writes in a form of their own.
fn well_known(name: &str) -> Option<&'static str> {
    Some(match name {
        "google.protobuf.Timestamp" => "\"2006-01-02T15:04:05Z\"",
        "google.protobuf.Duration" => "\"1.5s\"",
        "google.protobuf.FieldMask" => "\"field,other\"",
        "google.protobuf.Empty" => "{}",
        "google.protobuf.Struct" => "any object",
        "google.protobuf.Value" => "any JSON",
        "google.protobuf.ListValue" => "any array",
        "google.protobuf.Any" => "{\"@type\": string, …}",
        "google.protobuf.StringValue" => "string",
        "google.protobuf.BytesValue" => "base64",
        "google.protobuf.BoolValue" => "true | false",
        "google.protobuf.DoubleValue" | "google.protobuf.FloatValue" => "number",
        "google.protobuf.Int32Value" | "google.protobuf.UInt32Value" => "integer",
        "google.protobuf.Int64Value" | "google.protobuf.UInt64Value" => "integer as string",
        _ => return None,
    })
}
