//! Events that wait for a sidecar. Bounded: when nobody reads, the oldest lines go and are
//! counted, because the newest ones tell why a plugin died.

use patchbay_launcher::control::{Event, Line, MAX_LINE};
use std::collections::VecDeque;

/// Bytes that may wait while no sidecar reads.
pub(crate) const ROOM: usize = 48 * 1024;
/// Bytes that may wait while one does: the end of a long line comes on top.
pub(crate) const ROOM_AND_A_LINE: usize = ROOM + MAX_LINE + 1024;
/// What an empty line costs here: its frame and the memory to hold it.
pub(crate) const LINE_COST: usize = LINE_FRAME + OVERHEAD;
/// The frame of an empty line in bytes.
const LINE_FRAME: usize = 19;
/// An entry of the queue with its reserve, and the allocator's own.
const OVERHEAD: usize = 64;
/// More unread events than this can only come from a peer that never reads.
const MOST_EVENTS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Line,
    /// Shown in the Hello of a new connection, so not to be repeated on it.
    HeadLine,
    /// Counts of lines that are gone.
    Dropped,
    /// The end of a start.
    Exited,
    /// An answer or a state that the next Hello tells anyway.
    Passing,
}

struct Frame {
    bytes: Box<[u8]>,
    kind: Kind,
}

impl Frame {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    fn is_line(&self) -> bool {
        matches!(self.kind, Kind::Line | Kind::HeadLine)
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    size: usize,
    /// Bytes of the first frame that the sidecar has.
    sent: usize,
    lost_lines: u64,
    lost_bytes: u64,
}

impl Outbox {
    /// Adds a line of output; `head` tells that it is retained for the next Hello.
    pub(crate) fn push_line(&mut self, line: Line, head: bool) {
        self.push(
            &Event::Line(line),
            if head { Kind::HeadLine } else { Kind::Line },
        );
    }

    /// Adds anything else.
    pub(crate) fn push_event(&mut self, event: &Event) {
        let kind = match event {
            Event::Exited { .. } => Kind::Exited,
            _ => Kind::Passing,
        };
        self.push(event, kind);
    }

    fn push(&mut self, event: &Event, kind: Kind) {
        // Every event that the launcher makes fits; one that did not would be lost alone.
        if let Ok(bytes) = event.encode() {
            let frame = Frame {
                bytes: bytes.into(),
                kind,
            };
            self.size += frame.cost();
            self.frames.push_back(frame);
        }
    }

    /// How much waits, as [`ROOM`] counts.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.lost_lines == 0
    }

    /// Whether the end of a start waits to be told.
    pub(crate) fn holds_exit(&self) -> bool {
        self.frames.iter().any(|frame| frame.kind == Kind::Exited)
    }

    /// Whether the peer leaves too many answers unread.
    pub(crate) fn is_flooded(&self) -> bool {
        let passing = |frame: &&Frame| frame.kind == Kind::Passing;
        self.frames.iter().filter(passing).count() > MOST_EVENTS
    }

    /// Drops the oldest lines until `room` is kept. The newest line stays, however long it is.
    pub(crate) fn shrink(&mut self, room: usize) {
        while self.size > room {
            let first = usize::from(self.sent > 0);
            let Some(at) = self.frames.iter().skip(first).position(Frame::is_line) else {
                break;
            };
            let at = at + first;
            if at + 1 == self.frames.len() {
                break;
            }
            if let Some(frame) = self.frames.remove(at) {
                self.size -= frame.cost();
                self.lost_lines += 1;
                self.lost_bytes += (frame.bytes.len() - LINE_FRAME) as u64;
            }
        }
    }

    /// The bytes to send next.
    pub(crate) fn front(&mut self) -> Option<&[u8]> {
        if self.sent == 0 && self.lost_lines > 0 {
            let event = Event::Dropped {
                lines: self.lost_lines,
                bytes: self.lost_bytes,
            };
            (self.lost_lines, self.lost_bytes) = (0, 0);
            if let Ok(bytes) = event.encode() {
                let frame = Frame {
                    bytes: bytes.into(),
                    kind: Kind::Dropped,
                };
                self.size += frame.cost();
                self.frames.push_front(frame);
            }
        }
        self.frames.front().map(|frame| &frame.bytes[self.sent..])
    }

    /// The first bytes of [`Outbox::front`], as many as given, are sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self
            .frames
            .front()
            .is_some_and(|frame| frame.bytes.len() <= self.sent)
        {
            if let Some(frame) = self.frames.pop_front() {
                self.size -= frame.cost();
            }
            self.sent = 0;
            if self.frames.is_empty() {
                self.frames.shrink_to(16);
            }
        }
    }

    /// A new sidecar takes over: what its Hello tells is not repeated, and a frame that the old
    /// one had in part is sent from its beginning.
    pub(crate) fn start_over(&mut self) {
        self.sent = 0;
        self.frames
            .retain(|frame| !matches!(frame.kind, Kind::Passing | Kind::HeadLine));
        self.size = self.frames.iter().map(Frame::cost).sum();
    }

    /// The retained lines are forgotten: those that still wait are lines like all others.
    pub(crate) fn forget_head(&mut self) {
        for frame in &mut self.frames {
            if frame.kind == Kind::HeadLine {
                frame.kind = Kind::Line;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use patchbay_launcher::control::{Exit, LineEnd, StartId, Stream};

    fn line(text: &[u8]) -> Line {
        Line {
            start_id: StartId(1),
            stream: Stream::Stdout,
            bytes: text.to_vec(),
            end: LineEnd::Newline,
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(front) = outbox.front() {
            let count = front.len();
            events.push(Event::decode(&front[4..]).unwrap().unwrap());
            outbox.advance(count);
        }
        assert_eq!(outbox.size(), 0);
        events
    }

    #[test]
    fn the_oldest_lines_go_and_are_counted_before_the_rest() {
        let mut outbox = Outbox::default();
        for number in 0..10_000 {
            outbox.push_line(line(format!("{number:05}").as_bytes()), false);
            outbox.shrink(ROOM);
            assert!(outbox.size() <= ROOM);
        }
        let exited = Event::Exited {
            start_id: StartId(1),
            exit: Exit::Code(0),
            at_ms: 1,
        };
        outbox.push_event(&exited);
        outbox.shrink(ROOM);
        let events = drain(&mut outbox);
        let Event::Dropped { lines, bytes } = events[0] else {
            panic!("{:?}", events[0])
        };
        assert_eq!(lines as usize, 10_000 - (events.len() - 2));
        assert_eq!(bytes, lines * 5);
        assert_eq!(events[events.len() - 2], Event::Line(line(b"09999")));
        assert_eq!(events[events.len() - 1], exited);
    }

    #[test]
    fn one_line_of_the_longest_length_is_kept() {
        let mut outbox = Outbox::default();
        outbox.push_line(line(&[b'x'; MAX_LINE]), false);
        outbox.shrink(ROOM);
        assert_eq!(drain(&mut outbox), [Event::Line(line(&[b'x'; MAX_LINE]))]);
    }

    #[test]
    fn a_new_sidecar_gets_a_half_sent_frame_whole_and_no_retained_line_twice() {
        let mut outbox = Outbox::default();
        outbox.push_event(&Event::Terminating);
        outbox.push_line(line(b"in the head"), true);
        outbox.push_line(line(b"half"), false);
        let first = outbox.front().unwrap().len();
        outbox.advance(first);
        outbox.advance(3);
        outbox.start_over();
        assert_eq!(drain(&mut outbox), [Event::Line(line(b"half"))]);
    }

    #[test]
    fn a_half_sent_frame_is_not_dropped() {
        let mut outbox = Outbox::default();
        outbox.push_line(line(b"first"), false);
        outbox.push_line(line(b"second"), false);
        outbox.push_line(line(b"third"), false);
        let _ = outbox.front();
        outbox.advance(1);
        outbox.shrink(0);
        let rest = outbox.front().unwrap().len();
        outbox.advance(rest);
        assert_eq!(
            drain(&mut outbox),
            [
                Event::Dropped { lines: 1, bytes: 6 },
                Event::Line(line(b"third"))
            ]
        );
    }
}
