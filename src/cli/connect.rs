//! From the command line to a client of the API server.
//!
//! The client differs from kube's own in one point: it resolves names itself (see `resolve`).

use crate::args::ClusterArgs;
use crate::resolve::OwnResolver;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::PathBuf;
use tower::{BoxError, ServiceBuilder};

/// A cluster, ready to be asked.
pub(crate) struct ClusterClient {
    /// The client.
    pub(crate) client: Client,
    /// The namespace that the command line or the context names.
    pub(crate) namespace: String,
    /// Address of the API server, for messages.
    pub(crate) server: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("reading the kubeconfig {path}: {source}", path = path.display())]
    NamedFile {
        path: PathBuf,
        source: KubeconfigError,
    },
    #[error(
        "reading the kubeconfig: {source}\nName one by --kubeconfig or the variable KUBECONFIG; for the embedded cluster: export KUBECONFIG=$(make kubeconfig)"
    )]
    DefaultFile { source: KubeconfigError },
    #[error("choosing a context of the kubeconfig: {0}")]
    Context(KubeconfigError),
    #[error("preparing the connection to {server}: {source}")]
    Client { server: String, source: kube::Error },
    #[error(
        "preparing the connection to {server}: the kubeconfig names a proxy, which this program does not use; unset proxy-url or port-forward yourself"
    )]
    Proxy { server: String },
}

/// Reads the kubeconfig and prepares a client. Nothing is sent yet.
pub(crate) async fn connect(arguments: &ClusterArgs) -> Result<ClusterClient, ConnectError> {
    let kubeconfig = match &arguments.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(|source| ConnectError::NamedFile {
            path: path.clone(),
            source,
        })?,
        None => Kubeconfig::read().map_err(|source| ConnectError::DefaultFile { source })?,
    };
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(ConnectError::Context)?;

    let server = config
        .cluster_url
        .to_string()
        .trim_end_matches('/')
        .to_owned();
    if config.proxy_url.is_some() {
        return Err(ConnectError::Proxy { server });
    }
    let namespace = arguments
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    match build_client(config) {
        Ok(client) => Ok(ClusterClient {
            client,
            namespace,
            server,
        }),
        Err(source) => Err(ConnectError::Client { server, source }),
    }
}

fn build_client(config: Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new_with_resolver(OwnResolver::default());
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build(tls);

    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
