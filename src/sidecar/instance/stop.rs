//! The steps of a stop: drain, Shutdown call, wait, SIGTERM, SIGKILL of the process group; those that
//! make sense for the plugin's family. A stop begins at any step and is over as soon as the process
//! is gone.

use patchbay_launcher::control::Exit;

use crate::family::ShutdownAnswer;

use super::failure::Failure;
use super::{Action, EndedBy, Machine, Now, Stage, State};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// The steps for a process of which nothing is known.
const SIGNALS: &[Step] = &[Step::Term, Step::Kill];
/// Milliseconds after which SIGKILL is sent again: the order may have been lost with a connection.
const KILL_AGAIN: u64 = 5_000;
/// The one who drains or calls keeps his own limit; this much later he is not waited for.
const SLACK: u64 = 500;

/// Why the process has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The container is being stopped.
    Terminating,
    /// The configuration changed in a way that only a start takes over.
    Reconfigured,
    /// Something failed; the next start waits for its pause.
    Failed(Failure),
    /// A process that nobody of ours knows.
    Unknown,
}

/// A step of a stop. The later is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// No new work; what is under way may end.
    Drain,
    /// The Shutdown call.
    Call,
    /// The plugin was asked and may exit.
    Wait,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) why: Why,
    pub(super) step: Step,
    pub(super) until: u64,
}

impl Stopping {
    pub(super) fn ended_by(&self, exit: Exit) -> EndedBy {
        match self.step {
            // It was quicker than our signal.
            Step::Kill if exit != Exit::Signal(SIGKILL) => EndedBy::Itself,
            Step::Drain => EndedBy::Itself,
            Step::Call | Step::Wait => EndedBy::Shutdown,
            Step::Term => EndedBy::Term,
            Step::Kill => EndedBy::Kill,
        }
    }
}

impl Machine {
    /// Begins a stop at `first`, or at a later step when the earlier ones make no sense. A stop that
    /// is under way keeps its step; the end of the container is the stronger reason.
    pub(super) fn stop(&mut self, now: Now, why: Why, first: Step, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let first = match &mut process.stage {
            Stage::Stopping(under_way) => {
                if why == Why::Terminating {
                    under_way.why = why;
                }
                return;
            }
            // Without a connection nobody can be asked.
            Stage::Starting { .. } | Stage::Dialling => first.max(Step::Term),
            Stage::Running(_) | Stage::Ready => first,
        };
        process.stage = Stage::Stopping(Stopping {
            why,
            step: first,
            until: now.mono,
        });
        self.enter(now, first, actions);
    }

    /// The time of a step is up.
    pub(super) fn next_step(&mut self, now: Now, actions: &mut Vec<Action>) {
        let State::Alive(process) = &self.state else {
            return;
        };
        let Stage::Stopping(stopping) = &process.stage else {
            return;
        };
        let next = match stopping.step {
            Step::Drain => Step::Call,
            Step::Call => Step::Wait,
            Step::Wait => Step::Term,
            Step::Term | Step::Kill => Step::Kill,
        };
        self.enter(now, next, actions);
    }

    pub(super) fn on_drained(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.is_at_step(Step::Drain) {
            self.enter(now, Step::Call, actions);
        }
    }

    pub(super) fn on_shutdown(
        &mut self,
        now: Now,
        answer: &ShutdownAnswer,
        actions: &mut Vec<Action>,
    ) {
        if self.is_at_step(Step::Call) {
            // Without a controller only signals are left.
            let next = if answer.asked() {
                Step::Wait
            } else {
                Step::Term
            };
            self.enter(now, next, actions);
        }
    }

    fn is_at_step(&self, step: Step) -> bool {
        matches!(&self.state, State::Alive(process) if matches!(&process.stage, Stage::Stopping(stopping) if stopping.step == step))
    }

    fn enter(&mut self, now: Now, mut step: Step, actions: &mut Vec<Action>) {
        let State::Alive(process) = &self.state else {
            return;
        };
        let limits = self.shutdown(process);
        let start_id = process.start_id;
        // A phase of no length is left out.
        if step == Step::Drain && limits.drain_seconds == 0 {
            step = Step::Call;
        }
        // Without a Shutdown call only signals are left.
        if step == Step::Call && limits.rpc_seconds == 0 {
            step = Step::Term;
        }
        let sensible = process
            .family()
            .map_or(SIGNALS, |family| family.stop_steps());
        step = sensible
            .iter()
            .copied()
            .find(|one| *one >= step)
            .unwrap_or(Step::Kill);
        let millis = |seconds: u32| u64::from(seconds) * 1000;
        let until = match step {
            Step::Drain => {
                actions.push(Action::Drain(start_id, millis(limits.drain_seconds)));
                now.mono + millis(limits.drain_seconds) + SLACK
            }
            Step::Call => {
                actions.push(Action::CallShutdown(start_id, millis(limits.rpc_seconds)));
                now.mono + millis(limits.rpc_seconds) + SLACK
            }
            Step::Wait => now.mono + millis(limits.exit_seconds),
            Step::Term => {
                actions.push(Action::Signal(start_id, SIGTERM));
                now.mono + millis(limits.term_seconds)
            }
            Step::Kill => {
                actions.push(Action::Signal(start_id, SIGKILL));
                now.mono + KILL_AGAIN
            }
        };
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if let Stage::Stopping(stopping) = &mut process.stage {
            stopping.step = step;
            stopping.until = until;
        }
    }
}
