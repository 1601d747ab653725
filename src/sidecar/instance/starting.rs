//! Until a plugin is ready or has announced an address: what its family makes of its lines and of
//! its introduction.

use patchbay_launcher::control::{Line, LineEnd, Stream};
use patchbay_protocol::escape::printable;

use super::{Action, Announced, Machine, Now, Process, STDERR_LINE, STDERR_LINES, Stage, State};
use crate::family::{self, PluginFamily, Progress};
use crate::jobs::Greeting;

impl Process {
    /// What depends on the family; `None` for a process that we know nothing of.
    pub(super) fn family(&self) -> Option<&dyn PluginFamily> {
        let config = self.config.as_deref()?;
        Some(family::of(&config.protocol))
    }

    /// Its age in milliseconds.
    fn age(&self, now: Now) -> u64 {
        let seen_for = now.mono.saturating_sub(self.since);
        match now.wall.checked_sub(self.started_at_ms) {
            // A process that was found running: only the wall clock knows its age.
            Some(age) if self.started_at_ms > 0 && age > seen_for + 1000 => age,
            _ => seen_for,
        }
    }
}

impl Machine {
    pub(super) fn on_line(&mut self, now: Now, line: Line, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if line.stream == Stream::Stderr {
            if process.stderr.len() == STDERR_LINES {
                process.stderr.pop_front();
            }
            process
                .stderr
                .push_back(printable(&line.bytes, STDERR_LINE));
            return;
        }
        let empty_end = line.end == LineEnd::Eof && line.bytes.is_empty();
        process.wrote_to_stdout |= !empty_end;
        let (Stage::Starting { seen, .. }, Some(config)) = (&mut process.stage, &process.config)
        else {
            return;
        };
        let progress = family::of(&config.protocol).on_stdout(seen, line, now.mono);
        let age = process.age(now);
        self.on_progress(now, progress, age, actions);
    }

    /// A line without line end has been waited with for long enough.
    pub(super) fn on_partial_line(&mut self, now: Now, line: Vec<u8>, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let (Stage::Starting { seen, .. }, Some(config)) = (&mut process.stage, &process.config)
        else {
            return;
        };
        let progress = family::of(&config.protocol).on_partial_line(seen, line);
        let age = process.age(now);
        self.on_progress(now, progress, age, actions);
    }

    /// A process that was taken over had announced its address to an earlier sidecar, `millis` after
    /// its start.
    pub(super) fn on_known_announcement(
        &mut self,
        now: Now,
        line: Vec<u8>,
        millis: u64,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &self.state else {
            return;
        };
        let Some(family) = process.family() else {
            return;
        };
        let progress = family.on_known_announcement(line);
        self.on_progress(now, progress, millis, actions);
    }

    /// The plugin introduced itself: from here on it may ask for jobs, and workers may connect.
    pub(super) fn on_greeting(
        &mut self,
        now: Now,
        greeting: Box<Greeting>,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if matches!(process.stage, Stage::Stopping(_)) {
            return;
        }
        let Some(warnings) = process
            .family()
            .and_then(|family| family.on_greeting(&greeting))
        else {
            return;
        };
        for warning in warnings {
            process.warn(warning);
        }
        process.greeting = Some(greeting);
        self.failure = None;
        if !matches!(process.stage, Stage::Ready) {
            self.on_progress(now, Progress::Ready, 0, actions);
        }
    }

    /// `millis` is the time from the start of the process to this.
    fn on_progress(
        &mut self,
        now: Now,
        progress: Progress,
        millis: u64,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        match progress {
            Progress::Waiting => {}
            Progress::Failed(failure) => self.fail(now, failure, actions),
            Progress::Ready => {
                process.stage = Stage::Ready;
                process.ready_since = Some(now.mono);
                self.failure = None;
                actions.push(Action::Admit(process.start_id));
                self.compare_config(now, actions);
            }
            Progress::Announced(line, handshake) => {
                let Some(config) = process.config.clone() else {
                    return;
                };
                for warning in &handshake.warnings {
                    process.warn(warning.clone());
                }
                let announced = Announced {
                    line,
                    handshake,
                    config,
                    millis,
                };
                process.announced = Some(announced.clone());
                process.stage = Stage::Dialling;
                actions.push(Action::Dial(process.start_id, announced));
            }
        }
    }
}
