//! `plugin.GRPCStdio`: what a plugin writes to its `os.Stdout` and `os.Stderr` after it started to
//! serve.
//!
//! The stream can be read once only, and a plugin that nobody reads blocks after about 70 KiB.
//! So [`follow`] is the one reader, never stops reading, makes lines for the log, and hands a copy
//! of every chunk to the [`Fanout`], from which the proxy serves client programs that ask for the
//! stream. Who cannot follow loses the oldest chunks, counted; the plugin never waits.

use super::DECODE_LIMIT;
use bytes::Bytes;
use patchbay_protocol::go_plugin::grpc_stdio_client::GrpcStdioClient;
use patchbay_protocol::go_plugin::stdio_data::Channel as WireChannel;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Longest line in bytes; the rest of a longer one is thrown away up to its line feed.
pub const MAX_LINE: usize = 64 * 1024;
/// How long an unfinished line may wait for its end.
pub const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// Number of chunks that are kept for a slow reader of the fan-out.
const KEPT_CHUNKS: usize = 512;
/// Longest chunk of the fan-out in bytes; longer ones are split. Plugins in Go send 1 KiB.
const MAX_CHUNK: usize = 4 * 1024;
/// Wait before the stream is opened again; doubles up to the second one.
const REOPEN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Which variable of the plugin was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StdioChannel {
    /// `os.Stdout`, channel 1.
    Stdout,
    /// `os.Stderr`, channel 2.
    Stderr,
}

/// A piece of output, cut anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it was written.
    pub channel: StdioChannel,
    pub data: Bytes,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it was written.
    pub channel: StdioChannel,
    /// Without its line end; at most [`MAX_LINE`] bytes.
    pub bytes: Vec<u8>,
    pub end: LineEnd,
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With a line feed.
    Newline,
    /// It was longer than [`MAX_LINE`].
    Cut,
    /// No line feed came within [`FLUSH_AFTER`], or before the stream ended.
    Flushed,
}

/// Hands copies of the output to any number of readers. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Fanout {
    chunks: broadcast::Sender<Chunk>,
    dropped: Arc<AtomicU64>,
}

impl Default for Fanout {
    fn default() -> Self {
        Fanout::new()
    }
}

impl Fanout {
    /// A fan-out without readers.
    pub fn new() -> Fanout {
        Fanout {
            chunks: broadcast::Sender::new(KEPT_CHUNKS),
            dropped: Arc::default(),
        }
    }

    /// Hands out a piece of output; does nothing when nobody reads.
    pub fn publish(&self, channel: StdioChannel, mut data: Bytes) {
        if self.chunks.receiver_count() == 0 {
            return;
        }
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_CHUNK));
            // An error means that the last reader has gone meanwhile.
            let _ = self.chunks.send(Chunk {
                channel,
                data: piece,
            });
        }
    }

    /// A reader of everything from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            chunks: self.chunks.subscribe(),
            dropped: self.dropped.clone(),
        }
    }

    /// Chunks that slow readers have lost, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many read at the moment.
    pub fn readers(&self) -> usize {
        self.chunks.receiver_count()
    }
}

/// One reader of a [`Fanout`].
#[derive(Debug)]
pub struct Subscription {
    chunks: broadcast::Receiver<Chunk>,
    dropped: Arc<AtomicU64>,
}

impl Subscription {
    /// The next chunk; `None` when the fan-out has gone. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Chunk> {
        loop {
            match self.chunks.recv().await {
                Ok(chunk) => return Some(chunk),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    self.dropped.fetch_add(lost, Ordering::Relaxed);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Reads the plugin's stream for as long as the plugin lives: it returns only when the plugin has
/// no such service. To be run as a task of its own and aborted when the plugin ends, since opening
/// the stream waits for the first output, perhaps for ever.
///
/// `on_line` must not block.
pub async fn follow(channel: Channel, fanout: Fanout, mut on_line: impl FnMut(Line) + Send) {
    let mut client = GrpcStdioClient::new(channel).max_decoding_message_size(DECODE_LIMIT);
    let mut lines = Assembler::default();
    let mut wait = REOPEN.0;
    loop {
        let ended = match client.stream_stdio(()).await {
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    let next = match lines.flush_at {
                        Some(at) => match tokio::time::timeout_at(at, stream.message()).await {
                            Ok(next) => next,
                            Err(_) => {
                                lines.flush(&mut on_line);
                                continue;
                            }
                        },
                        None => stream.message().await,
                    };
                    match next {
                        Ok(Some(data)) => {
                            wait = REOPEN.0;
                            let channel = match data.channel() {
                                WireChannel::Stdout => StdioChannel::Stdout,
                                WireChannel::Stderr => StdioChannel::Stderr,
                                WireChannel::Invalid => continue,
                            };
                            lines.add(channel, &data.data, &mut on_line);
                            fanout.publish(channel, Bytes::from(data.data));
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        lines.flush(&mut on_line);
        if ended.is_some_and(|status| status.code() == tonic::Code::Unimplemented) {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(REOPEN.1);
    }
}

/// Makes lines of chunks, for each channel apart.
#[derive(Default)]
struct Assembler {
    stdout: Unfinished,
    stderr: Unfinished,
    /// When what is unfinished has waited long enough.
    flush_at: Option<Instant>,
}

#[derive(Default)]
struct Unfinished {
    bytes: Vec<u8>,
    /// The line was cut: everything up to the next line feed is thrown away.
    skipping: bool,
}

impl Assembler {
    fn add(&mut self, channel: StdioChannel, data: &[u8], on_line: &mut impl FnMut(Line)) {
        let part = match channel {
            StdioChannel::Stdout => &mut self.stdout,
            StdioChannel::Stderr => &mut self.stderr,
        };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if !part.skipping {
                let room = MAX_LINE - part.bytes.len();
                let (fits, rest) = text.split_at(text.len().min(room));
                part.bytes.extend_from_slice(fits);
                if !rest.is_empty() {
                    let bytes = std::mem::take(&mut part.bytes);
                    on_line(Line {
                        channel,
                        bytes,
                        end: LineEnd::Cut,
                    });
                    part.skipping = true;
                } else if complete {
                    let mut bytes = std::mem::take(&mut part.bytes);
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                    on_line(Line {
                        channel,
                        bytes,
                        end: LineEnd::Newline,
                    });
                }
            }
            if complete {
                part.skipping = false;
            }
        }
        let waiting = !self.stdout.bytes.is_empty() || !self.stderr.bytes.is_empty();
        self.flush_at = match (waiting, self.flush_at) {
            (false, _) => None,
            (true, Some(at)) => Some(at),
            (true, None) => Some(Instant::now() + FLUSH_AFTER),
        };
    }

    fn flush(&mut self, on_line: &mut impl FnMut(Line)) {
        self.flush_at = None;
        for (channel, part) in [
            (StdioChannel::Stdout, &mut self.stdout),
            (StdioChannel::Stderr, &mut self.stderr),
        ] {
            if !part.bytes.is_empty() {
                let bytes = std::mem::take(&mut part.bytes);
                on_line(Line {
                    channel,
                    bytes,
                    end: LineEnd::Flushed,
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "stdio_tests.rs"]
mod tests;
