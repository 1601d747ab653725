//! What the time demands: timers that are due, starts that nothing hinders any more.

use patchbay_protocol::reason::Reason;

use crate::family;

use super::failure::Failure;
use super::stop::{Step, Why};
use super::{Action, LAUNCHER_GRACE, Launcher, Machine, Now, PORT_GRACE, Running, Stage, State};

impl Machine {
    /// When [`Event::Tick`] is due at the latest, on the clock that never jumps.
    pub fn wake_at(&self) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        let mut at = |time: u64| earliest = Some(earliest.map_or(time, |known| known.min(time)));
        if let Launcher::Lost { since } = self.launcher {
            at(since + LAUNCHER_GRACE);
        }
        match &self.state {
            State::Idle => {}
            State::BackingOff { until } => {
                if self.missing().is_none() {
                    at(*until);
                }
            }
            State::Alive(process) => match &process.stage {
                Stage::Starting { deadline, seen } => {
                    at(*deadline);
                    if let Some(partial) = &seen.partial {
                        at(partial.until);
                    }
                }
                Stage::Dialling => {}
                Stage::Running(Running { asked, due, .. }) => {
                    if !asked {
                        at(*due);
                    }
                    self.port_taken_until().into_iter().for_each(at);
                }
                Stage::Ready => self.port_taken_until().into_iter().for_each(at),
                Stage::Stopping(stopping) => at(stopping.until),
            },
        }
        earliest
    }

    /// Until when another program may hold our session port.
    fn port_taken_until(&self) -> Option<u64> {
        let (_, since) = self.port_taken.filter(|_| !self.leaving)?;
        Some(since + PORT_GRACE)
    }

    /// Does what only the time or the sum of the circumstances demands.
    pub(super) fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Launcher::Lost { since } = self.launcher
            && now.mono >= since + LAUNCHER_GRACE
        {
            self.launcher = Launcher::Unseen;
            self.detach(actions);
        }
        if let State::BackingOff { until } = self.state
            && now.mono >= until
            && self.missing().is_none()
        {
            self.state = State::Idle;
        }
        if matches!(self.state, State::Idle) && self.missing().is_none() {
            self.start(now, actions);
        }
        self.settle_process(now, actions);
    }

    fn settle_process(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self
            .port_taken_until()
            .is_some_and(|until| now.mono >= until)
            && let State::Alive(process) = &self.state
            && matches!(process.stage, Stage::Running(_) | Stage::Ready)
            && let Some((port, _)) = self.port_taken.take()
        {
            let message = format!(
                "another program of the pod listens on port {port}, which is ours; the plugin is started again"
            );
            let failure = Failure::new(Reason::PortTaken, message);
            return self.stop(now, Why::Failed(failure), Step::Drain, actions);
        }
        let State::Alive(process) = &mut self.state else {
            return;
        };
        match &mut process.stage {
            Stage::Starting { deadline, seen } => {
                if let Some(due) = seen.partial.take_if(|partial| now.mono >= partial.until) {
                    self.on_partial_line(now, due.bytes, actions);
                } else if now.mono >= *deadline
                    && let Some(config) = &process.config
                {
                    let lines = process.stderr.make_contiguous();
                    let failure = family::of(&config.protocol)
                        .start_timed_out(process.wrote_to_stdout, lines);
                    self.fail(now, failure, actions);
                }
            }
            Stage::Running(running) => {
                if !running.asked && now.mono >= running.due {
                    running.asked = true;
                    let millis = process.config.as_deref().map_or(2000, |config| {
                        u64::from(config.health.timeout_seconds.max(1)) * 1000
                    });
                    actions.push(Action::CheckHealth(process.start_id, millis));
                }
            }
            Stage::Stopping(stopping) => {
                if now.mono >= stopping.until {
                    self.next_step(now, actions);
                }
            }
            Stage::Dialling | Stage::Ready => {}
        }
    }
}
