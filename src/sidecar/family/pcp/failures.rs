//! How a plugin of this family can fail, in the words of the catalogue and a sentence for people.

use patchbay_launcher::control::Exit;
use patchbay_protocol::reason::Reason;

use crate::instance::failure::{self, Failure, exit_text, hint, with_lines};

/// The process ended before it called `start()`.
pub(super) fn exited_early(exit: Exit, stderr: &[String]) -> Failure {
    let why = match exit {
        Exit::Code(0) => "Nothing called start() on an instance of ControllerPlugin",
        Exit::Code(1) => "An exception ended it",
        other => hint(other, true),
    };
    let text = format!(
        "the plugin ended with {} before it called start() through src.controller_plugin. {why}",
        exit_text(exit)
    );
    Failure::new(Reason::ExitedEarly, with_lines(text, stderr))
}

/// It did not call `start()` in time.
pub(super) fn start_timed_out(seconds: u32, stderr: &[String]) -> Failure {
    let text = format!(
        "the plugin was started but did not call start() through src.controller_plugin within {seconds} s. \
         It may wait for something while it is imported, or bring a module of that name of its own"
    );
    Failure::new(Reason::StartTimeout, with_lines(text, stderr))
}

/// The process ended later, and not by our doing.
pub(super) fn crashed(exit: Exit, ran_for_millis: u64, stderr: &[String]) -> Failure {
    let text = match exit {
        Exit::Code(0) => format!(
            "the plugin ended of its own will after {}.{} s: its _start() returned. It is started again; \
             a plugin that wants to wait for work stays in _start()",
            ran_for_millis / 1000,
            ran_for_millis % 1000 / 100,
        ),
        Exit::Code(1) => format!(
            "the plugin ended with exit code 1 after {}.{} s: an exception left its _start()",
            ran_for_millis / 1000,
            ran_for_millis % 1000 / 100,
        ),
        _ => return failure::crashed(exit, ran_for_millis, stderr),
    };
    Failure::new(Reason::Crashed, with_lines(text, stderr))
}

/// The process ended while no sidecar ran.
pub(super) fn ended_unseen(exit: Exit) -> Failure {
    let message = format!(
        "the plugin ended with {} while no sidecar ran",
        exit_text(exit)
    );
    Failure::new(Reason::Crashed, message)
}
