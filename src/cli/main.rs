//! kubectl-patchbay: looks at plugins, calls them and gives them jobs.
//!
//! It reads what the operator wrote and decides nothing: conditions and reasons are those of the
//! API crate. The only objects that it writes are Jobs.

mod args;
mod call;
mod connect;
mod crds;
mod job;
mod output;
mod plugins;
mod reattach;
mod resolve;
mod status;
mod trouble;

use args::{Arguments, Verb};
use clap::Parser;
use std::process::ExitCode;

/// The thing asked about is not well: not Ready, or a call that ended with an error.
const NOT_WELL: u8 = 1;
/// It could not be found out or done.
const NOT_DONE: u8 = 2;

/// One error of any verb.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Read(#[from] trouble::ReadError),
    #[error(transparent)]
    Status(#[from] status::StatusError),
    #[error(transparent)]
    Call(#[from] call::CallError),
    #[error(transparent)]
    Reattach(#[from] reattach::ReattachError),
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
    #[error(transparent)]
    Job(#[from] job::JobError),
    #[error("starting the runtime: {0}")]
    Runtime(std::io::Error),
}

impl Failure {
    fn is_closed_output(&self) -> bool {
        use output::OutputError::Closed;
        matches!(
            self,
            Failure::Status(status::StatusError::Output(Closed))
                | Failure::Call(call::CallError::Output(Closed))
                | Failure::Reattach(reattach::ReattachError::Output(Closed))
                | Failure::Crds(crds::CrdsError::Output(Closed))
                | Failure::Job(job::JobError::Output(Closed))
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One provider for the whole process; it can only be there already when there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_WELL),
        // Whoever read the answer has seen enough of it.
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.to_string());
            ExitCode::from(NOT_DONE)
        }
    }
}

/// Whether the thing asked about is well.
async fn run(arguments: Arguments) -> Result<bool, Failure> {
    match arguments.verb {
        Verb::Crds => {
            crds::run()?;
            Ok(true)
        }
        Verb::Status(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            Ok(status::run(&connection, &verb).await?)
        }
        Verb::Call(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            Ok(matches!(
                call::run(&connection, &verb).await?,
                call::Ended::Well
            ))
        }
        Verb::Reattach(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            reattach::run(&connection, &verb).await?;
            Ok(true)
        }
        Verb::Submit(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            Ok(job::submit(&connection, &verb).await?)
        }
        Verb::Output(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            Ok(job::output(&connection, &verb).await?)
        }
        Verb::Cancel(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            Ok(job::cancel(&connection, &verb).await?)
        }
        Verb::Retry(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            job::retry(&connection, &verb).await?;
            Ok(true)
        }
        Verb::Queue(verb) => {
            let connection = connect::connect(&arguments.cluster).await?;
            job::queue(&connection, &verb).await?;
            Ok(true)
        }
    }
}
