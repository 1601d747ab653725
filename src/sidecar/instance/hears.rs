//! What each event does to the instance.

use patchbay_launcher::control::{self, Exit, Hello, Line, LineEnd, Refusal, StartId, Stream};
use patchbay_protocol::escape::printable;
use patchbay_protocol::handshake::{self, Asked, Expect};
use patchbay_protocol::pod_config::{OnFailure, PodConfig, Protocol, Tls};
use patchbay_protocol::reason::Reason;

use crate::go_plugin::health::Health;

use super::stop::{Step, Why};
use super::trouble::{self, Trouble};
use super::{
    Action, Announced, Dialled, EndedBy, Event, FIRST_HEALTH, FIRST_HEALTH_PAUSE, HELD_LINE, Held,
    LastExit, Launcher, Machine, Now, Process, Resumed, Running, STDERR_LINE, STDERR_LINES, Stage,
    State, UNSERVED_PAUSE, Verdict,
};

impl Machine {
    pub(super) fn hear(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Configured(config) => self.hear_config(now, config, actions),
            Event::ConfigurationUnreadable(why) => self.config_trouble = Some(why),
            Event::Connected(hello) => self.hear_hello(now, hello, actions),
            Event::Disconnected => self.launcher = Launcher::Lost { since: now.mono },
            Event::Launcher(event) => self.hear_launcher(now, event, actions),
            Event::Released => self.released = true,
            Event::NotOrdered(start_id, trouble) => {
                if self.is_current(start_id) {
                    actions.push(Action::Forget(start_id));
                    self.back_off(now, 0, trouble);
                }
            }
            Event::Dialled(start_id, outcome) if self.is_current(start_id) => {
                self.hear_dialled(now, outcome, actions)
            }
            Event::LinkBroken(start_id, trouble) if self.is_current(start_id) => {
                self.hear_broken(now, trouble, actions)
            }
            Event::Health(start_id, health) if self.is_current(start_id) => {
                self.hear_health(now, health, actions)
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
            Event::Drained(start_id) if self.is_current(start_id) => {
                self.hear_drained(now, actions)
            }
            Event::ShutdownAnswered(start_id, answer) if self.is_current(start_id) => {
                self.hear_shutdown(now, &answer, actions);
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
            Event::Dialled(..)
            | Event::LinkBroken(..)
            | Event::Health(..)
            | Event::Services(..)
            | Event::Warning(..)
            | Event::Drained(_)
            | Event::ShutdownAnswered(..)
            | Event::Tick => {}
        }
    }

    fn is_current(&self, start_id: StartId) -> bool {
        matches!(&self.state, State::Alive(process) if process.start_id == start_id)
    }

    fn hear_config(&mut self, now: Now, config: Box<PodConfig>, actions: &mut Vec<Action>) {
        self.config_trouble = None;
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
        self.config = Some(config);
        self.compare_config(now, actions);
    }

    /// Stops a plugin that was started with another configuration than the one in force.
    fn compare_config(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let (Some(config), State::Alive(process)) = (&self.config, &self.state)
            && process.config.as_ref().is_some_and(|with| with.needs_plugin_restart(config))
            // Dialling takes no longer than a few seconds; then the stop can be a gentle one.
            && !matches!(process.stage, Stage::Dialling)
            && !self.leaving
        {
            self.stop(now, Why::Reconfigured, Step::Drain, actions);
        }
    }

    fn hear_hello(&mut self, now: Now, hello: Hello, actions: &mut Vec<Action>) {
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
            self.resumed = None;
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
                    actions.push(Action::Forget(process.start_id));
                    self.state = State::Idle;
                }
            }
            control::State::Running {
                start_id,
                started_at_ms,
                ..
            } => {
                self.hear_runs(now, start_id, started_at_ms, hello.head, actions);
            }
            control::State::Exited {
                start_id,
                exit,
                at_ms,
            } => {
                if self.is_current(start_id) {
                    self.hear_exit(now, exit, at_ms, actions);
                } else if let Some(resumed) =
                    self.resumed.take_if(|resumed| resumed.start_id == start_id)
                {
                    self.hear_ended_unseen(now, &resumed, exit, at_ms);
                } else if let State::Alive(process) = &self.state {
                    actions.push(Action::Forget(process.start_id));
                    self.state = State::Idle;
                }
            }
        }
        if hello.terminating {
            self.hear_terminating(now, actions);
        }
    }

    /// The launcher has another name: its container was started anew.
    fn lose_process(&mut self, now: Now, actions: &mut Vec<Action>) {
        let was = match std::mem::replace(&mut self.state, State::Idle) {
            State::Alive(process) => {
                actions.push(Action::Forget(process.start_id));
                !matches!(process.stage, Stage::Stopping(_))
            }
            State::Idle => self.resumed.is_some(),
            State::BackingOff { .. } => false,
        };
        if was && self.trouble.is_none() {
            let message = "the plugin container ended together with the plugin, for example because its memory limit was reached; \
                           the container's last state says more";
            self.trouble = Some(Trouble::new(Reason::Crashed, message));
            tracing::warn!(at_ms = now.wall, "{message}");
        }
    }

    fn hear_runs(
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
            if let Stage::Starting { skipped, held, .. } = &mut process.stage {
                // The first lines are told again from the beginning.
                *skipped = 0;
                *held = None;
                self.hear_head(now, head, actions);
            }
            return;
        }
        if let State::Alive(process) = &self.state {
            actions.push(Action::Forget(process.start_id));
        }
        match self.resumed.take_if(|resumed| resumed.start_id == start_id) {
            Some(resumed) => self.resume(now, resumed, started_at_ms, head, actions),
            None => {
                tracing::warn!(%start_id, "a plugin process runs that no record tells of; it is stopped and started anew");
                let mut process = Process::new(start_id, now.mono);
                process.started_at_ms = started_at_ms;
                self.state = State::Alive(Box::new(process));
                self.stop(now, Why::Unknown, Step::Term, actions);
            }
        }
    }

    /// Takes over a running process from an earlier sidecar.
    fn resume(
        &mut self,
        now: Now,
        resumed: Resumed,
        started_at_ms: u64,
        head: Vec<Line>,
        actions: &mut Vec<Action>,
    ) {
        self.reattachments += 1;
        self.restarts = resumed.restarts;
        self.started_in_container = true;
        let age = now.wall.saturating_sub(started_at_ms);
        let mut process = Process::new(resumed.start_id, now.mono);
        process.started_at_ms = started_at_ms;
        process.stage = Stage::Starting {
            deadline: now.mono
                + (u64::from(super::handshake_seconds(&resumed.config)) * 1000).saturating_sub(age),
            skipped: 0,
            held: None,
        };
        process.config = Some(resumed.config);
        self.state = State::Alive(Box::new(process));
        match resumed.announced {
            Some((line, millis)) => self.accept_or_fail(now, line, millis, actions),
            None => self.hear_head(now, head, actions),
        }
    }

    fn hear_head(&mut self, now: Now, head: Vec<Line>, actions: &mut Vec<Action>) {
        for line in head {
            self.hear_line(now, line, actions);
        }
    }

    fn hear_ended_unseen(&mut self, now: Now, resumed: &Resumed, exit: Exit, at_ms: u64) {
        self.last_exit = Some(LastExit {
            exit,
            ended_by: EndedBy::Itself,
            at_ms,
        });
        let trouble = match resumed.announced {
            Some(_) => trouble::crashed(exit, 0, &["it ended while no sidecar ran".to_owned()]),
            None => trouble::exited_early(&resumed.config, exit, None, false, &[]),
        };
        self.back_off(now, 0, trouble);
    }

    fn hear_launcher(&mut self, now: Now, event: control::Event, actions: &mut Vec<Action>) {
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
                self.hear_refusal(now, start_id, &refusal, actions);
            }
            control::Event::Line(line) if self.is_current(line.start_id) => {
                self.hear_line(now, line, actions)
            }
            control::Event::Exited {
                start_id,
                exit,
                at_ms,
            } if self.is_current(start_id) => {
                self.hear_exit(now, exit, at_ms, actions);
            }
            control::Event::Terminating => self.hear_terminating(now, actions),
            // Hello comes as a connection; the others are about a start that is over, or for logs.
            control::Event::Hello(_)
            | control::Event::Refused { .. }
            | control::Event::Line(_)
            | control::Event::Exited { .. }
            | control::Event::Dropped { .. } => {}
        }
    }

    fn hear_terminating(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.launcher = Launcher::Up { terminating: true };
        self.stop(now, Why::Terminating, Step::Drain, actions);
        if matches!(self.state, State::BackingOff { .. }) {
            self.state = State::Idle;
        }
    }

    fn hear_refusal(
        &mut self,
        now: Now,
        start_id: StartId,
        refusal: &Refusal,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Forget(start_id));
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
                if let Some(trouble) = config.and_then(|config| trouble::refused(&config, refusal))
                {
                    self.back_off(now, 0, trouble);
                }
            }
        }
    }

    fn hear_line(&mut self, now: Now, line: Line, actions: &mut Vec<Action>) {
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
        let Stage::Starting { held, .. } = &mut process.stage else {
            return;
        };
        match line.end {
            LineEnd::Newline => self.judge(now, line.bytes, actions),
            LineEnd::Eof if empty_end => {}
            LineEnd::Eof => {
                *held = Some(Held {
                    line: line.bytes,
                    until: now.mono + HELD_LINE,
                })
            }
            LineEnd::Cut => {
                let message = format!(
                    "the first line on stdout is too long to be a handshake (over {} bytes): {}. Something prints before the plugin serves; send it to stderr",
                    control::MAX_LINE,
                    printable(&line.bytes, 256)
                );
                self.reject(now, Trouble::new(Reason::NotAHandshake, message), actions);
            }
        }
    }

    /// A complete line of stdout before the handshake.
    pub(super) fn judge(&mut self, now: Now, line: Vec<u8>, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if handshake::looks_like_handshake(&line) {
            let millis = match now.wall.checked_sub(process.started_at_ms) {
                // A process that was found running: only the wall clock knows its age.
                Some(age)
                    if process.started_at_ms > 0
                        && age > now.mono.saturating_sub(process.since) + 1000 =>
                {
                    age
                }
                _ => now.mono.saturating_sub(process.since),
            };
            self.accept_or_fail(now, line, millis, actions);
        } else {
            let Some(config) = process.config.as_deref() else {
                return;
            };
            let trouble = match handshake::parse(&line, &expectation(config)) {
                Err(rejected) => Trouble::new(rejected.reason, rejected.message),
                Ok(_) => return,
            };
            self.reject(now, trouble, actions);
        }
    }

    /// A line that is no handshake: passed over while `skipLines` allows it.
    fn reject(&mut self, now: Now, trouble: Trouble, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.as_deref() else {
            return;
        };
        let Protocol::GoPlugin(family) = &config.protocol;
        if let Stage::Starting { skipped, .. } = &mut process.stage
            && *skipped < family.skip_lines
        {
            *skipped += 1;
            return;
        }
        self.fail(now, trouble, actions);
    }

    fn accept_or_fail(&mut self, now: Now, line: Vec<u8>, millis: u64, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.clone() else {
            return;
        };
        match handshake::parse(&line, &expectation(&config)) {
            Ok(handshake) => {
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
            Err(rejected) => self.fail(
                now,
                Trouble::new(rejected.reason, rejected.message),
                actions,
            ),
        }
    }

    fn hear_exit(&mut self, now: Now, exit: Exit, at_ms: u64, actions: &mut Vec<Action>) {
        let State::Alive(mut process) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        actions.push(Action::Forget(process.start_id));
        let ready_for = process.ready_for(now.mono);
        let ran_for = at_ms.saturating_sub(process.started_at_ms);
        let lines = process.stderr.make_contiguous();
        let mut ended_by = EndedBy::Itself;
        let trouble = match process.stage {
            Stage::Starting { held, .. } => {
                let config = process.config.as_deref();
                config
                    .map(|config| early_trouble(config, exit, held, process.wrote_to_stdout, lines))
            }
            Stage::Dialling | Stage::Running(_) => Some(trouble::crashed(exit, ran_for, lines)),
            Stage::Stopping(stopping) => {
                ended_by = stopping.ended_by(exit);
                match stopping.why {
                    Why::Failed(trouble) => Some(trouble),
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
        match trouble {
            Some(trouble)
                if self.launcher_serves() || !matches!(self.launcher, Launcher::Up { .. }) =>
            {
                self.back_off(now, ready_for, trouble);
            }
            Some(trouble) => self.trouble = Some(trouble),
            None => {}
        }
    }

    fn hear_dialled(
        &mut self,
        now: Now,
        outcome: Result<Dialled, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if !matches!(process.stage, Stage::Dialling) {
            return;
        }
        match outcome {
            Ok(dialled) => {
                process.tls = dialled.tls;
                process.stage = Stage::Running(Running {
                    since: now.mono,
                    verdict: Verdict::Pending,
                    failures: 0,
                    counted: now.mono,
                    due: now.mono,
                    asked: false,
                });
                self.compare_config(now, actions);
            }
            Err(trouble) => self.fail(now, trouble, actions),
        }
    }

    /// With TLS 1.3 a plugin that refuses our certificate says so only after the handshake.
    fn hear_broken(&mut self, now: Now, trouble: Trouble, actions: &mut Vec<Action>) {
        let State::Alive(process) = &self.state else {
            return;
        };
        if process.ready_since.is_none() && matches!(process.stage, Stage::Running(_)) {
            self.fail(now, trouble, actions);
        } else {
            self.hear_health(now, Health::Failed(trouble.message), actions);
        }
    }

    fn hear_health(&mut self, now: Now, health: Health, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.as_deref() else {
            return;
        };
        // The newest word counts for how often and how much.
        let wanted = self.config.as_deref().unwrap_or(config).health.clone();
        let period = u64::from(wanted.period_seconds.max(1)) * 1000;
        if health == Health::Unsupported {
            process.warn(
                "the plugin has no health service: only its connection is watched".to_owned(),
            );
        }
        let failure = if health.passes() {
            None
        } else {
            Some(health.to_string())
        };
        let Stage::Running(running) = &mut process.stage else {
            return;
        };
        running.asked = false;
        running.due = now.mono + period;
        let Some(failure) = failure else {
            running.failures = 0;
            running.verdict = Verdict::Serving;
            self.trouble = None;
            if process.ready_since.is_none() {
                process.ready_since = Some(now.mono);
                actions.push(Action::Admit(process.start_id));
                actions.push(Action::ListServices(process.start_id));
            }
            return;
        };
        let never_passed = process.ready_since.is_none();
        if never_passed && now.mono < running.since + FIRST_HEALTH {
            running.due = now.mono + FIRST_HEALTH_PAUSE;
            return;
        }
        if never_passed {
            // Its first answer is awaited eagerly, but failures count at the period's pace.
            running.due = now.mono + UNSERVED_PAUSE.min(period);
            if running.failures > 0 && now.mono < running.counted + period {
                running.verdict = Verdict::Failing(failure);
                return;
            }
        }
        running.failures = running.failures.saturating_add(1);
        running.counted = now.mono;
        let beyond = running.failures >= wanted.failure_threshold.max(1);
        if never_passed || beyond || matches!(running.verdict, Verdict::Failing(_)) {
            running.verdict = Verdict::Failing(failure.clone());
        }
        if beyond && wanted.on_failure == OnFailure::Restart && !self.leaving {
            let message = format!(
                "{failure} ({} times in a row); the plugin is started again",
                running.failures
            );
            self.stop(
                now,
                Why::Failed(Trouble::new(Reason::Unhealthy, message)),
                Step::Call,
                actions,
            );
        }
    }
}

/// The process ended before a line was accepted. A first line without line end is judged first:
/// one that is wrong anyway keeps its own reason.
fn early_trouble(
    config: &PodConfig,
    exit: Exit,
    held: Option<Held>,
    wrote: bool,
    stderr: &[String],
) -> Trouble {
    let Some(held) = held else {
        return trouble::exited_early(config, exit, None, wrote, stderr);
    };
    match handshake::parse(&held.line, &expectation(config)) {
        Err(rejected) => Trouble::new(rejected.reason, rejected.message),
        Ok(_) => trouble::exited_early(config, exit, Some(&held.line), wrote, stderr),
    }
}

/// What a handshake line has to say under this configuration.
pub(super) fn expectation(config: &PodConfig) -> Expect<'_> {
    let Protocol::GoPlugin(family) = &config.protocol;
    let tls = match family.tls {
        Tls::None => Asked::None,
        Tls::AutoMTLS => Asked::AutoMTLS,
        Tls::Explicit { .. } => Asked::Explicit,
    };
    Expect {
        versions: &family.versions,
        tls,
    }
}
