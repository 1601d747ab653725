//! Copies raw output to the launcher's own stdout or stderr, where `kubectl logs` reads it.
//!
//! A reader that stands still never stands in the plugin's way for longer than [`STALL`]: then
//! output is thrown away, and the gap is marked once there is room again.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// A reader without progress for so long counts as gone.
pub(crate) const STALL: Duration = Duration::from_secs(1);
/// Bytes that may wait for the reader.
const ROOM: usize = 16 * 1024;
/// A pipe that polls writable takes so much without blocking. The descriptor is shared with
/// the process that started us, so that it must not be made non-blocking.
const PIECE: usize = 4096;

/// One copy.
pub(crate) struct Mirror {
    target: OwnedFd,
    waiting: VecDeque<u8>,
    lost: u64,
    progress: Instant,
    closed: bool,
}

impl Mirror {
    pub(crate) fn new(target: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            target: target.as_fd().try_clone_to_owned()?,
            waiting: VecDeque::new(),
            lost: 0,
            progress: Instant::now(),
            closed: false,
        })
    }

    pub(crate) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// Whether something waits for the target to become writable.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Until when the plugin's output should rest, so that nothing is lost; `None` when there is
    /// room or no hope.
    pub(crate) fn rest_until(&self, now: Instant) -> Option<Instant> {
        let until = self.progress + STALL;
        (self.waiting.len() > ROOM - PIECE && until > now).then_some(until)
    }

    /// Takes output, writes what can be written and keeps or drops the rest.
    pub(crate) fn put(&mut self, bytes: &[u8], now: Instant) {
        if self.closed {
            return;
        }
        if self.waiting.is_empty() {
            // Otherwise an old date would count as a stall at the first full pipe.
            self.progress = now;
        }
        if self.waiting.len() + bytes.len() > ROOM {
            self.lost += bytes.len() as u64;
            return;
        }
        if self.lost > 0 {
            let note = format!(
                "\npatchbay-launcher: {} bytes of output are missing here\n",
                self.lost
            );
            self.lost = 0;
            self.waiting.extend(note.as_bytes());
        }
        self.waiting.extend(bytes);
        self.write(now);
    }

    /// Writes as much as goes without blocking.
    pub(crate) fn write(&mut self, now: Instant) {
        while !self.waiting.is_empty() && self.is_writable() {
            let (piece, _) = self.waiting.as_slices();
            match rustix::io::write(&self.target, &piece[..piece.len().min(PIECE)]) {
                Ok(count) => {
                    self.progress = now;
                    self.waiting.drain(..count);
                }
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    // Nobody will ever read again.
                    self.closed = true;
                    self.waiting = VecDeque::new();
                }
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(PIECE);
        }
    }

    fn is_writable(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.target, PollFlags::OUT)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut descriptors, Some(&at_once)), Ok(1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_stands_still_costs_bounded_memory_and_leaves_a_mark() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut mirror = Mirror::new(&writer).unwrap();
        drop(writer);
        let start = Instant::now();
        for _ in 0..1000 {
            mirror.put(&[b'x'; 1000], start);
            assert!(mirror.waiting.len() <= ROOM + 100);
        }
        assert!(
            mirror.rest_until(start).is_some(),
            "the plugin rests at first"
        );
        assert!(
            mirror.rest_until(start + STALL).is_none(),
            "and not for ever"
        );
        let lost = mirror.lost;
        assert!(lost > 0);
        let mut got = vec![0; 60_000];
        reader.read_exact(&mut got).unwrap();
        mirror.write(start);
        mirror.put(b"end\n", start);
        drop(mirror);
        got.clear();
        reader.read_to_end(&mut got).unwrap();
        let tail = String::from_utf8_lossy(&got);
        assert!(tail.ends_with(&format!(
            "patchbay-launcher: {lost} bytes of output are missing here\nend\n"
        )));
    }

    #[test]
    fn a_closed_target_is_forgotten() {
        let (reader, writer) = io::pipe().unwrap();
        let mut mirror = Mirror::new(&writer).unwrap();
        drop(reader);
        mirror.put(b"x", Instant::now());
        mirror.put(b"x", Instant::now());
        assert!(!mirror.is_waiting());
    }
}
