//! The family `pcp`: its first word on the jobs socket is its handshake, and its process is
//! all that is watched. Also its words for what went wrong.

use patchbay_launcher::control::Exit;
use patchbay_protocol::pod_config::{PcpController, PodConfig, Protocol};
use patchbay_protocol::reason::Reason;

use crate::jobs::Greeting;

use super::trouble::{Trouble, exit_text, hint, with_lines};
use super::{Action, Machine, Now, Stage, State};

/// A process that was taken over gets this long for its first word, in milliseconds: its library
/// repeats a call that no sidecar answered.
pub(super) const GREETING_AGAIN: u64 = 10_000;
/// The command that the library shows in place of a list that it could not read.
const PLACEHOLDER: &str = "Functionality Error";

impl Machine {
    /// The plugin called `start()`: from here on it may ask for jobs, and workers may connect.
    pub(super) fn hear_greeting(
        &mut self,
        now: Now,
        greeting: Box<Greeting>,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let is_ours = process
            .config
            .as_deref()
            .is_some_and(|config| family(config).is_some());
        if !is_ours || matches!(process.stage, Stage::Stopping(_)) {
            return;
        }
        for warning in &greeting.warnings {
            process.warn(warning.clone());
        }
        let is_placeholder = greeting.commands.iter().any(|one| one.name == PLACEHOLDER);
        if is_placeholder && !process.warnings.iter().any(|one| one.contains(PLACEHOLDER)) {
            process.warn(format!(
                "the plugin advertises the placeholder command \"{PLACEHOLDER}\": its list of commands is empty or could not be read"
            ));
        }
        process.greeting = Some(greeting);
        self.trouble = None;
        if !matches!(process.stage, Stage::Greeted) {
            process.stage = Stage::Greeted;
            process.ready_since = Some(now.mono);
            actions.push(Action::Admit(process.start_id));
            self.compare_config(now, actions);
        }
    }
}

/// The family's settings, when it is this family.
pub(super) fn family(config: &PodConfig) -> Option<&PcpController> {
    match &config.protocol {
        Protocol::PcpController(family) => Some(family),
        Protocol::GoPlugin(_) => None,
    }
}

/// The process ended before its first word.
pub(super) fn exited_early(exit: Exit, stderr: &[String]) -> Trouble {
    let why = match exit {
        Exit::Code(0) => "Nothing called start() on an instance of ControllerPlugin",
        Exit::Code(1) => "An exception ended it",
        other => hint(other, true),
    };
    let text = format!(
        "the plugin ended with {} before it called start() through src.controller_plugin. {why}",
        exit_text(exit)
    );
    Trouble::new(Reason::ExitedEarly, with_lines(text, stderr))
}

/// No word in time.
pub(super) fn start_timeout(seconds: u32, stderr: &[String]) -> Trouble {
    let text = format!(
        "the plugin was started but did not call start() through src.controller_plugin within {seconds} s. \
         It may wait for something while it is imported, or bring a module of that name of its own"
    );
    Trouble::new(Reason::StartTimeout, with_lines(text, stderr))
}

/// The process ended after its first word and not by our doing.
pub(super) fn ended(exit: Exit, ran_for_millis: u64, stderr: &[String]) -> Trouble {
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
        _ => return super::trouble::crashed(exit, ran_for_millis, stderr),
    };
    Trouble::new(Reason::Crashed, with_lines(text, stderr))
}
