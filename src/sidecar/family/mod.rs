//! Every decision of the sidecar that depends on the family of its plugin: one trait, one folder per
//! family, which also holds the host side of that family's protocol. The instance machine asks the
//! trait and knows no family.

pub mod go_plugin;
pub mod pcp;

use std::borrow::Cow;

use patchbay_launcher::control::{Exit, Line, Start};
use patchbay_protocol::handshake::Handshake;
use patchbay_protocol::pod_config::{FamilyConfig, Jobs};
use patchbay_protocol::session;

use crate::handover::Record;
use crate::instance::Announced;
use crate::instance::failure::Failure;
use crate::instance::stop::Step;
use crate::jobs::Greeting;
use crate::paths::Root;
pub use go_plugin::connection::{Address, PluginConnection};
pub use go_plugin::controller::ShutdownAnswer;
pub use go_plugin::health::Health;
pub use go_plugin::reflection::Services;
use go_plugin::tls::HostCertificate;

/// Settings with which no plugin of the family can be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSettings(pub Cow<'static, str>);

/// What the sidecar has to know about a family, with the settings of its plugin.
pub trait PluginFamily {
    /// Checks the settings of a document.
    ///
    /// # Errors
    /// What is wrong and was expected, for status.
    fn check(&self) -> Result<(), InvalidSettings>;

    /// Completes the command to start: the environment that the family promises its plugins.
    fn complete_start(&self, start: &mut Start, context: &StartContext<'_>);

    /// Whether each start gets a certificate of the host.
    fn needs_host_certificate(&self) -> bool;

    /// Seconds from a start until the plugin is expected to be reachable.
    fn start_timeout_seconds(&self) -> u32;

    /// Least time in milliseconds for a process that was taken over from an earlier sidecar and had
    /// not finished its handshake.
    fn takeover_timeout_ms(&self) -> u64;

    /// What a plugin that was started is waited for, behind "the plugin was started;".
    fn awaited(&self) -> &'static str;

    /// A line of stdout while the plugin starts. `now` is in milliseconds of the clock that never
    /// jumps.
    fn on_stdout(&self, seen: &mut SeenOutput, line: Line, now: u64) -> Progress;

    /// The line without line end that [`PluginFamily::on_stdout`] put aside is due.
    fn on_partial_line(&self, seen: &mut SeenOutput, line: Vec<u8>) -> Progress;

    /// The line with which the plugin announced its address to an earlier sidecar.
    fn on_known_announcement(&self, line: Vec<u8>) -> Progress;

    /// The plugin introduced itself on the jobs socket: warnings about that, or `None` when plugins of
    /// this family do not speak there.
    fn on_greeting(&self, greeting: &Greeting) -> Option<Vec<String>>;

    /// Nothing came in time.
    fn start_timed_out(&self, wrote_to_stdout: bool, stderr: &[String]) -> Failure;

    /// The process ended before it was reachable.
    fn exited_early(&self, early: &EarlyExit<'_>) -> Failure;

    /// The process ended later, and not by our doing.
    fn crashed(&self, exit: Exit, ran_for_ms: u64, stderr: &[String]) -> Failure;

    /// The process ended while no sidecar ran. `announced` says whether it had announced its address.
    fn ended_unseen(&self, exit: Exit, announced: bool) -> Failure;

    /// The steps of a stop that make sense, in order. Signals are always among them.
    fn stop_steps(&self) -> &'static [Step];

    /// Which clients use the plugin.
    fn clients(&self) -> Clients;

    /// Where its jobs come from.
    fn job_delivery(&self, jobs: &Jobs) -> JobDelivery;

    /// What was agreed upon in the handshake, for status; `None` when nothing is.
    fn handshake(&self, announced: &Announced, tls: &str) -> Option<session::Handshake>;

    /// Where and how an announced plugin is dialled.
    ///
    /// # Errors
    /// An address or a certificate that will not be used.
    fn address(
        &self,
        root: &Root,
        announced: &Announced,
        record: Option<&Record>,
    ) -> Result<Address, Failure>;
}

/// What the command to start depends on besides the settings.
#[derive(Clone, Copy, Debug)]
pub struct StartContext<'a> {
    /// Name of the Plugin.
    pub plugin: &'a str,
    /// Where the pod's volumes are mounted.
    pub root: &'a Root,
    /// See [`PluginFamily::needs_host_certificate`].
    pub host_certificate: Option<&'a HostCertificate>,
}

/// What is remembered of a starting plugin's stdout.
#[derive(Debug, Default)]
pub struct SeenOutput {
    /// Lines that were passed over.
    pub skipped: u16,
    /// A line without line end: the process either ended or closed its stdout.
    pub partial: Option<PartialLine>,
}

/// See [`SeenOutput::partial`].
#[derive(Debug)]
pub struct PartialLine {
    pub bytes: Vec<u8>,
    /// Until then, in milliseconds of the clock that never jumps, the end of the process is waited
    /// for.
    pub until: u64,
}

/// How far a starting plugin is.
#[derive(Debug)]
pub enum Progress {
    /// No further.
    Waiting,
    /// It announced an address and is dialled. With the line as the plugin wrote it.
    Announced(Vec<u8>, Handshake),
    /// It is ready, and nothing is dialled.
    Ready,
    /// It cannot be used.
    Failed(Failure),
}

/// A process that ended before it was reachable.
#[derive(Debug)]
pub struct EarlyExit<'a> {
    pub exit: Exit,
    /// See [`SeenOutput::partial`].
    pub partial: Option<&'a [u8]>,
    pub wrote_to_stdout: bool,
    /// The last lines, escaped.
    pub stderr: &'a [String],
}

/// Who uses a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Client programs call it through the proxy.
    Proxy,
    /// External workers connect to this port of the pod.
    Workers(u16),
}

/// Where a plugin's jobs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobDelivery {
    /// The sidecar asks for jobs and calls the plugin, this many at a time.
    Calls { per_pod: u32 },
    /// The plugin asks on the jobs socket.
    Socket,
}

/// The family of a configuration.
pub fn of(config: &FamilyConfig) -> &dyn PluginFamily {
    match config {
        FamilyConfig::GoPlugin(settings) => settings,
        FamilyConfig::PcpController(settings) => settings,
    }
}
