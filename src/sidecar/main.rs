//! The sidecar's program: one verb, then done. Everything else is in the library.

use std::process::ExitCode;

use patchbay_sidecar::arguments::{self, Verb};
use patchbay_sidecar::paths::Root;
use patchbay_sidecar::{install, ready, run};

fn main() -> ExitCode {
    let verb = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(verb) => verb,
        Err(error) => {
            eprintln!("{error}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let done = match verb {
        Verb::Run { root, session } => run::run(root, session),
        Verb::Ready { root, wait } => ready::probe(&Root::new(root), wait),
        Verb::Install { root } => install::install(&Root::new(root)).map(|_| ()),
        Verb::WaitInstalled { root } => install::wait_installed(&Root::new(root)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
