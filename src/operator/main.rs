//! The operator's program: reads the command line, starts the log, runs.

use clap::Parser;
use patchbay_operator::settings::OperatorArguments;
use patchbay_operator::{logging, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = OperatorArguments::parse();
    // Before anything can use TLS; a second provider in the process would be a panic there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let log_filter = match logging::start(arguments.log_format, &arguments.log) {
        Ok(log_filter) => log_filter,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // One thread: passes are short, and each further one costs an arena of memory.
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the runtime: {error}"))
        .and_then(|runtime| {
            runtime
                .block_on(run::run(arguments, log_filter))
                .map_err(|error| error.to_string())
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "ended");
            ExitCode::FAILURE
        }
    }
}
