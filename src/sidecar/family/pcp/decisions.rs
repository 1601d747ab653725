//! The decisions of this family.

use patchbay_launcher::control::{Exit, Line, Start};
use patchbay_launcher::layout;
use patchbay_protocol::pod_config::{Jobs, PcpConfig};
use patchbay_protocol::reason::Reason;
use patchbay_protocol::session;

use super::failures;
use crate::family::{
    Address, Clients, EarlyExit, InvalidSettings, JobDelivery, PluginFamily, Progress, SeenOutput,
    StartContext,
};
use crate::handover::Record;
use crate::instance::Announced;
use crate::instance::failure::Failure;
use crate::instance::stop::Step;
use crate::jobs::Greeting;
use crate::paths::Root;
use crate::start_command::variable;

/// A process that was taken over gets this long for its call of `start()`, in milliseconds: its
/// library repeats a call that no sidecar answered.
pub(crate) const TAKEOVER_TIMEOUT_MS: u64 = 10_000;
/// The command that the library shows in place of a list that it could not read.
const PLACEHOLDER: &str = "Functionality Error";

impl PluginFamily for PcpConfig {
    fn check(&self) -> Result<(), InvalidSettings> {
        let ours = [
            layout::SESSION_PORT,
            layout::PROXY_PORT,
            layout::CANARY_PORT,
        ];
        if self.port == 0 || ours.contains(&self.port) {
            return Err(InvalidSettings(
                format!("the plugin cannot have port {}", self.port).into(),
            ));
        }
        let class_name = self.class_name.as_deref().unwrap_or_default();
        if self.stage.contains('\0') || class_name.contains('\0') {
            return Err(InvalidSettings(
                "stage or className cannot be an environment variable".into(),
            ));
        }
        Ok(())
    }

    fn complete_start(&self, start: &mut Start, context: &StartContext<'_>) {
        // PLUGIN_NAME is no word of a host here, and neither are those that resemble it.
        start.keep_host_variables = true;
        start.defaults = vec![variable("PLUGIN_NAME", context.plugin)];
        let env = &mut start.env;
        env.push(variable("PORT", &self.port.to_string()));
        env.push(variable("STAGE", &self.stage));
        // Plugins may print it; the library asks at the socket below.
        env.push(variable("RETHINK_HOST", "127.0.0.1"));
        if let Some(class_name) = &self.class_name {
            env.push(variable("PLUGIN", class_name));
        }
        let socket = context.root.jobs_socket();
        let socket = socket.into_os_string().into_encoded_bytes();
        env.push((b"PATCHBAY_JOBS_SOCKET".to_vec(), socket));
    }

    fn needs_host_certificate(&self) -> bool {
        false
    }

    fn start_timeout_seconds(&self) -> u32 {
        self.start_timeout_seconds
    }

    fn takeover_timeout_ms(&self) -> u64 {
        TAKEOVER_TIMEOUT_MS
    }

    fn awaited(&self) -> &'static str {
        "its call of start() is awaited"
    }

    /// Lines are its log and nothing else.
    fn on_stdout(&self, _: &mut SeenOutput, _: Line, _: u64) -> Progress {
        Progress::Waiting
    }

    fn on_partial_line(&self, _: &mut SeenOutput, _: Vec<u8>) -> Progress {
        Progress::Waiting
    }

    fn on_known_announcement(&self, _: Vec<u8>) -> Progress {
        Progress::Waiting
    }

    fn on_greeting(&self, greeting: &Greeting) -> Option<Vec<String>> {
        let mut warnings = greeting.warnings.clone();
        let is_placeholder = greeting.commands.iter().any(|one| one.name == PLACEHOLDER);
        if is_placeholder && !warnings.iter().any(|one| one.contains(PLACEHOLDER)) {
            warnings.push(format!(
                "the plugin advertises the placeholder command \"{PLACEHOLDER}\": its list of commands is empty or could not be read"
            ));
        }
        Some(warnings)
    }

    fn start_timed_out(&self, _: bool, stderr: &[String]) -> Failure {
        failures::start_timed_out(self.start_timeout_seconds.max(1), stderr)
    }

    fn exited_early(&self, early: &EarlyExit<'_>) -> Failure {
        failures::exited_early(early.exit, early.stderr)
    }

    fn crashed(&self, exit: Exit, ran_for_ms: u64, stderr: &[String]) -> Failure {
        failures::crashed(exit, ran_for_ms, stderr)
    }

    fn ended_unseen(&self, exit: Exit, _: bool) -> Failure {
        failures::ended_unseen(exit)
    }

    /// It has no Shutdown call.
    fn stop_steps(&self) -> &'static [Step] {
        &[Step::Drain, Step::Term, Step::Kill]
    }

    fn clients(&self) -> Clients {
        Clients::Workers(self.port)
    }

    fn job_delivery(&self, _: &Jobs) -> JobDelivery {
        JobDelivery::Socket
    }

    fn handshake(&self, _: &Announced, _: &str) -> Option<session::Handshake> {
        None
    }

    fn address(&self, _: &Root, _: &Announced, _: Option<&Record>) -> Result<Address, Failure> {
        Err(Failure::new(
            Reason::BadConfig,
            "a plugin of the family pcpController announced an address",
        ))
    }
}
