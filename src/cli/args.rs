//! The command line: verbs and flags, and nothing about how they are carried out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::time_arg::duration;

/// Shows Patchbay's plugins, calls them and gives them jobs.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl patchbay",
    bin_name = "kubectl patchbay",
    version,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// Cluster, user and namespace, by kubectl's own flags.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of kubectl")]
pub(crate) struct ClusterArgs {
    /// Path of the kubeconfig file (default: $KUBECONFIG, then ~/.kube/config, then the pod's service account)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace (default: the context's)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Cluster of the kubeconfig (default: the context's)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// User of the kubeconfig (default: the context's)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// URL of the API server (default: the cluster's)
    #[arg(short, long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub(crate) impersonate: Option<String>,
    /// Group to impersonate, may be given several times
    #[arg(long = "as-group", global = true, value_name = "NAME")]
    pub(crate) impersonate_groups: Vec<String>,
    /// How long to wait for each response of the API server, such as 10s; 0 means no limit
    #[arg(long, global = true, value_parser = duration, value_name = "DURATION")]
    pub(crate) request_timeout: Option<Duration>,
    /// Do not verify the certificate of the API server; this makes the connection insecure
    #[arg(long, global = true)]
    pub(crate) insecure_skip_tls_verify: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Show plugins with their conditions, pods, handshakes and last problem
    ///
    /// Exit code: 0 if every plugin shown is Ready, 1 if one is not, 2 if the status could not be read.
    Status(StatusArgs),
    /// Show everything that happened to one object, in order
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Call a gRPC method of a plugin with JSON
    ///
    /// The call goes through a port-forward to a Ready pod, so it works from wherever kubectl works.
    /// Exit code: 0 on success, 1 if the plugin returns an error, 2 if it was not called.
    Call(CallArgs),
    /// Print the reattach configuration for a stock go-plugin host
    Reattach(ReattachArgs),
    /// Create a Job for a plugin
    ///
    /// Exit code: 0 if the Job was created (with --wait: if it succeeded), 1 if it did not succeed, 2 if it was not created.
    Submit(SubmitArgs),
    /// Print the output of a Job, byte for byte
    ///
    /// Exit code: 0, or 1 if the Job has failed, 2 if its output could not be read.
    Output(OutputArgs),
    /// Cancel Jobs
    ///
    /// A Job that is running ends as Failed with reason Cancelled; what the plugin still returns is kept as late output.
    Cancel(CancelArgs),
    /// Create a new Job that repeats one that has ended
    Retry(RetryArgs),
    /// Count open Jobs by plugin and client, with the reasons why they are not running
    Queue(QueueArgs),
    /// Explain a reason that a condition or an event shows
    Explain(ExplainArgs),
    /// Print the CustomResourceDefinitions of this version
    Crds,
    /// Print the versions of this program, the operator and the kinds in the cluster
    Version(VersionArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DescribeCommand {
    /// Show the life of one Job: every step with its time, what it waits for now, and its events
    ///
    /// Exit code: 0, or 1 if the Job has failed, 2 if it could not be read.
    #[command(visible_aliases = ["jobs", "pbjob"])]
    Job(DescribeJobArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Name of the Plugin (default: all in the namespace)
    pub(crate) plugin: Option<String>,
    /// Show all namespaces
    #[arg(short = 'A', long, conflicts_with = "plugin")]
    pub(crate) all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[value(alias = "tree")]
    Text,
    /// One JSON document
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct DescribeJobArgs {
    /// Name of the Job
    pub(crate) job: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl patchbay call kv-go --list
  kubectl patchbay call kv-go proto.KV/Put '{\"key\":\"a\",\"value\":\"aGk=\"}'
  kubectl patchbay call kv-go Get '{\"key\":\"a\"}'
  echo '{\"n\":1} {\"n\":2}' | kubectl patchbay call adder Sum -      several messages for a stream
Fields of type bytes are base64.")]
pub(crate) struct CallArgs {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// Method: package.Service/Method, or a shorter form that is unique, such as Method
    #[arg(required_unless_present = "list")]
    pub(crate) method: Option<String>,
    /// Message as JSON, - for standard input, @FILE for a file (default: an empty message)
    pub(crate) message: Option<String>,
    /// List the methods and the fields of their messages
    #[arg(short, long)]
    pub(crate) list: bool,
    /// Metadata of the call, NAME:VALUE; the value of a NAME-bin is base64
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    pub(crate) headers: Vec<String>,
    /// Give up after this time, such as 90s or 1h30m; 0 means no limit
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Compiled FileDescriptorSet, for a plugin without reflection
    #[arg(long, value_name = "FILE")]
    pub(crate) descriptors: Option<PathBuf>,
    /// Pod to call (default: any that is Ready)
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ReattachArgs {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// For a host on this machine, with a port-forward to this local port
    #[arg(long, value_name = "PORT")]
    pub(crate) local: Option<u16>,
    /// Process that the host watches in place of the plugin's (default: the one that runs this command)
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl patchbay submit scraper wget http://example.com/ --client 10.1.2.3 --wait
  kubectl patchbay submit scraper wget 'Target IP Address=10.1.2.3' --start +10m --expire +1h30m
  kubectl patchbay submit kv-go proto.KV/Get '{\"key\":\"a\"}' --wait")]
pub(crate) struct SubmitArgs {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// Command of the plugin, or package.Service/Method of a gRPC plugin
    pub(crate) work: String,
    /// Values of the command's inputs, in order or as NAME=VALUE; or the request as JSON
    pub(crate) values: Vec<String>,
    /// Value of an optional input, may be given several times
    #[arg(long = "optional-input", value_name = "NAME=VALUE")]
    pub(crate) optional_inputs: Vec<String>,
    /// Only for this client of the plugin (default: any)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) client: Option<String>,
    /// Only for this port of the plugin (default: any)
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Do not start before this time: RFC 3339, or a duration such as +1h30m (default: now)
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// Fail if not started by this time: RFC 3339, or a duration such as +1h30m (default: never)
    #[arg(long, value_name = "TIME")]
    pub(crate) expire: Option<String>,
    /// Among Jobs with the same start time, the one with the higher priority runs first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// Fail if not finished this many seconds after the claim
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<i32>,
    /// Delete the Job this many seconds after it has ended (default: keep it)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<i32>,
    /// Maximum number of further attempts after a loss or an error; only for work that may be done twice
    #[arg(long, value_name = "NUMBER")]
    pub(crate) retries: Option<i32>,
    /// Name of the Job (default: the plugin's with a random suffix)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the output as it arrives, until the Job ends
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct OutputArgs {
    /// Name of the Job
    pub(crate) job: String,
    /// Print further output until the Job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = RowFormat::Raw)]
    pub(crate) output: RowFormat,
    /// Include output that came after the Job had ended
    #[arg(long)]
    pub(crate) late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// The bytes as the plugin gave them
    Raw,
    /// One line of JSON for each row
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// Names of the Jobs
    #[arg(required = true)]
    pub(crate) jobs: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RetryArgs {
    /// Name of the Job
    pub(crate) job: String,
    /// Fail if not started by this time: RFC 3339, or a duration such as +1h30m (default: as before)
    #[arg(long, value_name = "TIME")]
    pub(crate) expire: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct QueueArgs {
    /// Name of the Plugin (default: all in the namespace)
    pub(crate) plugin: Option<String>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The reason, such as PluginLost (default: all)
    pub(crate) reason: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Only this program's version; no cluster is asked
    #[arg(long)]
    pub(crate) client: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["x"], line].concat())
    }

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn call_needs_a_method_or_the_list() {
        assert!(parse(&["call", "kv"]).is_err());
        assert!(parse(&["call", "kv", "--list"]).is_ok());
        assert!(parse(&["call", "kv", "Get", "{}"]).is_ok());
        assert!(parse(&["call", "kv", "Get", "--timeout", "1h30m"]).is_ok());
        assert!(parse(&["call", "kv", "Get", "--timeout", "soon"]).is_err());
        assert!(parse(&["status", "kv", "-A"]).is_err());
    }

    #[test]
    fn flags_of_kubectl_are_read_behind_the_verb() {
        let line = [
            "status",
            "-n",
            "demo",
            "--context",
            "c",
            "--as",
            "ann",
            "--as-group",
            "a",
            "--as-group",
            "b",
            "--request-timeout",
            "5s",
            "-o",
            "json",
        ];
        let read = parse(&line).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read.cluster.namespace.as_deref(), Some("demo"));
        assert_eq!(read.cluster.context.as_deref(), Some("c"));
        assert_eq!(read.cluster.impersonate.as_deref(), Some("ann"));
        assert_eq!(read.cluster.impersonate_groups, ["a", "b"]);
        assert_eq!(read.cluster.request_timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn output_flag_means_the_format_everywhere() {
        for line in [
            &["status", "-o", "json"][..],
            &["queue", "-o", "json"],
            &["output", "a", "-o", "json"],
            &["describe", "job", "a", "-o", "json"],
            &["explain", "PluginLost", "-o", "json"],
            &["version", "-o", "json"],
        ] {
            assert!(parse(line).is_ok(), "{line:?}");
        }
        assert!(parse(&["submit", "kv", "get", "-o", "a=b"]).is_err());
        assert!(parse(&["submit", "kv", "get", "--optional-input", "a=b"]).is_ok());
    }
}
