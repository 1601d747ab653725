//! Family go-plugin: the plugin's lines until the handshake is accepted or refused.

use patchbay_launcher::control::{self, Exit, Line, LineEnd, Stream};
use patchbay_protocol::escape::printable;
use patchbay_protocol::handshake::{self, Asked, Expect};
use patchbay_protocol::pod_config::{GoPlugin, PodConfig, Protocol, Tls};
use patchbay_protocol::reason::Reason;

use super::trouble::{self, Trouble};
use super::{
    Action, Announced, HELD_LINE, Held, Machine, Now, STDERR_LINE, STDERR_LINES, Stage, State, pcp,
};

impl Machine {
    pub(super) fn hear_line(&mut self, now: Now, line: Line, actions: &mut Vec<Action>) {
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
        if process
            .config
            .as_deref()
            .is_some_and(|config| go_plugin(config).is_none())
        {
            // Lines of that family are its log and nothing else.
            return;
        }
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
            let Some(expectation) = expectation(config) else {
                return;
            };
            let trouble = match handshake::parse(&line, &expectation) {
                Err(rejected) => Trouble::new(rejected.reason, rejected.message),
                Ok(_) => return,
            };
            self.reject(now, trouble, actions);
        }
    }

    /// A line that is no handshake: passed over while `skipLines` allows it.
    pub(super) fn reject(&mut self, now: Now, trouble: Trouble, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.as_deref() else {
            return;
        };
        let Some(family) = go_plugin(config) else {
            return;
        };
        if let Stage::Starting { skipped, .. } = &mut process.stage
            && *skipped < family.skip_lines
        {
            *skipped += 1;
            return;
        }
        self.fail(now, trouble, actions);
    }

    pub(super) fn accept_or_fail(
        &mut self,
        now: Now,
        line: Vec<u8>,
        millis: u64,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.clone() else {
            return;
        };
        let Some(expectation) = expectation(&config) else {
            return;
        };
        match handshake::parse(&line, &expectation) {
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
}

/// The process ended before a line was accepted or a first word was said. A first line without
/// line end is judged first: one that is wrong anyway keeps its own reason.
pub(super) fn early_trouble(
    config: &PodConfig,
    exit: Exit,
    held: Option<Held>,
    wrote: bool,
    stderr: &[String],
) -> Trouble {
    let (Some(family), Some(expectation)) = (go_plugin(config), expectation(config)) else {
        return pcp::exited_early(exit, stderr);
    };
    let Some(held) = held else {
        return trouble::exited_early(family, exit, None, wrote, stderr);
    };
    match handshake::parse(&held.line, &expectation) {
        Err(rejected) => Trouble::new(rejected.reason, rejected.message),
        Ok(_) => trouble::exited_early(family, exit, Some(&held.line), wrote, stderr),
    }
}

/// The family's settings, when it is this family.
pub(super) fn go_plugin(config: &PodConfig) -> Option<&GoPlugin> {
    match &config.protocol {
        Protocol::GoPlugin(family) => Some(family),
        Protocol::PcpController(_) => None,
    }
}

/// What a handshake line has to say under this configuration.
fn expectation(config: &PodConfig) -> Option<Expect<'_>> {
    let family = go_plugin(config)?;
    let tls = match family.tls {
        Tls::None => Asked::None,
        Tls::AutoMTLS => Asked::AutoMTLS,
        Tls::Explicit { .. } => Asked::Explicit,
    };
    Some(Expect {
        versions: &family.versions,
        tls,
    })
}
