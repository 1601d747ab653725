//! The sidecar's program: one verb, then done. Everything else is in the library.

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
    let done = match verb {
        Verb::Run { root, session } => run::run(root, session),
        Verb::Ready { root, wait } => ready::probe(&Root::new(root), wait),
        Verb::Debug { root } => debug::read(&Root::new(root)).map(|page| print(&page)),
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

/// A reader who closes the pipe has read enough.
fn print(page: &str) {
    let _ = std::io::stdout().write_all(page.as_bytes());
}
