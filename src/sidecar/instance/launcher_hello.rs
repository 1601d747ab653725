//! The launcher's greeting: it tells what runs, and the instance finds its place in that. Here a
//! plugin is taken over from an earlier sidecar process.

use patchbay_launcher::control::{self, Exit, Hello, Line, StartId};
use patchbay_protocol::reason::Reason;

use crate::family::{self, SeenOutput};

use super::failure::Failure;
use super::stop::{Step, Why};
use super::{
    Action, EndedBy, Gone, LastExit, Launcher, Machine, Now, Process, Resumed, Stage, State,
    start_seconds,
};

impl Machine {
    pub(super) fn on_hello(&mut self, now: Now, hello: Hello, actions: &mut Vec<Action>) {
        let another = self
            .launcher_id
            .is_some_and(|known| known != hello.launcher_id);
        self.launcher_id = Some(hello.launcher_id);
        self.launcher = Launcher::Up {
            terminating: hello.terminating,
        };
        if another {
            // A new container: whatever ran ended with the old one, and the kubelet has its own pauses.
            self.lose_process(now, actions);
            if let Some(resumed) = self.resumed.take() {
                actions.push(Action::Forget(resumed.start_id, Gone::Unseen));
            }
            self.restarts = 0;
            self.started_in_container = false;
            self.backoff.reset();
            self.next_start_ms = 0;
            self.state = State::Idle;
        }
        match hello.state {
            control::State::Idle => {
                // The order was lost with the connection.
                if let State::Alive(process) = &self.state {
                    actions.push(Action::Forget(process.start_id, Gone::Unseen));
                    self.state = State::Idle;
                }
            }
            control::State::Running {
                start_id,
                started_at_ms,
                ..
            } => {
                self.on_runs(now, start_id, started_at_ms, hello.head, actions);
            }
            control::State::Exited {
                start_id,
                exit,
                at_ms,
            } => {
                if self.is_current(start_id) {
                    self.on_exit(now, exit, at_ms, actions);
                } else if let Some(resumed) =
                    self.resumed.take_if(|resumed| resumed.start_id == start_id)
                {
                    actions.push(Action::Forget(start_id, Gone::Ended(exit)));
                    self.on_ended_unseen(now, &resumed, exit, at_ms);
                } else if let State::Alive(process) = &self.state {
                    actions.push(Action::Forget(process.start_id, Gone::Unseen));
                    self.state = State::Idle;
                }
            }
        }
        if hello.terminating {
            self.on_terminating(now, actions);
        }
    }

    /// The launcher has another name: its container was restarted.
    pub(super) fn lose_process(&mut self, now: Now, actions: &mut Vec<Action>) {
        let was = match std::mem::replace(&mut self.state, State::Idle) {
            State::Alive(process) => {
                actions.push(Action::Forget(process.start_id, Gone::Unseen));
                !matches!(process.stage, Stage::Stopping(_))
            }
            // What an earlier sidecar left behind may have ended in order.
            State::Idle => self.lost_sight,
            State::BackingOff { .. } => false,
        };
        if was && self.failure.is_none() {
            let message = "the plugin container ended together with the plugin, for example because its memory limit was reached; \
                           the container's last state says more";
            self.failure = Some(Failure::new(Reason::Crashed, message));
            tracing::warn!(at_ms = now.wall, "{message}");
        }
    }

    pub(super) fn on_runs(
        &mut self,
        now: Now,
        start_id: StartId,
        started_at_ms: u64,
        head: Vec<Line>,
        actions: &mut Vec<Action>,
    ) {
        if let State::Alive(process) = &mut self.state
            && process.start_id == start_id
        {
            process.started_at_ms = started_at_ms;
            if let Stage::Starting { seen, .. } = &mut process.stage {
                // The first lines are told again from the beginning.
                *seen = SeenOutput::default();
                self.on_head(now, head, actions);
            }
            return;
        }
        if let State::Alive(process) = &self.state {
            actions.push(Action::Forget(process.start_id, Gone::Unseen));
        }
        match self.resumed.take_if(|resumed| resumed.start_id == start_id) {
            Some(resumed) => self.resume(now, resumed, started_at_ms, head, actions),
            None => {
                tracing::warn!(%start_id, "a plugin process runs that no record tells of; it is stopped and started again");
                let mut process = Process::new(start_id, now.mono);
                process.started_at_ms = started_at_ms;
                self.state = State::Alive(Box::new(process));
                self.stop(now, Why::Unknown, Step::Term, actions);
            }
        }
    }

    /// Takes over a running process from an earlier sidecar.
    pub(super) fn resume(
        &mut self,
        now: Now,
        resumed: Resumed,
        started_at_ms: u64,
        head: Vec<Line>,
        actions: &mut Vec<Action>,
    ) {
        self.reattachments += 1;
        self.lost_sight = false;
        self.restarts = resumed.restarts;
        self.started_in_container = true;
        let age = now.wall.saturating_sub(started_at_ms);
        let mut process = Process::new(resumed.start_id, now.mono);
        process.started_at_ms = started_at_ms;
        let left = (u64::from(start_seconds(&resumed.config)) * 1000).saturating_sub(age);
        let left = left.max(family::of(&resumed.config.protocol).takeover_timeout_ms());
        process.stage = Stage::Starting {
            deadline: now.mono + left,
            seen: SeenOutput::default(),
        };
        process.config = Some(resumed.config);
        self.state = State::Alive(Box::new(process));
        match resumed.announced {
            Some((line, millis)) => self.on_known_announcement(now, line, millis, actions),
            None => self.on_head(now, head, actions),
        }
    }

    pub(super) fn on_head(&mut self, now: Now, head: Vec<Line>, actions: &mut Vec<Action>) {
        for line in head {
            self.on_line(now, line, actions);
        }
    }

    pub(super) fn on_ended_unseen(&mut self, now: Now, resumed: &Resumed, exit: Exit, at_ms: u64) {
        self.last_exit = Some(LastExit {
            exit,
            ended_by: EndedBy::Itself,
            at_ms,
        });
        let family = family::of(&resumed.config.protocol);
        let failure = family.ended_unseen(exit, resumed.announced.is_some());
        self.back_off(now, 0, failure);
    }
}
