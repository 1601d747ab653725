//! A connection to one pod's proxy port, through the API server.

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use patchbay_api::names::PROXY_PORT;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};
use tower::BoxError;

/// So long the kubelet's own words about a broken forward are waited for.
const WORDS: Duration = Duration::from_secs(1);

type Words = BoxFuture<'static, Option<String>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("forwarding to port {PROXY_PORT} of pod {pod}: {cause}")]
    Connect { pod: String, cause: String },
}

/// A forwarded connection. It connects once: a second one would need a second forward.
pub(crate) struct Forward {
    /// The plugin, for gRPC.
    pub(crate) channel: Channel,
    words: Arc<Mutex<Option<Words>>>,
}

impl Forward {
    /// Connects to the proxy port of `pod`.
    pub(crate) async fn open(pods: Api<Pod>, pod: &str) -> Result<Forward, ForwardError> {
        let words: Arc<Mutex<Option<Words>>> = Arc::default();
        let connector = tower::service_fn({
            let (pod, words) = (pod.to_owned(), Arc::clone(&words));
            move |_| dial(pods.clone(), pod.clone(), Arc::clone(&words))
        });
        // The host in the address is never resolved: the connector knows where to go.
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
            Ok(channel) => Ok(Forward { channel, words }),
            Err(error) => {
                let cause = heard(&words).await.unwrap_or_else(|| chain(&error));
                Err(ForwardError::Connect {
                    pod: pod.to_owned(),
                    cause,
                })
            }
        }
    }

    /// What the kubelet says about the forward, when it broke.
    pub(crate) async fn trouble(&self) -> Option<String> {
        heard(&self.words).await
    }
}

async fn dial(
    pods: Api<Pod>,
    pod: String,
    words: Arc<Mutex<Option<Words>>>,
) -> Result<TokioIo<DuplexStream>, BoxError> {
    let mut forward = pods.portforward(&pod, &[PROXY_PORT]).await?;
    if let (Some(error), Ok(mut slot)) = (forward.take_error(PROXY_PORT), words.lock()) {
        *slot = Some(error.boxed());
    }
    let stream = forward
        .take_stream(PROXY_PORT)
        .ok_or("the API server opened no stream")?;
    Ok(TokioIo::new(stream))
}

async fn heard(words: &Mutex<Option<Words>>) -> Option<String> {
    let waiting = words.lock().ok()?.take()?;
    tokio::time::timeout(WORDS, waiting)
        .await
        .ok()
        .flatten()
        .map(|said| said.trim().to_owned())
}

/// The causes of an error in one line, without repetition.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
