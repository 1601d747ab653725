//! From JSON to messages and back. Pure.

use super::shape::shape;
use super::written;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;

/// Why there is nothing to send, or why an answer cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The JSON does not fit the message.
    #[error("reading the message as {name}: {source}\nIts shape is {shape}")]
    Shape {
        /// Full name of the message.
        name: String,
        /// What would fit.
        shape: String,
        /// What does not.
        source: serde_json::Error,
    },
    /// Several messages for a method that takes one.
    #[error("preparing the call: {method} takes one message, {given} were given")]
    OneOnly {
        /// The method.
        method: String,
        /// How many there are.
        given: usize,
    },
    /// An answer that JSON cannot hold.
    #[error("writing the answer as JSON: {0}")]
    Answer(serde_json::Error),
}

/// The messages for `method`: any number for a stream, one otherwise. Without a value a method
/// that takes one message gets an empty one.
pub fn messages(
    method: &MethodDescriptor,
    values: Vec<Value>,
) -> Result<Vec<DynamicMessage>, JsonError> {
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
        given => Err(JsonError::OneOnly {
            method: written(method),
            given,
        }),
    }
}

fn message(input: &MessageDescriptor, value: Value) -> Result<DynamicMessage, JsonError> {
    DynamicMessage::deserialize(input.clone(), value).map_err(|source| JsonError::Shape {
        name: input.full_name().to_owned(),
        shape: shape(input),
        source,
    })
}

/// One line of JSON. Fields with their default value are written too: an empty answer then still
/// shows what could stand there.
pub fn json(message: &DynamicMessage) -> Result<String, JsonError> {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut line);
    message
        .serialize_with_options(
            &mut serializer,
            &SerializeOptions::new().skip_default_fields(false),
        )
        .map_err(JsonError::Answer)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
