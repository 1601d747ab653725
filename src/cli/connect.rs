//! From the command line to a client of the API server.

use std::path::PathBuf;

use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::ServiceBuilder;

use crate::args::ClusterArgs;
use crate::proxy::{self, ProxyError};

/// A client and what messages say about the cluster.
pub(crate) struct ClusterClient {
    pub(crate) client: Client,
    /// The namespace that the command line or the context names.
    pub(crate) namespace: String,
    /// URL of the API server, for messages.
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
        "reading the kubeconfig: {source}\nName one with --kubeconfig or the variable KUBECONFIG; for the embedded cluster: export KUBECONFIG=$(make kubeconfig)"
    )]
    DefaultFile { source: KubeconfigError },
    #[error("reading the service account of this pod: {0}")]
    InCluster(InClusterError),
    #[error(
        "reading the variable NO_PROXY: {0}; it is a list of hosts, addresses and CIDRs, separated by commas"
    )]
    NoProxy(kube::config::NoProxyError),
    #[error("choosing a context of the kubeconfig: {0}")]
    Context(KubeconfigError),
    #[error("reading --server {server:?}: {source}")]
    Server {
        server: String,
        source: http::uri::InvalidUri,
    },
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("preparing the connection to {server}: {source}")]
    Client { server: String, source: kube::Error },
}

/// Reads the kubeconfig and prepares a client. Nothing is sent yet.
pub(crate) async fn connect(arguments: &ClusterArgs) -> Result<ClusterClient, ConnectError> {
    let config = config(arguments).await?;
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/').to_owned();
    let namespace = arguments
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    // Zero is kubectl's word for no timeout.
    let timeout = arguments.request_timeout.filter(|limit| !limit.is_zero());
    match ClientBuilder::try_from(config) {
        Ok(builder) => Ok(ClusterClient {
            client: match timeout {
                // Until the headers of the response: a watch or a port-forward may last longer.
                Some(limit) => builder
                    .with_layer(&ServiceBuilder::new().timeout(limit).into_inner())
                    .build(),
                None => builder.build(),
            },
            namespace,
            server,
        }),
        Err(source) => Err(ConnectError::Client { server, source }),
    }
}

/// The kubeconfig, or the pod's service account when there is no kubeconfig, with the flags applied.
async fn config(arguments: &ClusterArgs) -> Result<Config, ConnectError> {
    let kubeconfig = match &arguments.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(|source| ConnectError::NamedFile {
            path: path.clone(),
            source,
        })?,
        None => match Kubeconfig::read() {
            Ok(kubeconfig) => kubeconfig,
            Err(source) if is_absent(&source) && std::env::var_os(SERVICE_HOST).is_some() => {
                let mut config = Config::incluster().map_err(ConnectError::InCluster)?;
                apply(&mut config, arguments, None)?;
                return Ok(config);
            }
            Err(source) => return Err(ConnectError::DefaultFile { source }),
        },
    };
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        cluster: arguments.cluster.clone(),
        user: arguments.user.clone(),
    };
    let proxy_url = proxy_url(&kubeconfig, &options);
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| match error {
            KubeconfigError::ParseNoProxy(source) => ConnectError::NoProxy(source),
            error => ConnectError::Context(error),
        })?;
    apply(&mut config, arguments, proxy_url.as_deref())?;
    Ok(config)
}

/// Set by the kubelet in every pod.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::ReadConfig(source, _) => source.kind() == std::io::ErrorKind::NotFound,
        KubeconfigError::FindPath => true,
        _ => false,
    }
}

/// `proxy-url` of the cluster that kube will choose.
fn proxy_url(kubeconfig: &Kubeconfig, options: &KubeConfigOptions) -> Option<String> {
    let context = options
        .context
        .as_ref()
        .or(kubeconfig.current_context.as_ref())?;
    let context = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == *context)?
        .context
        .as_ref()?;
    let cluster = options.cluster.as_ref().unwrap_or(&context.cluster);
    let cluster = kubeconfig
        .clusters
        .iter()
        .find(|named| named.name == *cluster)?
        .cluster
        .as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// What the flags say wins over the kubeconfig.
fn apply(
    config: &mut Config,
    arguments: &ClusterArgs,
    proxy_url: Option<&str>,
) -> Result<(), ConnectError> {
    if let Some(server) = &arguments.server {
        config.cluster_url = server.parse().map_err(|source| ConnectError::Server {
            server: server.clone(),
            source,
        })?;
    }
    if arguments.insecure_skip_tls_verify {
        config.accept_invalid_certs = true;
    }
    let user = &mut config.auth_info;
    if let Some(token) = &arguments.token {
        // kube would prefer these to a token.
        user.auth_provider = None;
        user.username = None;
        user.password = None;
        user.token = Some(token.clone().into());
    }
    if let Some(name) = &arguments.impersonate {
        user.impersonate = Some(name.clone());
    }
    if !arguments.impersonate_groups.is_empty() {
        user.impersonate_groups = Some(arguments.impersonate_groups.clone());
    }
    // kube repeats a request after a 504, which a Job with a generated name may have survived: there
    // would be two.
    config.default_retry = false;
    config.proxy_url = proxy::choose(&config.cluster_url, proxy_url, |name| {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    })?;
    Ok(())
}
