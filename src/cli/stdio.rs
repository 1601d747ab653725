//! Standard output and standard error. A closed pipe ends the program without an error.

use std::io::{ErrorKind, Write};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StdoutError {
    #[error("writing to standard output: the reader has closed it")]
    Closed,
    #[error("writing to standard output: {0}")]
    Failed(std::io::Error),
}

/// Writes `text` as it is.
pub(crate) fn text(text: &str) -> Result<(), StdoutError> {
    bytes(text.as_bytes())
}

/// Writes `bytes` as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), StdoutError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => StdoutError::Closed,
            _ => StdoutError::Failed(error),
        })
}

/// Writes `line` and an end of line.
pub(crate) fn line(line: &str) -> Result<(), StdoutError> {
    text(&format!("{line}\n"))
}

/// Prints an error on standard error.
pub(crate) fn error(message: &str) {
    note(&format!("error: {message}"));
}

/// Untrusted text on one line and without control characters.
pub(crate) fn one_line(untrusted: &str) -> String {
    escape_control(&untrusted.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Prints a remark on standard error, so that it does not mix with the output.
pub(crate) fn note(message: &str) {
    // A closed standard error is not worth an exit code.
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}

/// Escapes the control characters of untrusted text; line breaks stay.
pub(crate) fn escape_control(untrusted: &str) -> String {
    let mut text = String::with_capacity(untrusted.len());
    for c in untrusted.chars() {
        match c {
            '\n' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}
