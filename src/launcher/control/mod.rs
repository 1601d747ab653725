//! The control protocol between launcher and sidecar, over the unix stream socket `control.sock`.
//!
//! The launcher listens and talks to one sidecar at a time; a new connection replaces the old one.
//! Frame: big-endian `u32` length of what follows (at most [`MAX_FRAME`]), one byte kind, body.
//! Integers are big-endian; byte strings carry a `u32` length; lists a `u16` count.
//! The launcher's first frame is [`Event::Hello`], with the proxy port's listening socket as
//! SCM_RIGHTS beside its first byte; the sidecar's first frame is [`Command::Hello`].
//! Unknown kinds are skipped, and so are bytes behind the fields that this build knows: a later
//! version only appends. Every byte from the launcher is foreign to the sidecar.
//!
//! [`Command::encode`], [`Command::decode`], [`Event::encode`], [`Event::decode`] and [`Splitter`]
//! are the whole format; none of them does input or output.

mod command;
mod event;
mod frame;
#[cfg(test)]
mod tests;
mod wire;

pub use frame::{Malformed, Splitter, TooLong};

/// Newest version of this protocol.
pub const VERSION: u16 = 1;
/// Oldest version that is still accepted.
pub const OLDEST: u16 = 1;
/// Largest frame in bytes, kind and body together.
pub const MAX_FRAME: usize = 256 * 1024;
/// Longest line of plugin output in bytes; longer ones are cut and marked.
pub const MAX_LINE: usize = 64 * 1024;

/// Names one start of the plugin process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartId(pub u64);

impl std::fmt::Display for StartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the sidecar asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Versions that the sidecar speaks. First frame.
    Hello {
        /// Oldest version.
        oldest: u16,
        /// Newest version.
        newest: u16,
    },
    /// Start the plugin. Refused while one runs.
    Start(Start),
    /// Send a signal to the plugin's process group, if `start_id` is the one that runs.
    Signal {
        /// The start that is meant.
        start_id: StartId,
        /// Number of the signal, as Linux counts them.
        signal: i32,
    },
    /// The handshake is done: the retained first lines may be forgotten.
    Announced {
        /// The start that is meant.
        start_id: StartId,
    },
}

/// One order to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Chosen by the sidecar, new for every start.
    pub start_id: StartId,
    /// Set over the container's own environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Set where the container's own environment has no variable of that name.
    pub defaults: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the container's own `PLUGIN_*` stay. For some plugins they are the words of a host,
    /// and an inherited one would be somebody else's.
    pub keep_host_variables: bool,
    /// Directory to make (mode 0700) before the start and to remove after the exit; absolute.
    pub directory: Vec<u8>,
    /// Digests to verify; the executed file is verified on the descriptor that is executed.
    pub checksums: Vec<(Vec<u8>, [u8; 32])>,
    /// Number of first lines of stdout that are retained and shown to every new sidecar until
    /// [`Command::Announced`].
    pub head_lines: u16,
    /// Milliseconds between SIGTERM and SIGKILL when the launcher itself has to stop the plugin.
    pub term_millis: u32,
}

/// What the launcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// First frame of a connection.
    Hello(Hello),
    /// The plugin process runs.
    Started {
        /// The start that was ordered.
        start_id: StartId,
        /// As the plugin container counts.
        pid: u32,
        /// Milliseconds since 1970.
        started_at_ms: u64,
    },
    /// The plugin was not started.
    Refused {
        /// The start that was ordered.
        start_id: StartId,
        /// Why.
        refusal: Refusal,
    },
    /// One line of output.
    Line(Line),
    /// The plugin process ended, its descendants are gone, and all its output was sent.
    Exited {
        /// The start that ended.
        start_id: StartId,
        /// How.
        exit: Exit,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// So much output was dropped since the last such event, because no sidecar read it.
    Dropped {
        /// Lines.
        lines: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The container is being stopped (SIGTERM at the launcher): drain and stop the plugin.
    Terminating,
}

/// The launcher's state when a sidecar connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest version that the launcher speaks.
    pub oldest: u16,
    /// See `oldest`.
    pub newest: u16,
    /// Random, new with every launcher process: tells a restarted plugin container.
    pub launcher_id: u64,
    /// What the plugin does. While the [`Event::Exited`] of a start still waits to be sent, behind
    /// the lines that came before it, this says that the start runs.
    pub state: State,
    /// Retained first lines of stdout of the running start. They are not sent again as
    /// [`Event::Line`] on this connection.
    pub head: Vec<Line>,
    /// Whether SIGTERM has been received.
    pub terminating: bool,
}

/// What the plugin does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started by this launcher.
    Idle,
    /// Runs.
    Running {
        /// The start that runs.
        start_id: StartId,
        /// As the plugin container counts.
        pid: u32,
        /// Milliseconds since 1970.
        started_at_ms: u64,
    },
    /// Ended.
    Exited {
        /// The start that ended last.
        start_id: StartId,
        /// How.
        exit: Exit,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A line of output, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which start wrote it.
    pub start_id: StartId,
    /// Where it was written.
    pub stream: Stream,
    /// At most [`MAX_LINE`] bytes.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: LineEnd,
}

/// Output channel of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With a line feed.
    Newline,
    /// The process closed the stream.
    Eof,
    /// It was longer than [`MAX_LINE`]; the rest was thrown away up to its line feed.
    Cut,
}

/// Why the plugin was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another start runs.
    Busy,
    /// The file could not be executed. `missing_interpreter` tells ENOENT on an existing file.
    Exec {
        /// The file, after a search along PATH.
        path: Vec<u8>,
        /// What the kernel said.
        errno: i32,
        /// The script's interpreter or the dynamic loader that is not there.
        missing_interpreter: Option<Vec<u8>>,
    },
    /// The start directory could not be made.
    Directory {
        /// As ordered.
        path: Vec<u8>,
        /// What the kernel said; EINVAL for a path outside the launcher's folder.
        errno: i32,
    },
    /// A digest differs.
    ChecksumMismatch {
        /// As ordered.
        path: Vec<u8>,
        /// The file's SHA-256.
        got: [u8; 32],
    },
    /// A file to verify could not be read.
    ChecksumError {
        /// As ordered.
        path: Vec<u8>,
        /// What the kernel said; EINVAL for what is not a regular file.
        errno: i32,
    },
    /// SIGTERM has been received.
    Terminating,
}
