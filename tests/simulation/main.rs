//! Runs the simulation; see the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    patchbay_simulation::main()
}
