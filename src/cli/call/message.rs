//! The request messages, as JSON.

use std::io::Read;

use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("reading the message from {from}: {source}")]
    Source {
        from: String,
        source: std::io::Error,
    },
    #[error("reading the message as JSON: {0}")]
    Json(serde_json::Error),
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

/// The JSON values in `text`, one after the other.
pub(crate) fn values(text: &str) -> Result<Vec<Value>, MessageError> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.collect::<Result<_, _>>().map_err(MessageError::Json)
}
