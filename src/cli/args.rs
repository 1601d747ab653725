//! The command line: what can be asked, and nothing about how it is answered.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Looks at Patchbay's plugins, calls them and gives them jobs.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl patchbay",
    bin_name = "kubectl patchbay",
    version,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which cluster and namespace, with kubectl's own names.
#[derive(Args, Debug)]
pub(crate) struct Cluster {
    /// Path of the kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace (default: the context's)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show plugins with their pods, their handshakes and the last trouble
    ///
    /// Exit code: 0 when every plugin shown is Ready, 1 when one is not, 2 when it could not be found out.
    Status(Status),
    /// Call a gRPC method of a plugin with JSON
    ///
    /// The connection goes through a port-forward to a Ready pod, so it works from anywhere kubectl does.
    /// Exit code: 0 on success, 1 when the plugin answers with an error, 2 when it was not called.
    Call(Call),
    /// Print the record by which a stock go-plugin host attaches to a running plugin
    Reattach(Reattach),
    /// Give a plugin a job
    ///
    /// Exit code: 0 when the Job was made (with --wait: when it succeeded), 1 when it did not succeed, 2 when it was not made.
    Submit(Submit),
    /// Print what a plugin gave back for a Job, byte for byte
    ///
    /// Exit code: 0, or 1 when the Job has failed, 2 when it could not be read.
    Output(JobOutput),
    /// Cancel Jobs
    ///
    /// A job that a plugin has already is marked as Failed/Cancelled; what the plugin still answers is kept as late output.
    Cancel(Cancel),
    /// Make a new Job with the work of one that has ended
    Retry(Retry),
    /// Show what waits, for whom, why, and for how long
    Queue(Queue),
    /// Print the CustomResourceDefinitions that this version knows
    Crds,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Name of the Plugin (default: all of the namespace)
    pub(crate) plugin: Option<String>,
    /// Look at every namespace
    #[arg(short = 'A', long, conflicts_with = "plugin")]
    pub(crate) all_namespaces: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Output::Tree)]
    pub(crate) output: Output,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A tree for people
    Tree,
    /// One JSON document for programs
    Json,
}

/// Arguments of `call`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl patchbay call kv-go --list
  kubectl patchbay call kv-go proto.KV/Put '{\"key\":\"a\",\"value\":\"aGk=\"}'
  kubectl patchbay call kv-go Get '{\"key\":\"a\"}'
  echo '{\"n\":1} {\"n\":2}' | kubectl patchbay call adder Sum -      several messages for a stream
Fields of type bytes are base64.")]
pub(crate) struct Call {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// The method: package.Service/Method, or a shorter form that is unique, such as Method
    #[arg(required_unless_present = "list")]
    pub(crate) method: Option<String>,
    /// The message as JSON, - for standard input, @FILE for a file (default: an empty message)
    pub(crate) message: Option<String>,
    /// List the methods with the shape of their messages
    #[arg(short, long)]
    pub(crate) list: bool,
    /// Metadata of the call, NAME:VALUE; the value of a NAME-bin is base64
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    pub(crate) headers: Vec<String>,
    /// Give up after this time: 500ms, 10s, 2m; 0 waits for ever
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// A compiled FileDescriptorSet, for a plugin without reflection
    #[arg(long, value_name = "FILE")]
    pub(crate) descriptors: Option<PathBuf>,
    /// Call this pod (default: any that is Ready)
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
}

/// Arguments of `reattach`.
#[derive(Args, Debug)]
pub(crate) struct Reattach {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// The host runs here, with a port-forward to this local port
    #[arg(long, value_name = "PORT")]
    pub(crate) local: Option<u16>,
    /// Process that the host watches in the plugin's stead (default: the one that runs this command)
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// Arguments of `submit`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl patchbay submit scraper wget http://example.com/ --client 10.1.2.3 --wait
  kubectl patchbay submit scraper wget 'Target IP Address=10.1.2.3' --start +10m --expire +1h
  kubectl patchbay submit kv-go proto.KV/Get '{\"key\":\"a\"}' --wait")]
pub(crate) struct Submit {
    /// Name of the Plugin
    pub(crate) plugin: String,
    /// A command of the plugin, or package.Service/Method of a gRPC plugin
    pub(crate) work: String,
    /// Values of the command's inputs, in order or as NAME=VALUE; or the request as JSON
    pub(crate) values: Vec<String>,
    /// Value of an optional input
    #[arg(short = 'o', long = "option", value_name = "NAME=VALUE")]
    pub(crate) options: Vec<String>,
    /// Only for this client of the plugin (default: any)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) client: Option<String>,
    /// Only for this port of the plugin (default: any)
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Not before this time: RFC 3339, or +10m (default: now)
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// Only before this time: RFC 3339, or +1h (default: for ever)
    #[arg(long, value_name = "TIME")]
    pub(crate) expire: Option<String>,
    /// Decides between jobs of the same start; the greater comes first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// Fails when it has not ended so many seconds after its hand-out
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<i32>,
    /// Deleted so many seconds after its end (default: kept)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<i32>,
    /// The work may safely be done twice: so many further attempts after a loss or failure
    #[arg(long, value_name = "NUMBER")]
    pub(crate) retries: Option<i32>,
    /// Name of the Job (default: the plugin's with a random ending)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the output as it comes, until the end
    #[arg(short, long)]
    pub(crate) wait: bool,
}

/// Arguments of `output`.
#[derive(Args, Debug)]
pub(crate) struct JobOutput {
    /// Name of the Job
    pub(crate) job: String,
    /// Go on until the Job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// One line of JSON for each row
    #[arg(long)]
    pub(crate) json: bool,
    /// Also what came after the end
    #[arg(long)]
    pub(crate) late: bool,
}

/// Arguments of `cancel`.
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// Names of the Jobs
    #[arg(required = true)]
    pub(crate) jobs: Vec<String>,
}

/// Arguments of `retry`.
#[derive(Args, Debug)]
pub(crate) struct Retry {
    /// Name of the Job
    pub(crate) job: String,
    /// Only before this time: RFC 3339, or +1h (default: as before)
    #[arg(long, value_name = "TIME")]
    pub(crate) expire: Option<String>,
}

/// Arguments of `queue`.
#[derive(Args, Debug)]
pub(crate) struct Queue {
    /// Name of the Plugin (default: all of the namespace)
    pub(crate) plugin: Option<String>,
    /// Look at every namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Output::Tree)]
    pub(crate) output: Output,
}

/// Reads `500ms`, `10s`, `2m`, `1h` or a bare number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a whole number with a unit, such as 500ms, 10s or 2m".to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => return Err(format!("unit {other:?} is not one of ms, s, m, h")),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| "that is longer than can be counted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("7", 7_000),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1.5s",
            "-1s",
            "3 days",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_call_needs_a_method_or_the_list() {
        let parse = |line: &[&str]| Arguments::try_parse_from([&["x"], line].concat());
        assert!(parse(&["call", "kv"]).is_err());
        assert!(parse(&["call", "kv", "--list"]).is_ok());
        assert!(parse(&["call", "kv", "Get", "{}"]).is_ok());
        assert!(parse(&["status", "kv", "-A"]).is_err());
    }

    #[test]
    fn the_cluster_may_be_named_behind_the_verb() {
        let read = Arguments::try_parse_from(["x", "status", "-n", "demo", "--context", "c"])
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(read.cluster.namespace.as_deref(), Some("demo"));
        assert_eq!(read.cluster.context.as_deref(), Some("c"));
    }
}
