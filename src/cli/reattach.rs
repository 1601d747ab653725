//! `reattach`: the record by which a stock go-plugin host attaches to a running plugin.
//!
//! Test is always true: such a host neither kills the process that the record names nor takes the
//! record for another core protocol. With it the host believes the record's version.

use crate::args;
use crate::connect::Connection;
use crate::output::{self, OutputError};
use crate::plugins;
use crate::trouble::ReadError;
use patchbay_api::Plugin;
use serde::Serialize;

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReattachError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(
        "making the record of {plugin}: it has not shaken hands yet, so its version is not known\n`kubectl patchbay status -n {namespace} {plugin}` tells more"
    )]
    NoHandshake { namespace: String, plugin: String },
    #[error("making the record of {plugin}: {source}")]
    Json {
        plugin: String,
        source: serde_json::Error,
    },
}

/// go-plugin's ReattachConfig in the JSON form that its hosts read.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    protocol: &'static str,
    protocol_version: i64,
    /// A process that the host looks at once a second to learn whether the plugin lives. The
    /// plugin's own is in another pod, so this names one that lives as long as the host.
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

/// Prints the record, and beside it what has to run for it.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::Reattach,
) -> Result<(), ReattachError> {
    let plugin = plugins::one(connection, &arguments.plugin).await?;
    let namespace = &connection.namespace;
    let version = app_version(&plugin).ok_or_else(|| ReattachError::NoHandshake {
        namespace: namespace.clone(),
        plugin: arguments.plugin.clone(),
    })?;
    let port = plugin.spec.service.port;
    let host = format!("{}.{namespace}.svc", arguments.plugin);
    // kubectl replaces itself by this program, so the parent is the shell or host that asked.
    let pid = arguments
        .pid
        .unwrap_or_else(std::os::unix::process::parent_id);
    let record = record(version, pid, &host, port, arguments.local);
    let text = serde_json::to_string(&record).map_err(|source| ReattachError::Json {
        plugin: arguments.plugin.clone(),
        source,
    })?;
    output::line(&text)?;
    match arguments.local {
        Some(local) => output::note(&format!(
            "The host reaches it while this runs:\n  kubectl port-forward --namespace {namespace} service/{} {local}:{port}",
            arguments.plugin
        )),
        None if plugin.spec.service.clients.is_empty() => output::note(&format!(
            "Nobody in the cluster may call it yet: spec.service.clients of {} is empty.",
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

fn record(version: i64, pid: u32, host: &str, port: i32, local: Option<u16>) -> Record {
    let string = match local {
        Some(local) => format!("127.0.0.1:{local}"),
        None => format!("{host}:{port}"),
    };
    Record {
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
    fn the_record_has_the_names_that_go_plugin_reads() -> Result<(), serde_json::Error> {
        assert_eq!(
            serde_json::to_string(&record(4, 77, "kv.demo.svc", 7444, None))?,
            r#"{"Protocol":"grpc","ProtocolVersion":4,"Pid":77,"Test":true,"Addr":{"Network":"tcp","String":"kv.demo.svc:7444"}}"#
        );
        let local = record(1, 1, "kv.demo.svc", 7444, Some(9000));
        assert_eq!(local.addr.string, "127.0.0.1:9000");
        Ok(())
    }
}
