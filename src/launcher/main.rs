//! `patchbay-launcher`: PID 1 of a plugin container.
//!
//! It starts the plugin when the sidecar says so, owns its pipes, tells what they carry and how
//! the process ended, and decides nothing. One thread, one poll loop; every buffer is bounded.
//! It outlives sidecars: the plugin never ends because the control socket is dead.

mod arguments;
mod checksum;
mod control_socket;
mod descendants;
mod interpreter;
mod launcher;
mod lines;
mod mirror;
mod outbox;
mod process;
mod proxy;
mod start;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("patchbay-launcher: {error}");
            return ExitCode::from(2);
        }
    };
    match launcher::Launcher::new(arguments).and_then(|mut launcher| launcher.run()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("patchbay-launcher: {error}");
            ExitCode::from(2)
        }
    }
}
