//! `plugin.GRPCController`: asks a plugin to end itself.
//!
//! Whatever comes back means "asked". A plugin in Go ends so fast that its answer is usually lost;
//! one on pygo-plugin answers after two seconds. Only the exit of the process tells success, and
//! that is the launcher's to report.

use super::status_line;
use patchbay_protocol::go_plugin::Empty;
use patchbay_protocol::go_plugin::grpc_controller_client::GrpcControllerClient;
use std::time::Duration;
use tonic::transport::Channel;

/// What came back from `Shutdown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownAnswer {
    /// The plugin answered before it ended.
    Answered,
    /// The connection broke: the usual end of a plugin in Go.
    Cut,
    /// The plugin has no controller; it has to be stopped by signals.
    Unsupported,
    /// No answer in time.
    TimedOut,
    /// Another error, as one line.
    Failed(String),
}

impl ShutdownAnswer {
    /// Whether waiting for the exit makes sense: all but [`ShutdownAnswer::Unsupported`].
    pub fn asked(&self) -> bool {
        !matches!(self, ShutdownAnswer::Unsupported)
    }
}

/// Calls `Shutdown` and waits for its end, at most `limit` (`spec.shutdown.rpcSeconds`).
pub async fn shutdown(channel: Channel, limit: Duration) -> ShutdownAnswer {
    let mut client = GrpcControllerClient::new(channel);
    match tokio::time::timeout(limit, client.shutdown(Empty {})).await {
        Err(_) => ShutdownAnswer::TimedOut,
        Ok(Ok(_)) => ShutdownAnswer::Answered,
        Ok(Err(status)) => match status.code() {
            tonic::Code::Unimplemented => ShutdownAnswer::Unsupported,
            // tonic has no code of its own for a broken connection.
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
                ShutdownAnswer::Cut
            }
            _ => ShutdownAnswer::Failed(status_line(&status)),
        },
    }
}
