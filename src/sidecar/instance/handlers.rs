//! What each event does to the instance: configuration, launcher, ends of the process.

use patchbay_launcher::control::{self, Exit, Refusal, StartId};
use patchbay_protocol::pod_config::PodConfig;

use crate::family::{self, EarlyExit};

use super::failure;
use super::stop::{Step, Why};
use super::{Action, EndedBy, Event, Gone, LastExit, Launcher, Machine, Now, Stage, State};

impl Machine {
    pub(super) fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Configured(config) => self.on_config(now, config, actions),
            Event::ConfigurationUnreadable(why) => self.config_error = Some(why),
            Event::Connected(hello) => self.on_hello(now, hello, actions),
            Event::Disconnected => self.launcher = Launcher::Lost { since: now.mono },
            Event::Launcher(event) => self.on_launcher(now, event, actions),
            Event::Released => self.released = true,
            Event::NotOrdered(start_id, failure) => {
                if self.is_current(start_id) {
                    actions.push(Action::Forget(start_id, Gone::Unseen));
                    self.back_off(now, 0, failure);
                }
            }
            Event::Greeted(greeting) if self.is_current(greeting.start_id) => {
                self.on_greeting(now, greeting, actions);
            }
            Event::Dialled(start_id, outcome) if self.is_current(start_id) => {
                self.on_dialled(now, outcome, actions)
            }
            Event::ConnectionBroken(start_id, failure) if self.is_current(start_id) => {
                self.on_broken(now, failure, actions)
            }
            Event::Health(start_id, health) if self.is_current(start_id) => {
                self.on_health(now, health, actions)
            }
            Event::Services(start_id, services) if self.is_current(start_id) => {
                if let State::Alive(process) = &mut self.state {
                    process.services = Some(services);
                }
            }
            Event::Warning(start_id, text) if self.is_current(start_id) => {
                if let State::Alive(process) = &mut self.state {
                    process.warn(text);
                }
            }
            Event::Drained(start_id) if self.is_current(start_id) => self.on_drained(now, actions),
            Event::ShutdownAnswered(start_id, answer) if self.is_current(start_id) => {
                self.on_shutdown(now, &answer, actions);
            }
            Event::PortTaken(port) => {
                self.port_taken = match (port, self.port_taken) {
                    (Some(port), Some((_, since))) => Some((port, since)),
                    (Some(port), None) => Some((port, now.mono)),
                    (None, _) => None,
                };
            }
            Event::Leaving => self.leaving = true,
            // About a start that is over, or just the time.
            Event::Greeted(_)
            | Event::Dialled(..)
            | Event::ConnectionBroken(..)
            | Event::Health(..)
            | Event::Services(..)
            | Event::Warning(..)
            | Event::Drained(_)
            | Event::ShutdownAnswered(..)
            | Event::Tick => {}
        }
    }

    pub(super) fn is_current(&self, start_id: StartId) -> bool {
        matches!(&self.state, State::Alive(process) if process.start_id == start_id)
    }

    fn on_config(&mut self, now: Now, config: Box<PodConfig>, actions: &mut Vec<Action>) {
        self.config_error = None;
        self.backoff.limit(&config.restart);
        let changed = self
            .config
            .as_ref()
            .is_some_and(|before| before.needs_plugin_restart(&config));
        if changed && matches!(self.state, State::BackingOff { .. }) {
            // What failed may be repaired by the change.
            self.backoff.reset();
            self.next_start_ms = 0;
            self.state = State::Idle;
        }
        if let State::Alive(process) = &mut self.state
            && let Stage::Running(running) = &mut process.stage
        {
            // A shorter period counts at once.
            let period = u64::from(config.health.period_seconds.max(1)) * 1000;
            running.due = running.due.min(now.mono + period);
        }
        self.config = Some(config);
        self.compare_config(now, actions);
    }

    /// Stops a plugin that was started with another configuration than the one in force.
    pub(super) fn compare_config(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let (Some(config), State::Alive(process)) = (&self.config, &self.state)
            && process.config.as_ref().is_some_and(|with| with.needs_plugin_restart(config))
            // Dialling takes no longer than a few seconds; then the stop can be a gentle one.
            && !matches!(process.stage, Stage::Dialling)
            && !self.leaving
        {
            self.stop(now, Why::Reconfigured, Step::Drain, actions);
        }
    }

    fn on_launcher(&mut self, now: Now, event: control::Event, actions: &mut Vec<Action>) {
        match event {
            control::Event::Started {
                start_id,
                started_at_ms,
                ..
            } => {
                if let State::Alive(process) = &mut self.state
                    && process.start_id == start_id
                {
                    process.started_at_ms = started_at_ms;
                    process.since = now.mono;
                }
            }
            control::Event::Refused { start_id, refusal } if self.is_current(start_id) => {
                self.on_refusal(now, start_id, &refusal, actions);
            }
            control::Event::Line(line) if self.is_current(line.start_id) => {
                self.on_line(now, line, actions)
            }
            control::Event::Exited {
                start_id,
                exit,
                at_ms,
            } if self.is_current(start_id) => {
                self.on_exit(now, exit, at_ms, actions);
            }
            control::Event::Terminating => self.on_terminating(now, actions),
            // Hello comes as a connection; the others are about a start that is over, or for logs.
            control::Event::Hello(_)
            | control::Event::Refused { .. }
            | control::Event::Line(_)
            | control::Event::Exited { .. }
            | control::Event::Dropped { .. } => {}
        }
    }

    pub(super) fn on_terminating(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.launcher = Launcher::Up { terminating: true };
        self.stop(now, Why::Terminating, Step::Drain, actions);
        if matches!(self.state, State::BackingOff { .. }) {
            self.state = State::Idle;
        }
    }

    fn on_refusal(
        &mut self,
        now: Now,
        start_id: StartId,
        refusal: &Refusal,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Forget(start_id, Gone::Unseen));
        let config = match std::mem::replace(&mut self.state, State::Idle) {
            State::Alive(process) => process.config,
            State::Idle | State::BackingOff { .. } => None,
        };
        match refusal {
            Refusal::Terminating => self.launcher = Launcher::Up { terminating: true },
            Refusal::Busy => {
                // Another process runs that we were not told of: its state comes with a new connection.
                actions.push(Action::Reconnect);
                self.state = State::BackingOff {
                    until: now.mono + 1000,
                };
            }
            _ => {
                if let Some(failure) = config.and_then(|config| failure::refused(&config, refusal))
                {
                    self.back_off(now, 0, failure);
                }
            }
        }
    }

    pub(super) fn on_exit(&mut self, now: Now, exit: Exit, at_ms: u64, actions: &mut Vec<Action>) {
        let State::Alive(mut process) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        actions.push(Action::Forget(process.start_id, Gone::Ended(exit)));
        let ready_for = process.ready_for(now.mono);
        let ran_for = at_ms.saturating_sub(process.started_at_ms);
        let lines = process.stderr.make_contiguous();
        let mut ended_by = EndedBy::Itself;
        let family = process
            .config
            .as_deref()
            .map(|config| family::of(&config.protocol));
        let failure = match process.stage {
            Stage::Starting { seen, .. } => family.map(|family| {
                family.exited_early(&EarlyExit {
                    exit,
                    partial: seen.partial.as_ref().map(|line| line.bytes.as_slice()),
                    wrote_to_stdout: process.wrote_to_stdout,
                    stderr: lines,
                })
            }),
            Stage::Dialling | Stage::Running(_) | Stage::Ready => {
                family.map(|family| family.crashed(exit, ran_for, lines))
            }
            Stage::Stopping(stopping) => {
                ended_by = stopping.ended_by(exit);
                match stopping.why {
                    Why::Failed(failure) => Some(failure),
                    Why::Reconfigured => {
                        self.backoff.reset();
                        None
                    }
                    Why::Terminating | Why::Unknown => None,
                }
            }
        };
        self.last_exit = Some(LastExit {
            exit,
            ended_by,
            at_ms,
        });
        match failure {
            Some(failure)
                if self.launcher_serves() || !matches!(self.launcher, Launcher::Up { .. }) =>
            {
                self.back_off(now, ready_for, failure);
            }
            Some(failure) => self.failure = Some(failure),
            None => {}
        }
    }
}
