//! Logs: one JSON object a line, or text for people. Nothing secret is ever a field: types that
//! hold keys have no `Debug`.

use clap::ValueEnum;
use std::sync::Arc;
use tokio::sync::watch;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

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

/// Changes what is logged while the operator runs.
#[derive(Clone, Debug)]
pub struct LogFilter(Handle<EnvFilter, Registry>);

impl LogFilter {
    /// The filter in force, as in `info,kube=warn`.
    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Logs by this filter from now on.
    ///
    /// # Errors
    /// The text is not a filter; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LoggingError> {
        let parsed = parse(filter)?;
        self.0
            .reload(parsed)
            .map_err(|error| LoggingError::Start(Box::new(error)))
    }
}

/// What the sidecars log; each gets it over its session. Clones are the same.
#[derive(Clone, Debug)]
pub struct SidecarLogFilter(Arc<watch::Sender<String>>);

impl SidecarLogFilter {
    /// Begins with this filter.
    ///
    /// # Errors
    /// The text is not a filter.
    pub fn new(filter: &str) -> Result<Self, LoggingError> {
        parse_simple(filter)?;
        Ok(Self(Arc::new(watch::Sender::new(filter.to_owned()))))
    }

    /// The filter in force.
    pub fn current(&self) -> String {
        self.0.borrow().clone()
    }

    /// Sends this filter to every sidecar, and to each that comes later.
    ///
    /// # Errors
    /// The text is not a filter; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LoggingError> {
        parse_simple(filter)?;
        self.0.send_replace(filter.to_owned());
        Ok(())
    }

    /// Follows the changes.
    pub fn subscribe(&self) -> watch::Receiver<String> {
        self.0.subscribe()
    }
}

/// Sidecars know targets and levels, and no spans and fields.
fn parse_simple(filter: &str) -> Result<Targets, LoggingError> {
    filter.parse().map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(filter).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// Starts logging to stderr.
pub fn start(format: Format, filter: &str) -> Result<LogFilter, LoggingError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        Format::Text => lines.boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| LoggingError::Start(Box::new(error)))?;
    Ok(LogFilter(handle))
}

#[cfg(test)]
pub(crate) fn filter_for_tests() -> LogFilter {
    let (layer, handle) = reload::Layer::new(EnvFilter::new("info"));
    // The handle refers to the layer; a test's process keeps it.
    std::mem::forget(layer);
    LogFilter(handle)
}
