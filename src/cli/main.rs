//! kubectl-patchbay: shows plugins, calls them and gives them jobs.
//!
//! It reads what the operator wrote: conditions and reasons are those of the API crate. The only
//! objects that it writes are Jobs.

mod age;
mod api_error;
mod args;
mod call;
mod color;
mod connect;
mod crds;
mod explain;
mod job;
mod plugins;
mod proxy;
mod reason_text;
mod reattach;
mod status;
mod stdio;
mod time_arg;
mod version;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, CliCommand, DescribeCommand};
use stdio::StdoutError;

/// The verb was carried out, with a bad result: not Ready, Failed, or a call that ended with an error.
const BAD_RESULT: u8 = 1;
/// The verb could not be carried out.
const ERROR: u8 = 2;

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Status(#[from] status::StatusCommandError),
    #[error(transparent)]
    Call(#[from] call::CallError),
    #[error(transparent)]
    Reattach(#[from] reattach::ReattachError),
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
    #[error(transparent)]
    Job(#[from] job::JobCommandError),
    #[error(transparent)]
    Version(#[from] version::VersionError),
    #[error("starting the runtime: {0}")]
    Runtime(std::io::Error),
}

impl CliError {
    fn is_closed_stdout(&self) -> bool {
        matches!(
            self,
            CliError::Status(status::StatusCommandError::Output(StdoutError::Closed))
                | CliError::Call(call::CallError::Output(StdoutError::Closed))
                | CliError::Reattach(reattach::ReattachError::Output(StdoutError::Closed))
                | CliError::Crds(crds::CrdsError::Output(StdoutError::Closed))
                | CliError::Explain(explain::ExplainError::Output(StdoutError::Closed))
                | CliError::Job(job::JobCommandError::Output(StdoutError::Closed))
                | CliError::Version(version::VersionError::Output(StdoutError::Closed))
        )
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BAD_RESULT),
        // For example `| head`.
        Err(error) if error.is_closed_stdout() => ExitCode::SUCCESS,
        Err(error) => {
            stdio::error(&error.to_string());
            ExitCode::from(ERROR)
        }
    }
}

/// Returns false for a bad result.
async fn run(cli: Cli) -> Result<bool, CliError> {
    let connect = || connect::connect(&cli.cluster);
    Ok(match &cli.command {
        CliCommand::Crds => {
            crds::run()?;
            true
        }
        CliCommand::Explain(arguments) => {
            explain::run(arguments)?;
            true
        }
        CliCommand::Version(arguments) => version::run(&cli.cluster, arguments).await?,
        CliCommand::Status(arguments) => status::run(&connect().await?, arguments).await?,
        CliCommand::Describe(DescribeCommand::Job(arguments)) => {
            job::describe(&connect().await?, arguments).await?
        }
        CliCommand::Call(arguments) => matches!(
            call::run(&connect().await?, arguments).await?,
            call::CallOutcome::Succeeded
        ),
        CliCommand::Reattach(arguments) => {
            reattach::run(&connect().await?, arguments).await?;
            true
        }
        CliCommand::Submit(arguments) => job::submit(&connect().await?, arguments).await?,
        CliCommand::Output(arguments) => job::output(&connect().await?, arguments).await?,
        CliCommand::Cancel(arguments) => job::cancel(&connect().await?, arguments).await?,
        CliCommand::Retry(arguments) => {
            job::retry(&connect().await?, arguments).await?;
            true
        }
        CliCommand::Queue(arguments) => {
            job::queue(&connect().await?, arguments).await?;
            true
        }
    })
}
