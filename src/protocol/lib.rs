//! Wire formats: what crosses a border of a process and in which shape.
//!
//! Nothing here opens a socket, reads a clock or starts a task. The generated gRPC code is behind
//! the feature `grpc`.

#![warn(missing_docs)]

pub mod escape;
pub mod handshake;
pub mod location;
pub mod log_line;
pub mod pod_config;
pub mod reason;
#[cfg(feature = "reflect")]
pub mod reflect;

/// The session between operator and sidecar. Version 2 brought Jobs.
#[cfg(feature = "grpc")]
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod session {
    /// Oldest session version that this build speaks.
    pub const OLDEST: u32 = 1;
    /// Newest session version that this build speaks.
    pub const NEWEST: u32 = 2;
    tonic::include_proto!("patchbay.session.v1");
}

/// The services of go-plugin's own package `plugin`.
#[cfg(feature = "grpc")]
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod go_plugin {
    tonic::include_proto!("plugin");
}
