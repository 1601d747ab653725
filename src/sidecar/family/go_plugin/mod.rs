//! The host side of HashiCorp's go-plugin: dialling the announced address, transport security, and
//! the services that the library puts beside a plugin's own.
//!
//! Everything a plugin sends is foreign and bounded here. Nothing in this module decides what
//! follows from an answer; that is the state machine's business.

pub mod calls;
pub mod connection;
pub mod controller;
mod decisions;
pub mod endpoint;
mod failures;
pub mod health;
mod io;
pub mod reflection;
pub mod stdio;
pub mod tls;

/// Largest message that is taken from a plugin, in bytes.
pub const DECODE_LIMIT: usize = 64 * 1024 * 1024;

/// How much of a foreign error text goes into a message of ours, in bytes.
const ERROR_QUOTE: usize = 256;

/// One line that tells what a gRPC call ended with.
fn status_line(status: &tonic::Status) -> String {
    let message = patchbay_protocol::escape::printable(status.message().as_bytes(), ERROR_QUOTE);
    let code = format!("{:?}", status.code());
    if message.is_empty() {
        code
    } else {
        format!("{code}: {message}")
    }
}

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
pub(crate) use decisions::PARTIAL_LINE_MS;
