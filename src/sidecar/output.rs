//! The plugin's output as structured records, at a bounded rate.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use patchbay_launcher::control::{Line, LineEnd, Stream};
use patchbay_protocol::log_line;
use serde_json::{Map, Value};

use crate::counters::Counters;
use crate::family::go_plugin::stdio;
use crate::logs::{self, Entry};

/// Lines a second, in the long run.
const RATE: f64 = 500.0;
/// Lines at once.
const BURST: f64 = 2_000.0;

/// Logs what one plugin process writes.
#[derive(Debug)]
pub struct Output {
    counters: Arc<Counters>,
    stderr: log_line::State,
    stdio_stderr: log_line::State,
    bucket: Bucket,
    /// Lines that were left out since the last one that was not.
    left_out: u64,
}

impl Output {
    /// For a new process.
    pub fn new(counters: Arc<Counters>) -> Output {
        Output {
            counters,
            stderr: log_line::State::default(),
            stdio_stderr: log_line::State::default(),
            bucket: Bucket::new(Instant::now()),
            left_out: 0,
        }
    }

    /// A line that the launcher read from the process.
    pub fn line(&mut self, line: &Line) {
        let cut = line.end == LineEnd::Cut;
        match line.stream {
            Stream::Stdout => self.plain("stdout", &line.bytes, cut),
            Stream::Stderr => {
                let record = log_line::parse(&line.bytes, &mut self.stderr);
                self.record("stderr", record, cut);
            }
        }
    }

    /// A line of the stdio service.
    pub fn stdio(&mut self, line: &stdio::Line) {
        let cut = line.end == stdio::LineEnd::Cut;
        match line.channel {
            stdio::StdioChannel::Stdout => self.plain("stdio-out", &line.bytes, cut),
            stdio::StdioChannel::Stderr => {
                let record = log_line::parse(&line.bytes, &mut self.stdio_stderr);
                self.record("stdio-err", record, cut);
            }
        }
    }

    /// Output that was lost before it came here.
    pub fn lost(&mut self, lines: u64, bytes: u64) {
        self.counters.log_lines_dropped.fetch_add(lines, Relaxed);
        tracing::warn!(
            lines,
            bytes,
            "output of the plugin was lost while no sidecar read it"
        );
    }

    fn plain(&mut self, stream: &str, bytes: &[u8], cut: bool) {
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        self.log(stream, log_line::Level::Info, &text, Map::new(), cut);
    }

    fn record(&mut self, stream: &str, record: log_line::Record, cut: bool) {
        let mut fields: Map<String, Value> = record
            .fields
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        if let Some(module) = record.module {
            fields.insert("@module".to_owned(), module.into());
        }
        if let Some(timestamp) = record.timestamp {
            fields.insert("@timestamp".to_owned(), timestamp.into());
        }
        self.log(stream, record.level, &record.message, fields, cut);
    }

    fn log(
        &mut self,
        stream: &str,
        level: log_line::Level,
        message: &str,
        mut fields: Map<String, Value>,
        cut: bool,
    ) {
        if !self.bucket.take(Instant::now()) {
            self.left_out += 1;
            self.counters.log_lines_dropped.fetch_add(1, Relaxed);
            return;
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            tracing::warn!(
                lines = left_out,
                "the plugin writes more than is logged; lines were left out"
            );
        }
        if cut {
            fields.insert("@cut".to_owned(), true.into());
        }
        if logs::log(Entry {
            level: level.as_str(),
            stream,
            message,
            fields,
        }) {
            self.counters.log_lines.fetch_add(1, Relaxed);
        } else {
            self.counters.log_lines_dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Lets through what the rate allows.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Bucket {
        Bucket {
            tokens: BURST,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn output_flood_is_limited_to_the_rate() {
        let began = Instant::now();
        let mut bucket = Bucket::new(began);
        let passed = (0..10_000).filter(|_| bucket.take(began)).count();
        assert_eq!(passed, 2_000);
        let later = began + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| bucket.take(later)).count(), 500);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let counters = Arc::new(Counters::default());
        let mut output = Output::new(counters.clone());
        for _ in 0..3_000 {
            output.stdio(&stdio::Line {
                channel: stdio::StdioChannel::Stdout,
                bytes: b"x".to_vec(),
                end: stdio::LineEnd::Newline,
            });
        }
        let (logged, dropped) = (
            counters.log_lines.load(Relaxed),
            counters.log_lines_dropped.load(Relaxed),
        );
        assert_eq!(logged + dropped, 3_000);
        assert!(logged >= 2_000 && dropped > 0);
    }
}
