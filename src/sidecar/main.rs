//! The sidecar's program: one verb, then done. Everything else is in the library.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use patchbay_sidecar::arguments::{self, Verb};
use patchbay_sidecar::paths::Root;
use patchbay_sidecar::{debug, install, ready, run};

fn main() -> ExitCode {
    let verb = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(verb) => verb,
        Err(error) => {
            eprintln!("{error}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match carry_out(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(verb: Verb) -> Result<(), Box<dyn Error>> {
    match verb {
        Verb::Run { root, session } => run::run(root, session)?,
        Verb::Ready { root, wait } => ready::probe(&Root::new(root), wait)?,
        Verb::Debug { root } => print(&debug::read(&Root::new(root))?),
        Verb::Install { root } => drop(install::install(&Root::new(root))?),
        Verb::WaitInstalled { root } => install::wait_installed(&Root::new(root))?,
    }
    Ok(())
}

/// A reader who closes the pipe has read enough.
fn print(page: &str) {
    let _ = std::io::stdout().write_all(page.as_bytes());
}
