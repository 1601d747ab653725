//! The two system interfaces for which neither the standard library nor rustix has a sound
//! function. All unsafe code of the project stands here.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that stop a container: the default, and what images name instead as STOPSIGNAL.
const STOPPING: [c_int; 5] = [
    SIGTERM, 1,  /* HUP */
    2,  /* INT */
    3,  /* QUIT */
    37, /* RTMIN+3 */
];
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const SIG_ERR: usize = usize::MAX;

const SOL_SOCKET: c_int = 1;
const SO_PEERCRED: c_int = 17;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn getsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut u32,
    ) -> c_int;
}

static WAKE: OnceLock<OwnedFd> = OnceLock::new();
static STOP: AtomicBool = AtomicBool::new(false);

/// Only touches an atomic and makes one raw system call that leaves errno alone.
extern "C" fn on_signal(number: c_int) {
    if number != SIGCHLD {
        STOP.store(true, Ordering::Relaxed);
    }
    if let Some(wake) = WAKE.get() {
        // A full pipe wakes as well.
        let _ = rustix::io::write(wake, &[0]);
    }
}

/// Installs the handlers; every signal makes `wake`, the writing end of a pipe, wake the loop.
pub(crate) fn catch_signals(wake: OwnedFd) -> io::Result<()> {
    WAKE.set(wake)
        .map_err(|_| io::Error::other("signals are caught already"))?;
    for number in STOPPING.into_iter().chain([SIGCHLD]) {
        // SAFETY: the handler is async-signal-safe and lives as long as the program.
        if unsafe { signal(number, on_signal) } == SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether the container was told to stop.
pub(crate) fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

#[repr(C)]
struct PeerCredentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

/// The process that connected a unix socket; 0 when it lives outside our pid namespace.
/// (rustix reads it into a type that cannot be 0.)
pub(crate) fn peer_pid(socket: impl AsFd) -> io::Result<i32> {
    let mut peer = PeerCredentials {
        pid: -1,
        uid: 0,
        gid: 0,
    };
    let mut length = const { size_of::<PeerCredentials>() as u32 };
    // SAFETY: the pointers are to live values, and `length` is the size of the first.
    let result = unsafe {
        getsockopt(
            socket.as_fd().as_raw_fd(),
            SOL_SOCKET,
            SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(peer.pid)
    } else {
        Err(io::Error::last_os_error())
    }
}
