//! The decisions of this family.

use patchbay_launcher::control::{self, Exit, Line, LineEnd, Start};
use patchbay_protocol::escape::printable;
use patchbay_protocol::handshake::{self, Asked, Expect};
use patchbay_protocol::pod_config::{GoPluginConfig, Jobs, Tls};
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session;

use super::connection::{self, Address};
use super::failures;
use crate::family::{
    Clients, EarlyExit, InvalidSettings, JobDelivery, PartialLine, PluginFamily, Progress,
    SeenOutput, StartContext,
};
use crate::handover::Record;
use crate::instance::Announced;
use crate::instance::failure::{self, Failure};
use crate::instance::stop::Step;
use crate::jobs::Greeting;
use crate::paths::Root;
use crate::start_command::variable;

/// A first line without line end waits so long, in milliseconds, for the end of its process.
pub(crate) const PARTIAL_LINE_MS: u64 = 1_000;

impl PluginFamily for GoPluginConfig {
    fn check(&self) -> Result<(), InvalidSettings> {
        if self.versions.is_empty() {
            return Err(InvalidSettings("versions is empty".into()));
        }
        if self.cookie_key.is_empty()
            || self.cookie_key.contains(['=', '\0'])
            || self.cookie_value.contains('\0')
        {
            return Err(InvalidSettings(
                "the cookie cannot be an environment variable".into(),
            ));
        }
        if self.min_port > self.max_port {
            return Err(InvalidSettings("ports.min is above ports.max".into()));
        }
        Ok(())
    }

    fn complete_start(&self, start: &mut Start, context: &StartContext<'_>) {
        start.head_lines = self.skip_lines.saturating_add(1);
        let mut versions = self.versions.clone();
        versions.sort_unstable();
        versions.dedup();
        let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
        let directory = start.directory.clone();
        let env = &mut start.env;
        env.push((b"PLUGIN_UNIX_SOCKET_DIR".to_vec(), directory));
        env.push(variable("PLUGIN_MIN_PORT", &self.min_port.to_string()));
        env.push(variable("PLUGIN_MAX_PORT", &self.max_port.to_string()));
        env.push(variable("PLUGIN_PROTOCOL_VERSIONS", &versions.join(",")));
        // PLUGIN_MULTIPLEX_GRPC is left out: any value, even "false", changes the handshake line.
        if let Some(host) = context.host_certificate {
            env.push(variable("PLUGIN_CLIENT_CERT", &host.pem()));
        }
        env.push(variable(&self.cookie_key, &self.cookie_value));
    }

    fn needs_host_certificate(&self) -> bool {
        self.tls == Tls::AutoMTLS
    }

    fn start_timeout_seconds(&self) -> u32 {
        self.handshake_timeout_seconds
    }

    fn takeover_timeout_ms(&self) -> u64 {
        0
    }

    fn awaited(&self) -> &'static str {
        "its handshake line is awaited"
    }

    fn on_stdout(&self, seen: &mut SeenOutput, line: Line, now: u64) -> Progress {
        match line.end {
            LineEnd::Newline => self.on_partial_line(seen, line.bytes),
            LineEnd::Eof if line.bytes.is_empty() => Progress::Waiting,
            LineEnd::Eof => {
                seen.partial = Some(PartialLine {
                    bytes: line.bytes,
                    until: now + PARTIAL_LINE_MS,
                });
                Progress::Waiting
            }
            LineEnd::Cut => {
                let message = format!(
                    "the first line on stdout is too long to be a handshake (over {} bytes): {}. Something prints before the plugin serves; send it to stderr",
                    control::MAX_LINE,
                    printable(&line.bytes, 256)
                );
                skip_or_fail(self, seen, Failure::new(Reason::NotAHandshake, message))
            }
        }
    }

    fn on_partial_line(&self, seen: &mut SeenOutput, line: Vec<u8>) -> Progress {
        let is_handshake = handshake::looks_like_handshake(&line);
        match self.on_known_announcement(line) {
            Progress::Failed(failure) if !is_handshake => skip_or_fail(self, seen, failure),
            progress => progress,
        }
    }

    fn on_known_announcement(&self, line: Vec<u8>) -> Progress {
        match handshake::parse(&line, &expectation(self)) {
            Ok(handshake) => Progress::Announced(line, handshake),
            Err(rejected) => Progress::Failed(Failure::new(rejected.reason, rejected.message)),
        }
    }

    fn on_greeting(&self, _: &Greeting) -> Option<Vec<String>> {
        None
    }

    fn start_timed_out(&self, wrote_to_stdout: bool, stderr: &[String]) -> Failure {
        let seconds = self.handshake_timeout_seconds.max(1);
        failures::start_timed_out(seconds, wrote_to_stdout, stderr)
    }

    /// A first line without line end is judged first: one that is wrong anyway keeps its own reason.
    fn exited_early(&self, early: &EarlyExit<'_>) -> Failure {
        match early
            .partial
            .map(|line| handshake::parse(line, &expectation(self)))
        {
            Some(Err(rejected)) => Failure::new(rejected.reason, rejected.message),
            Some(Ok(_)) | None => failures::exited_early(self, early),
        }
    }

    fn crashed(&self, exit: Exit, ran_for_ms: u64, stderr: &[String]) -> Failure {
        failure::crashed(exit, ran_for_ms, stderr)
    }

    fn ended_unseen(&self, exit: Exit, announced: bool) -> Failure {
        if announced {
            return failure::crashed(exit, 0, &["it ended while no sidecar ran".to_owned()]);
        }
        self.exited_early(&EarlyExit {
            exit,
            partial: None,
            wrote_to_stdout: false,
            stderr: &[],
        })
    }

    fn stop_steps(&self) -> &'static [Step] {
        &[Step::Drain, Step::Call, Step::Wait, Step::Term, Step::Kill]
    }

    fn clients(&self) -> Clients {
        Clients::Proxy
    }

    fn job_delivery(&self, jobs: &Jobs) -> JobDelivery {
        JobDelivery::Calls {
            per_pod: jobs.per_pod,
        }
    }

    fn handshake(&self, announced: &Announced, tls: &str) -> Option<session::Handshake> {
        let mut offered = self.versions.clone();
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

    fn address(
        &self,
        root: &Root,
        announced: &Announced,
        record: Option<&Record>,
    ) -> Result<Address, Failure> {
        let host = record.and_then(Record::host);
        connection::address(&self.tls, root, announced, host.as_ref())
    }
}

/// A line that is no handshake is passed over while `skipLines` allows it.
fn skip_or_fail(settings: &GoPluginConfig, seen: &mut SeenOutput, failure: Failure) -> Progress {
    if seen.skipped < settings.skip_lines {
        seen.skipped += 1;
        return Progress::Waiting;
    }
    Progress::Failed(failure)
}

/// What a handshake line has to say under these settings.
fn expectation(settings: &GoPluginConfig) -> Expect<'_> {
    Expect {
        versions: &settings.versions,
        tls: match settings.tls {
            Tls::None => Asked::None,
            Tls::AutoMTLS => Asked::AutoMTLS,
            Tls::Explicit { .. } => Asked::Explicit,
        },
    }
}
