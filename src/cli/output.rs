//! Standard output and standard error. A reader that went away ends the program quietly.

use std::io::{ErrorKind, Write};

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The reader closed the pipe: nobody is left to be told.
    #[error("writing the answer: nobody reads it any more")]
    Closed,
    #[error("writing the answer: {0}")]
    Failed(std::io::Error),
}

/// Writes `text` as it is.
pub(crate) fn text(text: &str) -> Result<(), OutputError> {
    bytes(text.as_bytes())
}

/// Writes `bytes` as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Failed(error),
        })
}

/// Writes `line` and an end of line.
pub(crate) fn line(line: &str) -> Result<(), OutputError> {
    text(&format!("{line}\n"))
}

/// Says on standard error why the program does not do what was asked.
pub(crate) fn error(message: &str) {
    note(&format!("error: {message}"));
}

/// A remark beside the answer, on standard error.
pub(crate) fn note(message: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}

/// Foreign text with its control characters made visible; ends of lines stay.
pub(crate) fn clean(foreign: &str) -> String {
    let mut text = String::with_capacity(foreign.len());
    for c in foreign.chars() {
        match c {
            '\n' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}
