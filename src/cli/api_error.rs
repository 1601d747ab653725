//! Errors of the API server, with what the user can do about them.

use kube::Error;

use crate::connect::ClusterClient;

/// A failed request to the API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(
        "{what}: the API server {server} cannot be reached: {cause}\nCheck that the cluster is up and that this is its kubeconfig; `kubectl cluster-info` sends a similar request"
    )]
    Unreachable {
        what: String,
        server: String,
        cause: String,
    },
    #[error(
        "{what}: the API server {server} does not accept these credentials (401); log in again"
    )]
    Unauthorized { what: String, server: String },
    #[error(
        "{what}: not allowed: {message}\nThe role patchbay-viewer allows reading, patchbay-plugin-author also calling plugins and creating Jobs"
    )]
    Forbidden { what: String, message: String },
    #[error(
        "{what}: the cluster {server} does not have Patchbay's kinds; the chart patchbay-crds is not installed\nInstall it, or choose another cluster with --context"
    )]
    NoKind { what: String, server: String },
    #[error("{what}: it does not exist{hint}")]
    NoObject { what: String, hint: String },
    #[error("{what}: {cause}")]
    Other { what: String, cause: String },
}

impl ApiError {
    /// From kube's error while doing `what` ("reading …").
    pub(crate) fn from_kube(
        cluster: &ClusterClient,
        what: impl Into<String>,
        error: Error,
    ) -> Self {
        let (what, server) = (what.into(), cluster.server.clone());
        match error {
            Error::Api(status) => match status.code {
                401 => Self::Unauthorized { what, server },
                403 => Self::Forbidden {
                    what,
                    message: status.message.clone(),
                },
                // An absent object is named in the details; an absent kind has none.
                404 if status
                    .details
                    .as_ref()
                    .is_none_or(|details| details.name.is_empty()) =>
                {
                    Self::NoKind { what, server }
                }
                _ => Self::Other {
                    what,
                    cause: status.message.clone(),
                },
            },
            Error::Service(_) | Error::HyperError(_) => Self::Unreachable {
                what,
                server,
                cause: cause(&error),
            },
            error => Self::Other {
                what,
                cause: error_chain(&error),
            },
        }
    }
}

/// The causes beneath the client's own name for the error.
fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => error_chain(source),
        None => error.to_string(),
    }
}

/// An error and its sources in one line, without repetition.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    fn cluster() -> ClusterClient {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new(http::Uri::from_static("https://192.0.2.1:6443"));
        let client = kube::Client::try_from(config).unwrap_or_else(|error| panic!("{error}"));
        ClusterClient {
            client,
            namespace: "demo".to_owned(),
            server: "https://192.0.2.1:6443".to_owned(),
        }
    }

    fn api(code: u16, message: &str, name: &str) -> Error {
        let details = StatusDetails {
            name: name.to_owned(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        };
        Error::Api(
            Status {
                details: Some(details),
                ..Status::failure(message, "").with_code(code)
            }
            .boxed(),
        )
    }

    #[tokio::test]
    async fn api_error_says_what_to_do() {
        let cluster = cluster();
        let text = |error| ApiError::from_kube(&cluster, "reading Plugins", error).to_string();
        assert!(
            text(api(
                404,
                "the server could not find the requested resource",
                ""
            ))
            .contains("patchbay-crds")
        );
        assert!(text(api(403, "no", "")).contains("patchbay-viewer"));
        assert!(text(api(401, "Unauthorized", "")).contains("log in"));
        assert_eq!(
            text(api(404, "plugins \"x\" not found", "x")),
            "reading Plugins: plugins \"x\" not found"
        );
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let unreachable = text(Error::Service(refused.into()));
        assert!(
            unreachable.contains("https://192.0.2.1:6443 cannot be reached: connection refused"),
            "{unreachable}"
        );
    }
}
