//! What the operator and the readiness probe are told about the instance.

use patchbay_launcher::control::Exit;
use patchbay_protocol::escape::printable;
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session;
use session::Phase;

use crate::ready::Readiness;

use super::announce::go_plugin;
use super::stop::{Step, Why};
use super::trouble::{MAX_MESSAGE, Trouble, clip};
use super::{
    Announced, EndedBy, LastExit, MAX_WARNINGS, Machine, Process, Stage, State, Verdict, pcp,
};

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
        let (phase, trouble) = self.phase();
        let mut instance = session::Instance {
            phase: phase.into(),
            reason: trouble
                .as_ref()
                .map(|trouble| trouble.reason.to_string())
                .unwrap_or_default(),
            message: trouble
                .as_ref()
                .map(|trouble| trouble.message.clone())
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
            tell_process(process, &mut instance);
        }
        if let Some(why) = &self.config_trouble
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

    fn phase(&self) -> (Phase, Option<Trouble>) {
        match &self.state {
            State::Idle => self.idle_phase(),
            State::BackingOff { .. } => match self.missing() {
                // The pause goes on, but something else would hinder the start.
                Some(missing) if missing.reason == Reason::WaitingForLauncher => self.idle_phase(),
                _ => (Phase::BackingOff, self.trouble.clone()),
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
                        Some(Trouble::new(Reason::Unhealthy, why.clone())),
                    ),
                },
                Stage::Greeted => (Phase::Ready, None),
                Stage::Stopping(stopping) => {
                    let doing = match stopping.step {
                        Step::Drain => "calls in flight may end",
                        Step::Call => "it is asked to shut down",
                        Step::Wait => "it was asked to shut down and may exit",
                        Step::Term => "it was sent SIGTERM",
                        Step::Kill => "it was sent SIGKILL",
                    };
                    let trouble = match &stopping.why {
                        Why::Failed(trouble) => trouble.clone(),
                        Why::Terminating => Trouble::new(
                            Reason::Stopping,
                            format!("the plugin container is being stopped: {doing}"),
                        ),
                        Why::Reconfigured => Trouble::new(
                            Reason::Stopping,
                            format!("the plugin is restarted for a changed configuration: {doing}"),
                        ),
                        Why::Unknown => Trouble::new(
                            Reason::Stopping,
                            format!("an unknown plugin process is being stopped: {doing}"),
                        ),
                    };
                    (Phase::Stopping, Some(trouble))
                }
            },
        }
    }

    fn idle_phase(&self) -> (Phase, Option<Trouble>) {
        let Some(missing) = self.missing() else {
            return (
                Phase::Starting,
                Some(Trouble::new(
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
        match (&self.trouble, phase) {
            // What happened before is more than what is waited for.
            (Some(before), Phase::WaitingForLauncher) => (
                phase,
                Some(Trouble::new(
                    before.reason,
                    format!("{}. Now {}", before.message, missing.message),
                )),
            ),
            _ => (phase, Some(missing)),
        }
    }

    /// Until it is ready, the reason of the last failure stays: a plugin that fails again and
    /// again would otherwise show it only between its starts.
    fn starting(&self, process: &Process) -> Trouble {
        let is_pcp = process
            .config
            .as_deref()
            .is_some_and(|config| pcp::family(config).is_some());
        let doing = match &process.stage {
            Stage::Starting { .. } if is_pcp => "its call of start() is awaited",
            Stage::Starting { .. } => "its handshake line is awaited",
            Stage::Dialling => "its address is being dialled",
            _ => "its first health check is awaited",
        };
        match &self.trouble {
            Some(before) => Trouble::new(
                before.reason,
                format!(
                    "{} (started again; {doing})",
                    clip(before.message.clone(), MAX_MESSAGE - 64)
                ),
            ),
            None => Trouble::new(Reason::Starting, format!("the plugin was started; {doing}")),
        }
    }
}

fn tell_process(process: &Process, instance: &mut session::Instance) {
    instance.start_id = process.start_id.to_string();
    instance.started_at_ms = process.started_at_ms;
    instance.warnings.clone_from(&process.warnings);
    instance.handshake = process
        .announced
        .as_ref()
        .and_then(|announced| handshake(announced, &process.tls));
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

fn handshake(announced: &Announced, tls: &str) -> Option<session::Handshake> {
    let family = go_plugin(&announced.config)?;
    let mut offered = family.versions.clone();
    offered.sort_unstable();
    Some(session::Handshake {
        core_version: announced.handshake.core_version(),
        app_version: announced.handshake.app_version,
        offered,
        transport: announced.handshake.address.network().to_owned(),
        tls: tls.to_owned(),
        seconds: announced.millis as f64 / 1000.0,
    })
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
