//! The loop: signals, the control socket, the plugin's pipes, and the few things that take time.

mod output;
mod sidecar;

use crate::arguments::Arguments;
use crate::control_socket::{self, Connection};
use crate::mirror::{Mirror, STALL};
use crate::outbox::{Outbox, ROOM};
use crate::process::Running;
use crate::{start, system};
use patchbay_launcher::control::{Event, Exit, Line, StartId, State, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, wait};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// A sidecar that went away while the container stops may come back within this time; then the
/// launcher stops the plugin itself.
const RETURN: Duration = Duration::from_secs(2);
/// The last words may take so long to be read.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often an ending process is looked at, beside every signal.
const TICK: Duration = Duration::from_millis(10);

/// Everything that the program knows.
pub(crate) struct Launcher {
    arguments: Arguments,
    launcher_id: u64,
    wake: OwnedFd,
    control: UnixListener,
    proxy: Option<OwnedFd>,
    connection: Option<Connection>,
    /// When the last sidecar went away, or when the program began.
    alone_since: Instant,
    intruder_was_told: bool,
    outbox: Outbox,
    stdout: Mirror,
    stderr: Mirror,
    running: Option<Running>,
    ended: Option<Ended>,
    terminating: bool,
    own_stop: OwnStop,
}

/// The start that ended last.
struct Ended {
    start_id: StartId,
    exit: Exit,
    at_ms: u64,
    /// What it looked like before, for a sidecar to which its lines and its end are still to be
    /// sent.
    before: State,
    head: Vec<Line>,
}

/// The launcher stops the plugin itself because no sidecar is there to do it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnStop {
    NotBegun,
    Term { kill_at: Instant },
    Killed,
}

/// What a descriptor is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake,
    Control,
    Connection,
    Output(Stream),
    Mirror(Stream),
}

impl Launcher {
    /// Takes hold of everything that lives as long as the program.
    pub(crate) fn new(arguments: Arguments) -> io::Result<Self> {
        // Otherwise the plugin, which has our uid, could read our memory and take our sockets.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let (wake, waker) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        system::catch_signals(waker)?;
        start::remove_stale_directories(&arguments.run);
        let control = control_socket::listen(&arguments.run).map_err(|error| {
            let folder = arguments.run.display();
            io::Error::other(format!("opening the control socket in {folder}: {error}"))
        })?;
        let mut launcher = Self {
            arguments,
            // The hasher's keys are the standard library's only random numbers.
            launcher_id: std::hash::RandomState::new().build_hasher().finish(),
            wake,
            control,
            proxy: None,
            connection: None,
            alone_since: Instant::now(),
            intruder_was_told: false,
            outbox: Outbox::default(),
            stdout: Mirror::new(io::stdout())?,
            stderr: Mirror::new(io::stderr())?,
            running: None,
            ended: None,
            terminating: false,
            own_stop: OwnStop::NotBegun,
        };
        launcher.open_proxy();
        Ok(launcher)
    }

    /// Runs until the container is stopped. Gives the program's exit code.
    pub(crate) fn run(&mut self) -> io::Result<u8> {
        loop {
            self.reap();
            self.advance(Instant::now());
            if self.terminating && self.running.is_none() {
                return self.farewell();
            }
            self.wait_and_serve()?;
        }
    }

    /// Lets the sidecar and the log read what is left, for a short time.
    fn farewell(&mut self) -> io::Result<u8> {
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until && self.has_pending_output() {
            self.wait_and_serve()?;
        }
        Ok(match self.ended.as_ref().map(|ended| ended.exit) {
            None => 0,
            Some(Exit::Code(code)) => u8::try_from(code).unwrap_or(1),
            Some(Exit::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(1),
        })
    }

    fn has_pending_output(&self) -> bool {
        let is_heard = self.connection.as_ref().is_some_and(Connection::is_greeted);
        self.stdout.is_waiting() || self.stderr.is_waiting() || is_heard && !self.outbox.is_empty()
    }

    /// Collects every child that ended; as PID 1 we inherit those of others.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => continue,
            };
            if let Some(running) = self.running.as_mut().filter(|running| running.pid() == pid) {
                running.reaped(exit, Instant::now());
            }
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant) {
        if system::stop_requested() && !self.terminating {
            self.terminating = true;
            self.outbox.push_event(&Event::Terminating);
        }
        if let Some(running) = &mut self.running
            && let Some((exit, at_ms)) = running.try_finish(now)
        {
            self.finish(exit, at_ms, now);
        }
        self.stop_without_sidecar(now);
    }

    fn finish(&mut self, exit: Exit, at_ms: u64, now: Instant) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.close_output(stream);
        }
        let Some(running) = self.running.take() else {
            return;
        };
        if let Err(error) = running.remove_directory() {
            self.note(
                &format!(
                    "removing the directory of start {}: {error}",
                    running.start_id
                ),
                now,
            );
        }
        let (start_id, before, head) = (running.start_id, running.state(), running.into_head());
        self.outbox.push_event(&Event::Exited {
            start_id,
            exit,
            at_ms,
        });
        self.ended = Some(Ended {
            start_id,
            exit,
            at_ms,
            before,
            head,
        });
    }

    fn stop_without_sidecar(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        self.own_stop = match self.own_stop {
            OwnStop::NotBegun
                if self.terminating
                    && self.connection.is_none()
                    && now >= self.alone_since + RETURN =>
            {
                running.signal(Signal::TERM);
                OwnStop::Term {
                    kill_at: now + running.term,
                }
            }
            OwnStop::Term { kill_at } if now >= kill_at => {
                running.signal(Signal::KILL);
                OwnStop::Killed
            }
            unchanged => unchanged,
        };
    }

    /// When something is due although no descriptor moves.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let running = self.running.as_ref()?;
        let ending = running.is_ending().then(|| now + TICK);
        let own_stop = match self.own_stop {
            OwnStop::NotBegun if self.terminating && self.connection.is_none() => {
                Some(self.alone_since + RETURN)
            }
            OwnStop::Term { kill_at } => Some(kill_at),
            _ => None,
        };
        let rests = [Stream::Stdout, Stream::Stderr].map(|stream| self.rest_until(stream, now));
        [ending, own_stop].into_iter().chain(rests).flatten().min()
    }

    /// Until when a stream is not read, so that a reader who is only slow loses nothing.
    fn rest_until(&self, stream: Stream, now: Instant) -> Option<Instant> {
        let connection = self
            .connection
            .as_ref()
            .filter(|connection| connection.is_greeted());
        let sidecar = connection
            .map(|connection| connection.progress + STALL)
            .filter(|until| self.outbox.size() > ROOM / 2 && *until > now);
        sidecar.max(self.mirror(stream).rest_until(now))
    }

    fn mirror(&self, stream: Stream) -> &Mirror {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn mirror_mut(&mut self, stream: Stream) -> &mut Mirror {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Waits for the next thing to happen and deals with it.
    fn wait_and_serve(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let until = if self.terminating && self.running.is_none() {
            Some(now + TICK)
        } else {
            self.next_due(now)
        };
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(now);
            // Rounded up: waking a moment too early would only mean to wait again.
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let happened = match self.poll(timeout.as_ref(), now) {
            Ok(happened) => happened,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for (source, flags) in happened {
            self.serve(source, flags);
        }
        Ok(())
    }

    fn poll(
        &self,
        timeout: Option<&Timespec>,
        now: Instant,
    ) -> Result<Vec<(Source, PollFlags)>, Errno> {
        let mut sources = Vec::with_capacity(7);
        let mut descriptors = Vec::with_capacity(7);
        let mut watch = |source, descriptor, flags| {
            sources.push(source);
            descriptors.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        watch(Source::Wake, self.wake.as_fd(), PollFlags::IN);
        watch(Source::Control, self.control.as_fd(), PollFlags::IN);
        if let Some(connection) = &self.connection {
            let write = connection.wants_to_write(&self.outbox);
            let flags = if write {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            watch(Source::Connection, connection.socket(), flags);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mirror = self.mirror(stream);
            if mirror.is_waiting() {
                watch(Source::Mirror(stream), mirror.target(), PollFlags::OUT);
            }
            let Some(running) = &self.running else {
                continue;
            };
            let pipe = match stream {
                Stream::Stdout => &running.stdout,
                Stream::Stderr => &running.stderr,
            };
            if let Some(descriptor) = &pipe.descriptor
                && self.rest_until(stream, now).is_none()
            {
                watch(Source::Output(stream), descriptor.as_fd(), PollFlags::IN);
            }
        }
        poll(&mut descriptors, timeout)?;
        let flags = descriptors.iter().map(PollFd::revents);
        Ok(sources
            .into_iter()
            .zip(flags)
            .filter(|(_, flags)| !flags.is_empty())
            .collect())
    }

    fn serve(&mut self, source: Source, flags: PollFlags) {
        let now = Instant::now();
        match source {
            Source::Wake => {
                let mut bytes = [0; 64];
                while matches!(rustix::io::read(&self.wake, &mut bytes), Ok(1..)) {}
            }
            Source::Control => self.accept(now),
            Source::Connection => {
                if flags.contains(PollFlags::OUT) {
                    self.write(now);
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_commands(now);
                }
            }
            Source::Output(stream) => self.read_output(stream, now),
            Source::Mirror(stream) => self.mirror_mut(stream).write(now),
        }
    }

    /// A word of our own, between the plugin's.
    fn note(&mut self, text: &str, now: Instant) {
        self.stderr
            .put(format!("patchbay-launcher: {text}\n").as_bytes(), now);
    }
}
