//! From JSON to messages and back. Pure but for reading the named source.

use super::method::written;
use super::shape::shape;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use std::io::Read;

/// Why there is nothing to send, or why an answer cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("reading the message from {from}: {source}")]
    Source {
        from: String,
        source: std::io::Error,
    },
    #[error("reading the message as JSON: {0}")]
    Json(serde_json::Error),
    #[error("reading the message as {name}: {source}\nIts shape is {shape}")]
    Shape {
        name: String,
        shape: String,
        source: serde_json::Error,
    },
    #[error("preparing the call: {method} takes one message, {given} were given")]
    OneOnly { method: String, given: usize },
    #[error("writing the answer as JSON: {0}")]
    Answer(serde_json::Error),
}

/// Reads the text that `argument` names: itself, standard input (`-`) or a file (`@path`).
pub(crate) fn text(argument: &str) -> Result<String, MessageError> {
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|source| MessageError::Source {
                from: "standard input".to_owned(),
                source,
            })?;
        return Ok(text);
    }
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|source| MessageError::Source {
            from: path.to_owned(),
            source,
        }),
        None => Ok(argument.to_owned()),
    }
}

/// The JSON values that stand one after the other in `text`.
pub(crate) fn values(text: &str) -> Result<Vec<Value>, MessageError> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.collect::<Result<_, _>>().map_err(MessageError::Json)
}

/// The messages for `method`: any number for a stream, one otherwise. Without a value a method
/// that takes one message gets an empty one.
pub(crate) fn messages(
    method: &MethodDescriptor,
    values: Vec<Value>,
) -> Result<Vec<DynamicMessage>, MessageError> {
    let input = method.input();
    let messages: Vec<DynamicMessage> = values
        .into_iter()
        .map(|value| message(&input, value))
        .collect::<Result<_, _>>()?;
    if method.is_client_streaming() {
        return Ok(messages);
    }
    match messages.len() {
        0 => Ok(vec![DynamicMessage::new(input)]),
        1 => Ok(messages),
        given => Err(MessageError::OneOnly {
            method: written(method),
            given,
        }),
    }
}

fn message(input: &MessageDescriptor, value: Value) -> Result<DynamicMessage, MessageError> {
    DynamicMessage::deserialize(input.clone(), value).map_err(|source| MessageError::Shape {
        name: input.full_name().to_owned(),
        shape: shape(input),
        source,
    })
}

/// One line of JSON. Fields with their default value are written too: an empty answer then still
/// shows what could stand there.
pub(crate) fn json(message: &DynamicMessage) -> Result<String, MessageError> {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut line);
    message
        .serialize_with_options(
            &mut serializer,
            &SerializeOptions::new().skip_default_fields(false),
        )
        .map_err(MessageError::Answer)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
