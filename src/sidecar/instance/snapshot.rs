//! What the operator and the readiness probe are told about the instance.

use patchbay_launcher::control::Exit;
use patchbay_protocol::escape::printable;
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session;
use session::Phase;

use crate::family;
use crate::ready::Readiness;

use super::failure::{Failure, MAX_MESSAGE, clip};
use super::stop::{Step, Why};
use super::{EndedBy, LastExit, MAX_WARNINGS, Machine, Process, Stage, State, Verdict};

/// Longest string of the plugin in bytes.
const MAX_WORD: usize = 256;
/// Most service names.
const MAX_SERVICES: usize = 256;

/// One moment of the instance, for both audiences.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub instance: session::Instance,
    /// For the readiness probe.
    pub readiness: Readiness,
}

impl Machine {
    /// What there is to tell now.
    pub fn snapshot(&self) -> Snapshot {
        let (phase, failure) = self.phase();
        let mut instance = session::Instance {
            phase: phase.into(),
            reason: failure
                .as_ref()
                .map(|failure| failure.reason.to_string())
                .unwrap_or_default(),
            message: failure
                .as_ref()
                .map(|failure| failure.message.clone())
                .unwrap_or_default(),
            restarts: self.restarts,
            last_exit: self.last_exit.map(|last| exit(&last)),
            revision: self.config.as_ref().map_or(0, |config| config.revision),
            next_start_ms: if phase == Phase::BackingOff {
                self.next_start_ms
            } else {
                0
            },
            ..Default::default()
        };
        if let State::Alive(process) = &self.state {
            describe_process(process, &mut instance);
        }
        if let Some(why) = &self.config_error
            && self.config.is_some()
        {
            instance.warnings.insert(
                0,
                clip(
                    format!("the new configuration is not in force: {why}"),
                    MAX_WORD,
                ),
            );
            instance.warnings.truncate(MAX_WARNINGS);
        }
        let readiness = match (phase, &self.port_taken) {
            (Phase::Ready, Some((port, _))) => Readiness::NotReady(format!(
                "{}: another program of the pod listens on port {port}",
                Reason::PortTaken
            )),
            (Phase::Ready, None) if !self.leaving => Readiness::Ready,
            (Phase::Ready, None) => Readiness::NotReady(format!(
                "{}: the sidecar is being stopped",
                Reason::Stopping
            )),
            _ => Readiness::NotReady(format!("{}: {}", instance.reason, instance.message)),
        };
        Snapshot {
            instance,
            readiness,
        }
    }

    fn phase(&self) -> (Phase, Option<Failure>) {
        match &self.state {
            State::Idle => self.idle_phase(),
            State::BackingOff { .. } => match self.missing() {
                // The pause goes on, but something else would hinder the start.
                Some(missing) if missing.reason == Reason::WaitingForLauncher => self.idle_phase(),
                _ => (Phase::BackingOff, self.failure.clone()),
            },
            State::Alive(process) => match &process.stage {
                Stage::Starting { .. } | Stage::Dialling => {
                    (Phase::Starting, Some(self.starting(process)))
                }
                Stage::Running(running) => match &running.verdict {
                    Verdict::Pending => (Phase::Starting, Some(self.starting(process))),
                    Verdict::Serving => (Phase::Ready, None),
                    Verdict::Failing(why) => (
                        Phase::Unhealthy,
                        Some(Failure::new(Reason::Unhealthy, why.clone())),
                    ),
                },
                Stage::Ready => (Phase::Ready, None),
                Stage::Stopping(stopping) => {
                    let doing = match stopping.step {
                        Step::Drain => "calls in flight may end",
                        Step::Call => "it is asked to shut down",
                        Step::Wait => "it was asked to shut down and may exit",
                        Step::Term => "it was sent SIGTERM",
                        Step::Kill => "it was sent SIGKILL",
                    };
                    let failure = match &stopping.why {
                        Why::Failed(failure) => failure.clone(),
                        Why::Terminating => Failure::new(
                            Reason::Stopping,
                            format!("the plugin container is being stopped: {doing}"),
                        ),
                        Why::Reconfigured => Failure::new(
                            Reason::Stopping,
                            format!("the plugin is restarted for a changed configuration: {doing}"),
                        ),
                        Why::Unknown => Failure::new(
                            Reason::Stopping,
                            format!("an unknown plugin process is being stopped: {doing}"),
                        ),
                    };
                    (Phase::Stopping, Some(failure))
                }
            },
        }
    }

    fn idle_phase(&self) -> (Phase, Option<Failure>) {
        let Some(missing) = self.missing() else {
            return (
                Phase::Starting,
                Some(Failure::new(
                    Reason::Starting,
                    "the plugin is being started",
                )),
            );
        };
        let phase = match missing.reason {
            Reason::WaitingForLauncher => Phase::WaitingForLauncher,
            Reason::Stopping => Phase::Stopping,
            _ => Phase::AwaitingPermission,
        };
        match (&self.failure, phase) {
            // What happened before is more than what is waited for.
            (Some(before), Phase::WaitingForLauncher) => (
                phase,
                Some(Failure::new(
                    before.reason,
                    format!("{}. Now {}", before.message, missing.message),
                )),
            ),
            _ => (phase, Some(missing)),
        }
    }

    /// Until it is ready, the reason of the last failure stays: a plugin that fails again and
    /// again would otherwise show it only between its starts.
    fn starting(&self, process: &Process) -> Failure {
        let doing = match &process.stage {
            Stage::Starting { .. } => process
                .family()
                .map_or("its handshake is awaited", |family| family.awaited()),
            Stage::Dialling => "its address is being dialled",
            _ => "its first health check is awaited",
        };
        match &self.failure {
            Some(before) => Failure::new(
                before.reason,
                format!(
                    "{} (started again; {doing})",
                    clip(before.message.clone(), MAX_MESSAGE - 64)
                ),
            ),
            None => Failure::new(Reason::Starting, format!("the plugin was started; {doing}")),
        }
    }
}

fn describe_process(process: &Process, instance: &mut session::Instance) {
    instance.start_id = process.start_id.to_string();
    instance.started_at_ms = process.started_at_ms;
    instance.warnings.clone_from(&process.warnings);
    instance.handshake = process.announced.as_ref().and_then(|announced| {
        let family = family::of(&announced.config.protocol);
        family.handshake(announced, &process.tls)
    });
    if let Some(greeting) = &process.greeting {
        instance.commands.clone_from(&greeting.commands);
        instance.commands_omitted = greeting.omitted;
    }
    match &process.services {
        None => {}
        Some(Ok(found)) => {
            let mut names: Vec<String> = found
                .names
                .iter()
                .map(|name| printable(name.as_bytes(), MAX_WORD))
                .collect();
            names.sort_unstable();
            let beyond = names.len().saturating_sub(MAX_SERVICES);
            names.truncate(MAX_SERVICES);
            instance.services = names;
            instance.services_omitted =
                u32::try_from(beyond + found.omitted as usize).unwrap_or(u32::MAX);
        }
        Some(Err(why)) => instance.services_note = clip(why.clone(), MAX_WORD),
    }
}

fn exit(last: &LastExit) -> session::Exit {
    session::Exit {
        how: Some(match last.exit {
            Exit::Code(code) => session::exit::How::Code(code),
            Exit::Signal(signal) => session::exit::How::Signal(signal),
        }),
        ended_by: match last.ended_by {
            EndedBy::Itself => "Itself",
            EndedBy::Shutdown => "Shutdown",
            EndedBy::Term => "Term",
            EndedBy::Kill => "Kill",
        }
        .to_owned(),
        at_ms: last.at_ms,
    }
}
