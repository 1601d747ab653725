//! `grpc.health.v1.Health`: one check of the service name `plugin`, which go-plugin's server
//! registers.

use super::status_line;
use std::time::Duration;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The name under which a go-plugin server reports its health.
pub const SERVICE: &str = "plugin";

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Serving,
    /// The plugin has no health service: it counts as serving, with a warning.
    Unsupported,
    /// Any other status, by its name in the protocol.
    NotServing(String),
    /// The service does not know the name `plugin`.
    UnknownService,
    /// No answer in time.
    TimedOut,
    /// The call failed, as one line.
    Failed(String),
}

impl Health {
    /// Whether the plugin may be called ready.
    pub fn passes(&self) -> bool {
        matches!(self, Health::Serving | Health::Unsupported)
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Health::Serving => f.write_str("the health check answered SERVING"),
            Health::Unsupported => f.write_str("the plugin has no health service"),
            Health::NotServing(status) => write!(f, "the health check answered {status}"),
            Health::UnknownService => {
                write!(
                    f,
                    "the plugin's health service does not know the name `{SERVICE}`"
                )
            }
            Health::TimedOut => f.write_str("the health check was not answered in time"),
            Health::Failed(error) => write!(f, "the health check failed: {error}"),
        }
    }
}

/// Checks once and waits at most `limit` (`spec.health.timeoutSeconds`).
pub async fn check(channel: Channel, limit: Duration) -> Health {
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    match tokio::time::timeout(limit, client.check(request)).await {
        Err(_) => Health::TimedOut,
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving => Health::Serving,
            other => Health::NotServing(other.as_str_name().to_owned()),
        },
        Ok(Err(status)) => match status.code() {
            tonic::Code::Unimplemented => Health::Unsupported,
            tonic::Code::NotFound => Health::UnknownService,
            _ => Health::Failed(status_line(&status)),
        },
    }
}
