//! The plugin while it runs and while it ends.

use crate::descendants;
use crate::lines::Lines;
use crate::start::Started;
use patchbay_launcher::control::{Exit, Line, LineEnd, Start, StartId, State, Stream};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// A pipe that somebody keeps open, or a process that cannot die, holds the end up for so long.
const LONGEST_END: Duration = Duration::from_secs(2);
/// What the retained lines may take, each with [`HEAD_LINE_COST`].
const HEAD_ROOM: usize = 96 * 1024;
const HEAD_LINE_COST: usize = 64;

/// One start, from its first instruction until its output is read to the end.
pub(crate) struct Running {
    pub(crate) start_id: StartId,
    pid: Pid,
    started_at_ms: u64,
    directory: PathBuf,
    pub(crate) term: Duration,
    pub(crate) stdout: Pipe,
    pub(crate) stderr: Pipe,
    head: Head,
    end: Option<End>,
}

/// One output stream.
pub(crate) struct Pipe {
    /// `None` after its end.
    pub(crate) descriptor: Option<OwnedFd>,
    pub(crate) lines: Lines,
}

struct End {
    exit: Exit,
    at_ms: u64,
    since: Instant,
}

/// The first lines of stdout, for the next sidecar.
struct Head {
    lines: Vec<Line>,
    room: usize,
    wanted: usize,
}

impl Running {
    pub(crate) fn new(order: &Start, started: Started) -> Self {
        let pipe = |descriptor| Pipe {
            descriptor: Some(descriptor),
            lines: Lines::default(),
        };
        Self {
            start_id: order.start_id,
            pid: started.pid,
            started_at_ms: now_ms(),
            directory: started.directory,
            term: Duration::from_millis(order.term_millis.into()),
            stdout: pipe(started.stdout),
            stderr: pipe(started.stderr),
            head: Head {
                lines: Vec::new(),
                room: HEAD_ROOM,
                wanted: order.head_lines.into(),
            },
            end: None,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn state(&self) -> State {
        State::Running {
            start_id: self.start_id,
            pid: self.pid.as_raw_nonzero().get().unsigned_abs(),
            started_at_ms: self.started_at_ms,
        }
    }

    pub(crate) fn pipe(&mut self, stream: Stream) -> &mut Pipe {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Makes a line of what a stream gave; tells whether the line is retained.
    pub(crate) fn line(&mut self, stream: Stream, bytes: Vec<u8>, end: LineEnd) -> (Line, bool) {
        let line = Line {
            start_id: self.start_id,
            stream,
            bytes,
            end,
        };
        let cost = line.bytes.len() + HEAD_LINE_COST;
        let is_head = stream == Stream::Stdout && self.head.wanted > 0 && cost <= self.head.room;
        if is_head {
            self.head.wanted -= 1;
            self.head.room -= cost;
            self.head.lines.push(line.clone());
        } else if stream == Stream::Stdout {
            // The first lines without a gap, or none behind it.
            self.head.wanted = 0;
        }
        (line, is_head)
    }

    pub(crate) fn head(&self) -> &[Line] {
        &self.head.lines
    }

    pub(crate) fn into_head(self) -> Vec<Line> {
        self.head.lines
    }

    pub(crate) fn forget_head(&mut self) {
        self.head = Head {
            lines: Vec::new(),
            room: 0,
            wanted: 0,
        };
    }

    /// Sends a signal to the process group; once the process ended there is nobody to hear it.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.end.is_none() {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// The process was reaped.
    pub(crate) fn reaped(&mut self, exit: Exit, now: Instant) {
        self.end = Some(End {
            exit,
            at_ms: now_ms(),
            since: now,
        });
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Kills what the process left behind. Gives the exit once nothing of it is left and its
    /// output is read, or after [`LONGEST_END`].
    pub(crate) fn try_finish(&mut self, now: Instant) -> Option<(Exit, u64)> {
        let end = self.end.as_ref()?;
        let group_is_gone = kill_process_group(self.pid, Signal::KILL).is_err();
        let orphans = descendants::kill_orphans();
        let is_read = self.stdout.descriptor.is_none() && self.stderr.descriptor.is_none();
        let is_over = group_is_gone && orphans == 0 && is_read;
        (is_over || now >= end.since + LONGEST_END).then_some((end.exit, end.at_ms))
    }

    /// Removes the directory of this start. Symbolic links in it are removed, not followed.
    pub(crate) fn remove_directory(&self) -> std::io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
