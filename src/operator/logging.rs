//! Logs: one JSON object a line, or text for people. Nothing secret is ever a field: types that
//! hold keys have no `Debug`.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For machines.
    Json,
    /// For people.
    Text,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("reading the log filter {filter:?}: {source}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Called twice.
    #[error("starting the log: {0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging to stderr.
pub fn start(format: Format, filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
        Format::Text => builder.try_init(),
    };
    started.map_err(LoggingError::Start)
}
