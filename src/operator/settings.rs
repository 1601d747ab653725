//! What the installation sets, by flag or environment.

use crate::logging::Format;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs Plugins as pods.
#[derive(Clone, Debug, Parser)]
#[command(name = "patchbay-operator", version, about)]
pub struct OperatorArguments {
    /// Kubeconfig of the cluster; the one that this process runs in when absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the operator: its Lease and its authority are there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "patchbay-system")]
    pub namespace: String,

    /// Name of this pod. A Lease that an earlier process of the same pod held is taken at once:
    /// that process has ended.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,

    /// Name of the Lease.
    #[arg(long, env = "PATCHBAY_LEASE", default_value = "patchbay-operator")]
    pub lease: String,

    /// Image of the sidecar in every plugin pod.
    #[arg(long, env = "PATCHBAY_SIDECAR_IMAGE")]
    pub sidecar_image: String,

    /// When the kubelet pulls that image.
    #[arg(
        long,
        env = "PATCHBAY_SIDECAR_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub sidecar_image_pull_policy: String,

    /// Labels that a Plugin may put on its pods begin with one of these, separated by commas.
    #[arg(long, env = "PATCHBAY_ALLOWED_LABEL_PREFIXES", value_delimiter = ',')]
    pub allowed_label_prefixes: Vec<String>,

    /// Labels that select the operator's own pods, as `key=value` separated by commas: plugin
    /// pods let in nobody else on the session port.
    #[arg(
        long,
        env = "PATCHBAY_OPERATOR_LABELS",
        value_delimiter = ',',
        value_parser = label,
        default_value = "app.kubernetes.io/name=patchbay,app.kubernetes.io/component=operator"
    )]
    pub operator_labels: Vec<(String, String)>,

    /// Address of probes and metrics.
    #[arg(long, env = "PATCHBAY_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,

    /// Shape of log lines.
    #[arg(long, env = "PATCHBAY_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: Format,

    /// Which lines are logged, as in `info,kube=warn`.
    #[arg(
        long,
        env = "PATCHBAY_LOG",
        default_value = "info,tower_http=off,kube_client::client=off"
    )]
    pub log: String,

    /// Which lines sidecars log, as in `info,h2=warn`.
    #[arg(long, env = "PATCHBAY_SIDECAR_LOG", default_value = "info")]
    pub sidecar_log: String,

    /// Plugins that are worked on at the same time.
    #[arg(long, env = "PATCHBAY_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// Bytes of output that the Jobs of one namespace may have in objects of kind JobOutput.
    /// Beyond it a job fails with OutputTooLarge.
    #[arg(long, env = "PATCHBAY_NAMESPACE_OUTPUT_BYTES", default_value_t = 1 << 30)]
    pub namespace_output_bytes: u64,

    /// Jobs whose passes run at the same time.
    #[arg(long, env = "PATCHBAY_JOB_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub job_concurrency: u16,

    /// Sets the clock by which times are judged wrong by this number of seconds, for fault tests.
    #[arg(long, hide = true, default_value_t = 0, allow_negative_numbers = true)]
    pub shift_clock_seconds: i64,

    /// That happens when SIGUSR1 comes, not at the start.
    #[arg(long, hide = true)]
    pub shift_clock_on_signal: bool,

    /// Aborts the process right after this number of writes, for fault tests.
    #[arg(long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub abort_after_writes: Option<u32>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not key=value")),
    }
}

impl OperatorArguments {
    /// The prefixes without the empty one that an empty variable yields.
    pub fn label_prefixes(&self) -> Vec<String> {
        let mut prefixes = self.allowed_label_prefixes.clone();
        prefixes.retain(|prefix| !prefix.is_empty());
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_prefixes_allows_nothing() {
        let arguments = OperatorArguments::parse_from([
            "patchbay-operator",
            "--sidecar-image=s:1",
            "--allowed-label-prefixes=",
        ]);
        assert!(arguments.label_prefixes().is_empty());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        OperatorArguments::command().debug_assert();
    }
}
