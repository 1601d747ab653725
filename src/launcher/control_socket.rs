//! The control socket: one sidecar at a time, the newest one.

use crate::outbox::Outbox;
use crate::system;
use patchbay_launcher::control::{Command, Event, Malformed, OLDEST, Splitter, VERSION};
use patchbay_launcher::layout;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, accept_with, send, sendmsg,
};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;
use std::{fmt, fs};

const PIECE: usize = 4096;

/// Why a connection was given up.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The peer went away.
    Closed,
    /// The socket failed.
    Socket(Errno),
    /// The peer broke the format.
    Malformed(Malformed),
    /// The peer did not begin with its Hello.
    NoHello,
    /// No common version.
    Version { oldest: u16, newest: u16 },
    /// The peer orders much and reads nothing.
    Flooded,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Closed => write!(f, "the sidecar went away"),
            Lost::Socket(error) => write!(f, "talking to the sidecar: {error}"),
            Lost::Malformed(error) => write!(f, "talking to the sidecar: {error}"),
            Lost::NoHello => write!(f, "talking to the sidecar: it did not say hello"),
            Lost::Version { oldest, newest } => write!(
                f,
                "talking to the sidecar: it speaks versions {oldest} to {newest}, the launcher {OLDEST} to {VERSION}"
            ),
            Lost::Flooded => write!(f, "talking to the sidecar: it does not read its answers"),
        }
    }
}

/// Opens the control socket in the shared folder.
pub(crate) fn listen(run: &Path) -> io::Result<UnixListener> {
    let path = run.join(layout::CONTROL_SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    // The sidecar has our uid, or else our group.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Takes a waiting connection. `Ok(None)` for a peer of our own pid namespace: that is the
/// plugin or one of its children, never the sidecar, whose pid is not visible here.
pub(crate) fn accept(listener: &UnixListener) -> Result<Option<OwnedFd>, Errno> {
    let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match system::peer_pid(&socket) {
        Ok(0) => Ok(Some(socket)),
        _ => Ok(None),
    }
}

/// One sidecar.
pub(crate) struct Connection {
    socket: OwnedFd,
    splitter: Splitter,
    /// Our Hello, as far as it is not sent.
    hello: Vec<u8>,
    hello_sent: usize,
    /// Whether its Hello came. Nothing but our own Hello is sent before.
    is_greeted: bool,
    /// When it read something last, or had nothing to read.
    pub(crate) progress: Instant,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, hello: &Event, now: Instant) -> Self {
        Self {
            socket,
            splitter: Splitter::new(),
            hello: hello.encode().unwrap_or_default(),
            hello_sent: 0,
            is_greeted: false,
            progress: now,
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Whether something could be sent if the socket were writable.
    pub(crate) fn wants_to_write(&self, outbox: &Outbox) -> bool {
        self.hello_sent < self.hello.len() || self.is_greeted && !outbox.is_empty()
    }

    /// Sends what goes without blocking. `proxy` goes along with the first byte.
    pub(crate) fn write(
        &mut self,
        outbox: &mut Outbox,
        proxy: Option<BorrowedFd<'_>>,
        now: Instant,
    ) -> Result<(), Lost> {
        loop {
            let hello = &self.hello[self.hello_sent..];
            let result = if self.hello_sent == 0 && !hello.is_empty() {
                send_with(&self.socket, hello, proxy)
            } else if !hello.is_empty() {
                send(&self.socket, hello, SendFlags::NOSIGNAL)
            } else if self.is_greeted
                && let Some(front) = outbox.front()
            {
                send(&self.socket, front, SendFlags::NOSIGNAL)
            } else {
                self.progress = now;
                return Ok(());
            };
            match result {
                Ok(count) => {
                    self.progress = now;
                    if self.hello_sent < self.hello.len() {
                        self.hello_sent += count;
                        if self.hello_sent == self.hello.len() {
                            (self.hello, self.hello_sent) = (Vec::new(), 0);
                        }
                    } else {
                        outbox.advance(count);
                    }
                }
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(Lost::Socket(error)),
            }
        }
    }

    /// Reads once and gives the commands that are whole by now.
    pub(crate) fn read(&mut self) -> Result<Vec<Command>, Lost> {
        let mut piece = [0; PIECE];
        let count = match rustix::io::read(&self.socket, &mut piece) {
            Ok(0) => return Err(Lost::Closed),
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => 0,
            Err(error) => return Err(Lost::Socket(error)),
        };
        self.splitter.push(&piece[..count]);
        let mut commands = Vec::new();
        while let Some(frame) = self.splitter.next_frame().map_err(Lost::Malformed)? {
            let command = Command::decode(frame).map_err(Lost::Malformed)?;
            match command {
                Some(Command::Hello { oldest, newest }) => {
                    if oldest > VERSION || newest < OLDEST {
                        return Err(Lost::Version { oldest, newest });
                    }
                    self.is_greeted = true;
                }
                _ if !self.is_greeted => return Err(Lost::NoHello),
                Some(command) => commands.push(command),
                None => (),
            }
        }
        Ok(commands)
    }
}

fn send_with(
    socket: &OwnedFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut beside,
        SendFlags::NOSIGNAL,
    )
}
