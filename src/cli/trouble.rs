//! What the API server's refusals mean for the person at the keyboard.

use crate::call::chain;
use crate::connect::Connection;
use kube::Error;

/// Why something could not be read from the cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(
        "{what}: the API server {server} cannot be reached: {cause}\nIs the cluster up, and is this its kubeconfig? `kubectl cluster-info` asks the same"
    )]
    Unreachable {
        what: String,
        server: String,
        cause: String,
    },
    #[error("{what}: the API server {server} does not know these credentials (401); log in again")]
    Unauthorized { what: String, server: String },
    #[error(
        "{what}: not allowed: {message}\nThe role patchbay-viewer allows looking, patchbay-plugin-author also calling and giving jobs"
    )]
    Forbidden { what: String, message: String },
    #[error(
        "{what}: the cluster {server} does not know Patchbay's kinds: the chart patchbay-crds is not installed there\nInstall it, or choose another cluster with --context"
    )]
    NoKind { what: String, server: String },
    #[error("{what}: it does not exist{hint}")]
    NoObject { what: String, hint: String },
    #[error("{what}: {cause}")]
    Other { what: String, cause: String },
}

/// Reads the meaning of `error`, which happened while doing `what` ("reading …").
pub(crate) fn explain(connection: &Connection, what: impl Into<String>, error: Error) -> ReadError {
    let (what, server) = (what.into(), connection.server.clone());
    match error {
        Error::Api(status) => match status.code {
            401 => ReadError::Unauthorized { what, server },
            403 => ReadError::Forbidden {
                what,
                message: status.message.clone(),
            },
            // An absent object is named in the details; an absent kind has none.
            404 if status
                .details
                .as_ref()
                .is_none_or(|details| details.name.is_empty()) =>
            {
                ReadError::NoKind { what, server }
            }
            _ => ReadError::Other {
                what,
                cause: status.message.clone(),
            },
        },
        Error::Service(_) | Error::HyperError(_) => ReadError::Unreachable {
            what,
            server,
            cause: cause(&error),
        },
        error => ReadError::Other {
            what,
            cause: chain(&error),
        },
    }
}

/// The causes beneath the client's own name for the error.
fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => chain(source),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    fn connection() -> Connection {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new(http::Uri::from_static("https://192.0.2.1:6443"));
        let client = kube::Client::try_from(config).unwrap_or_else(|error| panic!("{error}"));
        Connection {
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
    async fn each_refusal_says_what_to_do() {
        let connection = connection();
        let text = |error| explain(&connection, "reading Plugins", error).to_string();
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
