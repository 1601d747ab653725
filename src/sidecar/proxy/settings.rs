//! The HTTP/2 settings of both sides. The defaults are made for ends of a connection and are wrong
//! for something in between.

use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;

/// How much of one stream may be on its way unread, in bytes. Bounds the memory that an unread
/// stream costs here; 256 KiB were not clearly faster, also with messages of 1 MB.
pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
/// Window of all streams together: this number of streams may stay unread without blocking the others.
/// The protocol's maximum is 2^31 - 1.
pub(super) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 16383;
/// Largest header list in bytes, names and values together. hyper's own 16 KiB refuses what
/// servers in Go accept.
pub(super) const MAX_HEADERS: u32 = 1024 * 1024;
/// Calls at the same time on one client connection.
pub(super) const MAX_STREAMS: u32 = 2048;
/// Calls at the same time on all of them; more are answered with ResourceExhausted.
pub(super) const MAX_CALLS: u64 = 16 * 1024;
/// Client connections at the same time; more are closed at once.
pub(super) const MAX_CONNECTIONS: u64 = 1024;
/// How long a new client connection may stay silent.
pub(super) const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(20);
/// Resets in a row that a peer may cause before its connection counts as an attack. Clients that
/// cancel a thousand calls at once are normal; each has its own upstream, so that it harms only
/// itself.
const MAX_RESETS: usize = 4096;
/// A connection lives for days, and the library counts the resets over its whole life.
const MAX_LOCAL_RESETS: usize = 1 << 20;
/// What is copied into a stream's send queue before the peer's window stops it, in bytes.
const SEND_BUFFER: usize = 128 * 1024;

/// Towards client programs.
pub(super) fn server() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS);
    builder
}

/// Towards the plugin.
pub(super) fn client() -> hyper::client::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS);
    builder
}
