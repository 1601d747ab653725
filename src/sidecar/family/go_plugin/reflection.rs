//! Server reflection: which gRPC services a plugin offers. Version 1 is asked first, then
//! v1alpha, which older libraries have.

use super::{DECODE_LIMIT, status_line};
use patchbay_protocol::escape::printable;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

/// Most names that are kept.
pub const MAX_SERVICES: usize = 256;
/// Longest name in bytes.
pub const MAX_NAME: usize = 256;

/// What the plugin offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Full names, sorted, each once, at most [`MAX_SERVICES`], escaped and cut at [`MAX_NAME`].
    pub names: Vec<String>,
    /// How many more there are.
    pub omitted: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReflectionError {
    /// The plugin has no reflection; nothing is wrong with it.
    #[error("the plugin does not offer reflection")]
    Unsupported,
    /// No answer in time.
    #[error("listing the plugin's services was not answered in time")]
    TimedOut,
    /// The call failed.
    #[error("listing the plugin's services failed: {0}")]
    Failed(String),
}

/// Asks for the services and waits at most `limit` for both versions together.
pub async fn services(channel: Channel, limit: Duration) -> Result<Services, ReflectionError> {
    let asked = async {
        match ask_v1(channel.clone()).await {
            Err(status) if status.code() == Code::Unimplemented => ask_v1alpha(channel).await,
            answer => answer,
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Err(_) => Err(ReflectionError::TimedOut),
        Ok(Ok(names)) => Ok(bounded(names)),
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            Err(ReflectionError::Unsupported)
        }
        Ok(Err(status)) => Err(ReflectionError::Failed(status_line(&status))),
    }
}

/// The two versions have the same shape and different types.
macro_rules! ask {
    ($name:ident, $version:ident) => {
        async fn $name(channel: Channel) -> Result<Vec<String>, Status> {
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let request = $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client =
                ServerReflectionClient::new(channel).max_decoding_message_size(DECODE_LIMIT);
            let mut answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await?
                .into_inner();
            match answers
                .message()
                .await?
                .and_then(|answer| answer.message_response)
            {
                Some(MessageResponse::ListServicesResponse(list)) => Ok(list
                    .service
                    .into_iter()
                    .map(|service| service.name)
                    .collect()),
                Some(MessageResponse::ErrorResponse(error)) => Err(Status::new(
                    Code::from_i32(error.error_code),
                    error.error_message,
                )),
                _ => Err(Status::internal("the answer is not a list of services")),
            }
        }
    };
}

ask!(ask_v1, v1);
ask!(ask_v1alpha, v1alpha);

fn bounded(names: Vec<String>) -> Services {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| printable(name.as_bytes(), MAX_NAME))
        .collect();
    names.sort_unstable();
    names.dedup();
    let omitted = names.len().saturating_sub(MAX_SERVICES) as u32;
    names.truncate(MAX_SERVICES);
    Services { names, omitted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_bounded_and_escaped() {
        let many = (0..300).rev().map(|n| format!("s{n:03}")).collect();
        let services = bounded(many);
        assert_eq!(services.names.len(), MAX_SERVICES);
        assert_eq!(services.omitted, 44);
        assert_eq!(services.names[0], "s000");
        let odd = bounded(vec!["b\n".into(), "a".into(), "a".into(), "x".repeat(1000)]);
        assert_eq!(odd.names[..2], ["a", "b\\n"]);
        assert!(odd.names[2].len() <= MAX_NAME);
        assert_eq!(odd.omitted, 0);
    }
}
