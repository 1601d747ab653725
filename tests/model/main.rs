//! The model of the claim protocol, checked; see `lib.rs` beside this file.

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The bigger runs hold some hundred megabytes each.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, patchbay_model::trials()).exit_code()
}
