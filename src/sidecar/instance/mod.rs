//! One plugin instance as a state machine: an event and a time go in, actions come out.
//!
//! Nothing here reads a clock, opens a socket or draws a random number; [`crate::run`] does that
//! and feeds [`Machine::step`]. `event.rs` holds events and actions, `handlers.rs` and `launcher_hello.rs`
//! what each event does, `starting.rs` the time until a plugin can be used, `health.rs` the checks of
//! one that is called, `timers.rs` what the time demands, `stop.rs` the steps of a stop,
//! `snapshot.rs` what the operator and the readiness probe get.
//!
//! It asks [`crate::family`] wherever families differ.

pub mod backoff;
mod event;
pub mod failure;
mod handlers;
mod health;
mod launcher_hello;
mod snapshot;
mod starting;
pub mod stop;
mod timers;

#[cfg(test)]
mod pcp_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::pod_config::{PodConfig, Shutdown};
use patchbay_protocol::reason::Reason;

use crate::family::{self, SeenOutput, Services};
use crate::jobs::Greeting;
use backoff::Backoff;
pub use event::{Action, Announced, Dialled, Event, Gone, Now, Resumed};
use failure::Failure;
pub use snapshot::Snapshot;
use stop::{Step, Stopping};

/// A launcher that does not answer for so long, in milliseconds, has ended with its container.
const LAUNCHER_GRACE: u64 = 2_000;
/// So long, in milliseconds, may another program hold our session port before the plugin is
/// taken to be that program.
const PORT_GRACE: u64 = 10_000;
/// First health checks may fail for so long, in milliseconds: some plugins announce their address
/// before they serve.
const FIRST_HEALTH: u64 = 3_000;
/// Pause between those checks.
const FIRST_HEALTH_PAUSE: u64 = 200;
/// Pause between checks of a plugin that never passed one.
const UNSERVED_PAUSE: u64 = 1_000;
/// Lines of stderr that are kept for messages.
const STDERR_LINES: usize = 20;
/// Longest kept line in bytes.
const STDERR_LINE: usize = 512;
/// Most warnings, as the session's contract has it.
const MAX_WARNINGS: usize = 8;

/// How the last process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastExit {
    exit: Exit,
    ended_by: EndedBy,
    at_ms: u64,
}

/// Which step of a stop ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedBy {
    Itself,
    Shutdown,
    Term,
    Kill,
}

#[derive(Debug)]
enum Launcher {
    Unseen,
    Up { terminating: bool },
    Lost { since: u64 },
}

#[derive(Debug)]
enum State {
    /// Nothing runs; the plugin starts as soon as nothing is missing.
    Idle,
    /// Nothing runs until then.
    BackingOff { until: u64 },
    /// A process was ordered and has not ended.
    Alive(Box<Process>),
}

#[derive(Debug)]
struct Process {
    start_id: StartId,
    /// Absent for a process that we know nothing of.
    config: Option<Box<PodConfig>>,
    /// When it was ordered or found, on the clock that never jumps.
    since: u64,
    started_at_ms: u64,
    announced: Option<Announced>,
    /// How it introduced itself on the jobs socket.
    greeting: Option<Box<Greeting>>,
    tls: String,
    ready_since: Option<u64>,
    /// Services by reflection, once asked.
    services: Option<Result<Services, String>>,
    warnings: Vec<String>,
    stderr: VecDeque<String>,
    wrote_to_stdout: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It can not be used yet.
    Starting { deadline: u64, seen: SeenOutput },
    /// It announced an address.
    Dialling,
    /// It is called, and its health is checked.
    Running(Running),
    /// It is ready, and its process is all that is watched.
    Ready,
    /// It has to end.
    Stopping(Stopping),
}

#[derive(Debug)]
struct Running {
    since: u64,
    verdict: Verdict,
    /// Failures in a row.
    failures: u32,
    /// When the last failure was counted.
    counted: u64,
    due: u64,
    asked: bool,
}

#[derive(Debug)]
enum Verdict {
    /// No check has passed; the time for the first one is not over.
    Pending,
    Serving,
    Failing(String),
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    config: Option<Box<PodConfig>>,
    config_error: Option<String>,
    launcher: Launcher,
    launcher_id: Option<u64>,
    released: bool,
    leaving: bool,
    port_taken: Option<(u16, u64)>,
    state: State,
    resumed: Option<Resumed>,
    /// The launcher was lost while its plugin was meant to run.
    lost_sight: bool,
    backoff: Backoff,
    restarts: u32,
    started_in_container: bool,
    reattachments: u64,
    last_exit: Option<LastExit>,
    /// What failed last; forgotten when the plugin is ready.
    failure: Option<Failure>,
    /// Wall clock of the next start, for people.
    next_start_ms: u64,
}

impl Machine {
    /// At the start of the sidecar process.
    pub fn new(released: bool, resumed: Option<Resumed>) -> Machine {
        let (launcher_id, restarts) = match &resumed {
            Some(resumed) => (Some(resumed.launcher_id), resumed.restarts),
            None => (None, 0),
        };
        let mut backoff = Backoff::default();
        if let Some(resumed) = &resumed {
            backoff = Backoff::new(&resumed.config.restart, resumed.backoff);
        }
        Machine {
            config: None,
            config_error: None,
            launcher: Launcher::Unseen,
            launcher_id,
            released,
            leaving: false,
            port_taken: None,
            state: State::Idle,
            started_in_container: resumed.is_some(),
            resumed,
            lost_sight: false,
            backoff,
            restarts,
            reattachments: 0,
            last_exit: None,
            failure: None,
            next_start_ms: 0,
        }
    }

    /// Takes in one event.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.handle(now, event, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// The configuration in force.
    pub fn config(&self) -> Option<&PodConfig> {
        self.config.as_deref()
    }

    /// How often a running plugin was taken over from an earlier sidecar process.
    pub fn reattachments(&self) -> u64 {
        self.reattachments
    }

    /// Starts after the first in this plugin container.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The launcher that was seen last.
    pub fn launcher_id(&self) -> u64 {
        self.launcher_id.unwrap_or_default()
    }

    pub fn backoff(&self) -> u64 {
        self.backoff.current()
    }

    /// Whether the launcher accepts orders and its plugin is meant to serve.
    pub fn launcher_serves(&self) -> bool {
        matches!(self.launcher, Launcher::Up { terminating: false })
    }

    /// The process that was ordered or found and has not ended.
    pub fn process(&self) -> Option<StartId> {
        match &self.state {
            State::Alive(process) => Some(process.start_id),
            State::Idle | State::BackingOff { .. } => None,
        }
    }

    /// Whether the plugin process is on its way out.
    pub fn stops(&self) -> bool {
        matches!(&self.state, State::Alive(process) if matches!(process.stage, Stage::Stopping(_)))
    }

    /// What keeps an idle plugin from being started.
    fn missing(&self) -> Option<Failure> {
        if self.config.is_none() {
            let message = match &self.config_error {
                Some(failure) => failure.clone(),
                None => "the annotation patchbay.dev/config has not been read yet".to_owned(),
            };
            return Some(Failure::new(Reason::BadConfig, message));
        }
        match self.launcher {
            Launcher::Up { terminating: false } => {}
            Launcher::Up { terminating: true } => {
                return Some(Failure::new(
                    Reason::Stopping,
                    "the plugin container is being stopped",
                ));
            }
            Launcher::Unseen | Launcher::Lost { .. } => {
                let message = "the launcher in the plugin container does not answer yet";
                return Some(Failure::new(Reason::WaitingForLauncher, message));
            }
        }
        if !self.released {
            let message = "the operator has not yet allowed the plugin to start in this pod";
            return Some(Failure::new(Reason::WaitingForRelease, message));
        }
        if self.leaving {
            return Some(Failure::new(
                Reason::Stopping,
                "the sidecar is being stopped",
            ));
        }
        None
    }

    fn start(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(config) = self.config.clone() else {
            return;
        };
        if self.started_in_container {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.started_in_container = true;
        self.resumed = None;
        self.lost_sight = false;
        self.next_start_ms = 0;
        let mut process = Process::new(now.fresh, now.mono);
        process.stage = Stage::Starting {
            deadline: now.mono + u64::from(start_seconds(&config)) * 1000,
            seen: SeenOutput::default(),
        };
        process.config = Some(config.clone());
        actions.push(Action::Start(now.fresh, config));
        self.state = State::Alive(Box::new(process));
    }

    /// The start failed while the process lives: it is killed at once, as every host does.
    fn fail(&mut self, now: Now, failure: Failure, actions: &mut Vec<Action>) {
        self.stop(now, stop::Why::Failed(failure), Step::Kill, actions);
    }

    /// Nothing runs any more; the next start waits for its pause.
    fn back_off(&mut self, now: Now, ready_for: u64, failure: Failure) {
        let pause = self.backoff.after(ready_for);
        self.failure = Some(failure);
        self.next_start_ms = now.wall + pause;
        self.state = State::BackingOff {
            until: now.mono + pause,
        };
    }

    /// The launcher is out of reach. A plugin that lives on behind it is found again by its record.
    fn detach(&mut self, actions: &mut Vec<Action>) {
        let State::Alive(process) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        actions.push(Action::Forget(process.start_id, Gone::OutOfReach));
        self.lost_sight = !matches!(process.stage, Stage::Stopping(_));
        if let Some(config) = process.config {
            self.resumed = Some(Resumed {
                start_id: process.start_id,
                launcher_id: self.launcher_id(),
                config,
                announced: process
                    .announced
                    .map(|announced| (announced.line, announced.millis)),
                restarts: self.restarts,
                backoff: self.backoff.current(),
            });
        }
    }

    fn shutdown(&self, process: &Process) -> Shutdown {
        // The newest word counts for how long a stop may take.
        let config = self.config.as_deref().or(process.config.as_deref());
        config.map_or(
            Shutdown {
                drain_seconds: 5,
                rpc_seconds: 5,
                exit_seconds: 2,
                term_seconds: 5,
            },
            |config| config.shutdown.clone(),
        )
    }
}

impl Process {
    fn new(start_id: StartId, since: u64) -> Process {
        Process {
            start_id,
            config: None,
            since,
            started_at_ms: 0,
            announced: None,
            greeting: None,
            tls: String::new(),
            ready_since: None,
            services: None,
            warnings: Vec::new(),
            stderr: VecDeque::new(),
            wrote_to_stdout: false,
            stage: Stage::Dialling,
        }
    }

    fn warn(&mut self, text: String) {
        let text = failure::clip(text, 256);
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// How long it was ready, in milliseconds.
    fn ready_for(&self, now: u64) -> u64 {
        self.ready_since
            .map_or(0, |since| now.saturating_sub(since))
    }
}

/// Seconds from a start until the plugin has to be reachable.
fn start_seconds(config: &PodConfig) -> u32 {
    family::of(&config.protocol).start_timeout_seconds().max(1)
}
