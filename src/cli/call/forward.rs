//! A connection to one pod's proxy port, through the API server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use patchbay_api::names::PROXY_PORT;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};
use tower::BoxError;

use crate::api_error::error_chain;

/// How long to wait for the kubelet's own message about a broken forward.
const ERROR_TIMEOUT: Duration = Duration::from_secs(1);

type ErrorText = BoxFuture<'static, Option<String>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("forwarding to port {PROXY_PORT} of pod {pod}: {cause}")]
    Connect { pod: String, cause: String },
}

/// A forwarded connection. It connects once: a second one would need a second forward.
pub(crate) struct Forward {
    pub(crate) channel: Channel,
    error_text: Arc<Mutex<Option<ErrorText>>>,
}

impl Forward {
    /// Connects to the proxy port of `pod`.
    pub(crate) async fn open(pods: Api<Pod>, pod: &str) -> Result<Self, ForwardError> {
        let error_text: Arc<Mutex<Option<ErrorText>>> = Arc::default();
        let connector = tower::service_fn({
            let (pod, error_text) = (pod.to_owned(), Arc::clone(&error_text));
            move |_| dial(pods.clone(), pod.clone(), Arc::clone(&error_text))
        });
        // The host is never resolved: the connector dials the pod.
        let opened = Endpoint::from_static("http://plugin")
            .user_agent(concat!("kubectl-patchbay/", env!("CARGO_PKG_VERSION")));
        let opened = match opened {
            Ok(endpoint) => {
                endpoint
                    .initial_connection_window_size(16 * 1024 * 1024)
                    .initial_stream_window_size(4 * 1024 * 1024)
                    .connect_with_connector(connector)
                    .await
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(channel) => Ok(Self {
                channel,
                error_text,
            }),
            Err(error) => {
                let cause = kubelet_error(&error_text)
                    .await
                    .unwrap_or_else(|| error_chain(&error));
                Err(ForwardError::Connect {
                    pod: pod.to_owned(),
                    cause,
                })
            }
        }
    }

    /// The kubelet's message about the forward, if it broke.
    pub(crate) async fn error(&self) -> Option<String> {
        kubelet_error(&self.error_text).await
    }
}

async fn dial(
    pods: Api<Pod>,
    pod: String,
    error_text: Arc<Mutex<Option<ErrorText>>>,
) -> Result<TokioIo<DuplexStream>, BoxError> {
    let mut forward = pods.portforward(&pod, &[PROXY_PORT]).await?;
    if let (Some(error), Ok(mut slot)) = (forward.take_error(PROXY_PORT), error_text.lock()) {
        *slot = Some(error.boxed());
    }
    let stream = forward
        .take_stream(PROXY_PORT)
        .ok_or("the API server opened no stream")?;
    Ok(TokioIo::new(stream))
}

async fn kubelet_error(error_text: &Mutex<Option<ErrorText>>) -> Option<String> {
    let waiting = error_text.lock().ok()?.take()?;
    tokio::time::timeout(ERROR_TIMEOUT, waiting)
        .await
        .ok()
        .flatten()
        .map(|message| message.trim().to_owned())
}
