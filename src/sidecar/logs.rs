//! Structured logs: one JSON object a line on stdout, our own records and the plugin's.
//!
//! Keys: `timestamp`, `level`, `stream` (`sidecar`, or where the plugin wrote), `plugin`, `pod`,
//! `message`. The fields of our own records stand beside them, as in the operator's log. What a plugin
//! chose lies beneath `fields` or `message` and can never pass for one of ours.
//!
//! A thread of its own writes, so that a reader who does not read stops no call. What waits for it
//! is bounded; the rest is dropped and counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, RwLock, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::SystemError;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, Registry};

/// Bytes that may wait for the writer.
const WAITING: usize = 1024 * 1024;

/// Names our own records.
const OWN_STREAM: &str = "sidecar";
/// Keys that no field takes.
const RESERVED: [&str; 7] = [
    "timestamp",
    "level",
    "stream",
    "plugin",
    "pod",
    "message",
    "fields",
];

static LOGS: OnceLock<Logs> = OnceLock::new();

struct Logs {
    queue: mpsc::Sender<Message>,
    waiting: &'static AtomicUsize,
    pod: Option<String>,
    plugin: RwLock<Option<String>>,
    dropped: AtomicU64,
    filter: Handle<Targets, Registry>,
}

enum Message {
    Line(String),
    Flush(mpsc::Sender<()>),
}

/// Starts the writer and takes over `tracing`. The variable `PATCHBAY_LOG` chooses what of our own
/// is logged, such as `debug` or `info,h2=warn`, until the operator says otherwise.
///
/// # Errors
/// The thread cannot be started.
pub fn start() -> Result<(), SystemError> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (queue, waiting) = mpsc::channel();
    std::thread::Builder::new()
        .name("logs".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || write_all(&waiting, &COUNT))
        .map_err(|error| SystemError::new("start the log's writer", error))?;
    let pod = std::env::var("POD_NAME")
        .ok()
        .filter(|name| !name.is_empty());
    let wanted = std::env::var("PATCHBAY_LOG")
        .ok()
        .and_then(|text| text.parse::<Targets>().ok());
    let wanted = wanted.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let (wanted, filter) = reload::Layer::new(wanted);
    let logs = Logs {
        queue,
        waiting: &COUNT,
        pod,
        plugin: RwLock::new(None),
        dropped: AtomicU64::new(0),
        filter,
    };
    let _ = LOGS.set(logs);
    let subscriber = tracing_subscriber::registry().with(OwnRecords.with_filter(wanted));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| SystemError::new("start the logs", std::io::Error::other(error)))
}

/// From now on every record names this plugin.
pub fn name_plugin(namespace: &str, name: &str) {
    if let Some(logs) = LOGS.get()
        && let Ok(mut plugin) = logs.plugin.write()
    {
        *plugin = Some(format!("{namespace}/{name}"));
    }
}

/// Why the log filter stays.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    #[error("read the log filter: {0}")]
    Unreadable(#[from] tracing_subscriber::filter::ParseError),
    #[error("change the log filter: {0}")]
    Change(#[from] reload::Error),
}

/// Logs by this filter from now on, such as `debug` or `info,h2=warn`.
///
/// # Errors
/// The text is not a filter; the old one stays.
pub fn set_filter(filter: &str) -> Result<(), LogFilterError> {
    let wanted: Targets = filter.parse()?;
    match LOGS.get() {
        Some(logs) => Ok(logs.filter.reload(wanted)?),
        None => Ok(()),
    }
}

/// Lines that found no room, since the start.
pub fn dropped() -> u64 {
    LOGS.get()
        .map_or(0, |logs| logs.dropped.load(Ordering::Relaxed))
}

/// Waits until what was logged is written, a second at most.
pub fn flush() {
    if let Some(logs) = LOGS.get() {
        let (done, wait) = mpsc::channel();
        if logs.queue.send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// One record.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    /// Lower-case word.
    pub level: &'a str,
    /// Where it was written.
    pub stream: &'a str,
    pub message: &'a str,
    pub fields: Map<String, Value>,
}

/// Logs a record. Returns whether there was room.
pub fn log(entry: Entry<'_>) -> bool {
    let Some(logs) = LOGS.get() else { return true };
    let plugin = logs.plugin.read().ok().and_then(|plugin| plugin.clone());
    let line = render(
        entry,
        SystemTime::now(),
        plugin.as_deref(),
        logs.pod.as_deref(),
    );
    let length = line.len();
    if logs.waiting.fetch_add(length, Ordering::Relaxed) + length > WAITING
        || logs.queue.send(Message::Line(line)).is_err()
    {
        logs.waiting.fetch_sub(length, Ordering::Relaxed);
        logs.dropped.fetch_add(1, Ordering::Relaxed);
        return false;
    }
    true
}

fn write_all(queue: &mpsc::Receiver<Message>, waiting: &AtomicUsize) {
    let mut out = std::io::stdout();
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(line) => {
                // Nobody is left to be told when stdout is broken.
                let _ = out.write_all(line.as_bytes());
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

fn render(entry: Entry<'_>, now: SystemTime, plugin: Option<&str>, pod: Option<&str>) -> String {
    let mut line = String::with_capacity(entry.message.len() + 192);
    line.push_str("{\"timestamp\":\"");
    line.push_str(&rfc3339(now));
    line.push('"');
    let mut put = |key: &str, value: &Value| {
        let _ = write!(line, ",\"{key}\":{value}");
    };
    put("level", &entry.level.into());
    put("stream", &entry.stream.into());
    if let Some(plugin) = plugin {
        put("plugin", &plugin.into());
    }
    if let Some(pod) = pod {
        put("pod", &pod.into());
    }
    put("message", &entry.message.into());
    let mut fields = entry.fields;
    if entry.stream == OWN_STREAM {
        fields.retain(|key, value| {
            let reserved = RESERVED.contains(&key.as_str());
            if !reserved {
                put(key, value);
            }
            reserved
        });
    }
    if !fields.is_empty() {
        put("fields", &Value::Object(fields));
    }
    line.push_str("}\n");
    line
}

/// UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years; so leap days come last in a year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Our own records.
struct OwnRecords;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OwnRecords {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(seen.fields));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut seen = Seen {
            message: String::new(),
            fields: span_fields(event, &context),
        };
        event.record(&mut seen);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        log(Entry {
            level,
            stream: OWN_STREAM,
            message: &seen.message,
            fields: seen.fields,
        });
    }
}

/// What was recorded with the spans around an event; the inner one wins.
fn span_fields<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(
    event: &tracing::Event<'_>,
    context: &Context<'_, S>,
) -> Map<String, Value> {
    let mut fields = Map::new();
    let scope = context.event_scope(event);
    for span in scope.into_iter().flat_map(|scope| scope.from_root()) {
        if let Some(SpanFields(known)) = span.extensions().get() {
            fields.extend(known.clone());
        }
    }
    fields
}

/// What was recorded with a span.
struct SpanFields(Map<String, Value>);

#[derive(Default)]
struct Seen {
    message: String,
    fields: Map<String, Value>,
}

impl Seen {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_one_line_of_json_whatever_the_plugin_writes() {
        let mut fields = Map::new();
        fields.insert("pod".to_owned(), "forged".into());
        let entry = Entry {
            level: "warn",
            stream: "stderr",
            message: "a\n\"b\"",
            fields,
        };
        let line = render(entry, UNIX_EPOCH, Some("ns/kv"), Some("kv-0-abc"));
        assert_eq!(line.matches('\n').count(), 1);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["pod"], "kv-0-abc");
        assert_eq!(parsed["message"], "a\n\"b\"");
        assert_eq!(parsed["fields"]["pod"], "forged");
    }

    #[test]
    fn own_record_has_its_fields_beside_the_reserved_keys() {
        let mut fields = Map::new();
        fields.insert("job".to_owned(), "scan".into());
        fields.insert("pod".to_owned(), "another".into());
        let entry = Entry {
            level: "info",
            stream: OWN_STREAM,
            message: "granted",
            fields,
        };
        let line = render(entry, UNIX_EPOCH, None, Some("kv-0-1"));
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["job"], "scan");
        assert_eq!(parsed["pod"], "kv-0-1");
        assert_eq!(parsed["fields"]["pod"], "another");
    }

    #[test]
    fn event_carries_the_fields_of_its_spans() {
        let (lines, written) = mpsc::channel();
        let subscriber = tracing_subscriber::registry()
            .with(OwnRecords)
            .with(Collect(lines));
        tracing::subscriber::with_default(subscriber, || {
            let _outer = tracing::info_span!("session", pod = "kv-0-1").entered();
            let _inner = tracing::info_span!("claim", claim = "c1").entered();
            tracing::info!(job = "scan", "granted");
        });
        assert_eq!(
            written.recv().unwrap(),
            serde_json::json!({"pod": "kv-0-1", "claim": "c1"})
        );
    }

    /// Sends on what [`OwnRecords`] keeps with the spans of an event.
    struct Collect(mpsc::Sender<Value>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collect {
        fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
            self.0
                .send(Value::Object(span_fields(event, &context)))
                .unwrap();
        }
    }

    #[test]
    fn timestamps_are_in_utc() {
        let at = |seconds: u64, millis: u64| {
            rfc3339(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 5), "2000-02-29T00:00:00.005Z");
        assert_eq!(at(1_709_251_199, 999), "2024-02-29T23:59:59.999Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
