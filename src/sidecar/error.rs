//! Errors of the operating system, with what was attempted.

use std::io;
use std::path::Path;

/// The operating system did not do what was attempted.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}")]
pub struct SystemError {
    attempt: String,
    #[source]
    source: io::Error,
}

impl SystemError {
    /// `attempt` is a verb with its object, such as "write /private/epoch".
    pub fn new(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            attempt: attempt.into(),
            source: source.into(),
        }
    }

    /// For an attempt on one file or socket.
    pub fn at(verb: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::new(format!("{verb} {}", path.display()), source)
    }
}
