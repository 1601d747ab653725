//! Events and actions of the instance.

use patchbay_launcher::control::{self, Exit, StartId};
use patchbay_protocol::handshake::Handshake;
use patchbay_protocol::pod_config::PodConfig;

use crate::family::{Health, Services, ShutdownAnswer};
use crate::jobs::Greeting;

use super::failure::Failure;

/// The moment of an event.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never jumps.
    pub mono: u64,
    /// Milliseconds since 1970.
    pub wall: u64,
    /// Names the next start, should there be one.
    pub fresh: StartId,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A valid configuration with the highest revision so far.
    Configured(Box<PodConfig>),
    /// The configuration cannot be read; one that is in force stays.
    ConfigurationUnreadable(String),
    /// The launcher's first frame.
    Connected(control::Hello),
    /// The connection to the launcher broke.
    Disconnected,
    /// Any other frame of the launcher.
    Launcher(control::Event),
    /// The operator released the plugin in this sandbox.
    Released,
    /// The order to start could not be made up.
    NotOrdered(StartId, Failure),
    /// The plugin introduced itself on the jobs socket.
    Greeted(Box<Greeting>),
    /// The announced address was dialled.
    Dialled(StartId, Result<Dialled, Failure>),
    /// The connection turned out to be unusable after it was made.
    ConnectionBroken(StartId, Failure),
    /// Answer of a health check.
    Health(StartId, Health),
    /// Answer of the plugin's reflection.
    Services(StartId, Result<Services, String>),
    /// Something that does not hinder readiness.
    Warning(StartId, String),
    /// All calls have ended, or their time is up.
    Drained(StartId),
    /// The controller's Shutdown call ended.
    ShutdownAnswered(StartId, ShutdownAnswer),
    /// Whether another program holds the session port.
    PortTaken(Option<u16>),
    /// SIGTERM at the sidecar: nothing is started or stopped from here on.
    Leaving,
    /// Nothing; a timer fired.
    Tick,
}

/// A connection to the plugin was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// Transport security for people: `AutoMTLS (TLS 1.3)`.
    pub tls: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Order a start with this configuration.
    Start(StartId, Box<PodConfig>),
    /// The handshake line was accepted: keep it for a next sidecar, and dial.
    Dial(StartId, Announced),
    /// Ask for health; the answer comes within this many milliseconds.
    CheckHealth(StartId, u64),
    /// Ask for the services.
    ListServices(StartId),
    /// The plugin is ready: let clients in.
    Admit(StartId),
    /// Take no new work for the plugin, and report when nothing is under way any more, after this
    /// many milliseconds at the latest.
    Drain(StartId, u64),
    /// Call Shutdown, for this many milliseconds at the longest.
    CallShutdown(StartId, u64),
    /// Send a signal to the process group.
    Signal(StartId, i32),
    /// The process is gone or out of reach: end everything that belongs to it.
    Forget(StartId, Gone),
    /// The launcher contradicts us: ask for its state again.
    Reconnect,
}

/// What is known of a process that is not watched any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Ended(Exit),
    /// It ended unseen, together with its container, or was never started.
    Unseen,
    /// The launcher is out of reach; the process may live on behind it.
    OutOfReach,
}

/// A handshake line that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The line as the plugin wrote it.
    pub line: Vec<u8>,
    pub handshake: Handshake,
    /// How the plugin was configured when it wrote the line.
    pub config: Box<PodConfig>,
    /// From process start to the line, in milliseconds.
    pub millis: u64,
}

/// What an earlier sidecar process left behind about the plugin process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The start that it ordered last.
    pub start_id: StartId,
    /// The launcher that it ordered it from.
    pub launcher_id: u64,
    /// With this configuration.
    pub config: Box<PodConfig>,
    /// The handshake line, if it came to that, and how many milliseconds it took.
    pub announced: Option<(Vec<u8>, u64)>,
    /// Starts after the first in that container.
    pub restarts: u32,
    /// The pause before the next start that was used last, in milliseconds.
    pub backoff: u64,
}
