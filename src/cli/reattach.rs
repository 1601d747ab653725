//! `reattach`: the ReattachConfig with which a stock go-plugin host attaches to a running plugin.
//!
//! Test is always true: with it the host does not kill the process that `Pid` names, and uses the
//! protocol version given here.

use patchbay_api::Plugin;
use serde::Serialize;

use crate::api_error::ApiError;
use crate::args;
use crate::connect::ClusterClient;
use crate::plugins;
use crate::stdio::{self, StdoutError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReattachError {
    #[error(transparent)]
    Read(#[from] ApiError),
    #[error(transparent)]
    Output(#[from] StdoutError),
    #[error(
        "creating the reattach configuration of {plugin}: there was no handshake yet, so its version is not known\n`kubectl patchbay status -n {namespace} {plugin}` shows more"
    )]
    NoHandshake { namespace: String, plugin: String },
    #[error("creating the reattach configuration of {plugin}: {source}")]
    Json {
        plugin: String,
        source: serde_json::Error,
    },
}

/// go-plugin's ReattachConfig as JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReattachConfig {
    protocol: &'static str,
    protocol_version: i64,
    /// The host polls this process once a second to see whether the plugin is alive. The plugin's
    /// own is in another pod, so this is one that lives as long as the host.
    pid: u32,
    test: bool,
    addr: Address,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    network: &'static str,
    string: String,
}

/// Prints the configuration, and on standard error what else is needed.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::ReattachArgs,
) -> Result<(), ReattachError> {
    let plugin = plugins::get(cluster, &arguments.plugin).await?;
    let namespace = &cluster.namespace;
    let version = app_version(&plugin).ok_or_else(|| ReattachError::NoHandshake {
        namespace: namespace.clone(),
        plugin: arguments.plugin.clone(),
    })?;
    let port = plugin.spec.service.port;
    let host = format!("{}.{namespace}.svc", arguments.plugin);
    // kubectl replaces itself with this program, so the parent is the calling shell or host.
    let pid = arguments
        .pid
        .unwrap_or_else(std::os::unix::process::parent_id);
    let config = reattach_config(version, pid, &host, port, arguments.local);
    let text = serde_json::to_string(&config).map_err(|source| ReattachError::Json {
        plugin: arguments.plugin.clone(),
        source,
    })?;
    stdio::line(&text)?;
    match arguments.local {
        Some(local) => stdio::note(&format!(
            "The host can reach it while this runs:\n  kubectl port-forward --namespace {namespace} service/{} {local}:{port}",
            arguments.plugin
        )),
        None if plugin.spec.service.clients.is_empty() => stdio::note(&format!(
            "No client in the cluster may call it yet: spec.service.clients of {} is empty.",
            arguments.plugin
        )),
        None => {}
    }
    Ok(())
}

fn app_version(plugin: &Plugin) -> Option<i64> {
    plugin
        .status
        .as_ref()?
        .handshake
        .as_ref()
        .map(|handshake| handshake.app_version)
}

fn reattach_config(
    version: i64,
    pid: u32,
    host: &str,
    port: i32,
    local: Option<u16>,
) -> ReattachConfig {
    let string = match local {
        Some(local) => format!("127.0.0.1:{local}"),
        None => format!("{host}:{port}"),
    };
    ReattachConfig {
        protocol: "grpc",
        protocol_version: version,
        pid,
        test: true,
        addr: Address {
            network: "tcp",
            string,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reattach_config_has_the_field_names_of_go_plugin() -> Result<(), serde_json::Error> {
        assert_eq!(
            serde_json::to_string(&reattach_config(4, 77, "kv.demo.svc", 7444, None))?,
            r#"{"Protocol":"grpc","ProtocolVersion":4,"Pid":77,"Test":true,"Addr":{"Network":"tcp","String":"kv.demo.svc:7444"}}"#
        );
        let local = reattach_config(1, 1, "kv.demo.svc", 7444, Some(9000));
        assert_eq!(local.addr.string, "127.0.0.1:9000");
        Ok(())
    }
}
