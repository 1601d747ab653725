//! The proxy port: client programs reach the plugin here, call by call, without the sidecar
//! knowing their protocol files.
//!
//! It forwards HTTP/2 streams: headers, bodies, trailers and resets pass as they are, with
//! back-pressure on every single stream. What it does not forward is the package `plugin.`
//! ([`intercept`]): a stock go-plugin host would end the plugin and steal its output there.
//!
//! Rules that are kept here, each learned from a failure:
//! - one upstream connection per client connection, so that a client which does not read its
//!   streams blocks nobody but itself ([`upstream`]);
//! - connection windows close to the protocol's maximum and small stream windows on both sides, so
//!   that it does not even block its own other calls ([`settings`]);
//! - a lost plugin is `grpc-status: 14` (Unavailable) in trailers; only a reset that the plugin
//!   sent is passed on as a reset ([`reply`]);
//! - a request that was handed back unsent is sent once more on a new connection, nothing else is
//!   ever repeated ([`forward`]);
//! - connections, streams and headers are bounded.
//!
//! A client connection outlives the plugin process: when its upstream is dead or another endpoint
//! was announced, the next call opens a new upstream. While there is no plugin, calls end at once
//! with Unavailable and the reason.
//!
//! Called by the sidecar's main loop only. Nothing here knows why a plugin is absent or when to
//! drain.

mod connection;
mod counters;
mod forward;
mod intercept;
mod listen;
mod reply;
mod settings;
mod upstream;

pub use counters::{ProxyCounters, ProxyNumbers};
pub use listen::{Drained, Proxy, ProxyHandle};

use crate::family::go_plugin::endpoint::Endpoint;
use patchbay_protocol::reason::Reason;

/// What the proxy forwards to.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// No plugin can be called, and why.
    Absent(Reason),
    /// The plugin listens here.
    Present(Endpoint),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
