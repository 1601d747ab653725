//! What the plugin writes: to the sidecar as lines, to the container's log as it is.

use super::Launcher;
use crate::mirror::STALL;
use crate::outbox::{LINE_COST, ROOM, ROOM_AND_A_LINE};
use patchbay_launcher::control::{LineEnd, Stream};
use rustix::io::Errno;
use std::time::Instant;

/// Most bytes in one read.
const PIECE: usize = 4096;

impl Launcher {
    pub(super) fn read_output(&mut self, stream: Stream, now: Instant) {
        let is_heard = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.is_greeted() && connection.progress + STALL > now);
        let (most, room) = if is_heard {
            // Even if every byte were a line, they would fit.
            let most = ROOM.saturating_sub(self.outbox.size()) / LINE_COST;
            (most, ROOM_AND_A_LINE)
        } else {
            (PIECE, ROOM)
        };
        let mut piece = [0; PIECE];
        let piece = &mut piece[..most.clamp(64, PIECE)];
        let Some(running) = &mut self.running else {
            return;
        };
        let pipe = running.pipe(stream);
        let Some(descriptor) = &pipe.descriptor else {
            return;
        };
        match rustix::io::read(descriptor, &mut *piece) {
            Ok(0) => self.close_output(stream),
            Ok(count) => {
                let mut lines = std::mem::take(&mut pipe.lines);
                lines.push(&piece[..count], |bytes, end| {
                    let (line, is_head) = running.line(stream, bytes, end);
                    self.outbox.push_line(line, is_head);
                });
                running.pipe(stream).lines = lines;
                self.outbox.shrink(room);
                self.mirror_mut(stream).put(&piece[..count], now);
                self.write(now);
            }
            Err(Errno::INTR | Errno::AGAIN) => (),
            Err(_) => self.close_output(stream),
        }
    }

    pub(super) fn close_output(&mut self, stream: Stream) {
        let Some(running) = &mut self.running else {
            return;
        };
        let pipe = running.pipe(stream);
        pipe.descriptor = None;
        let mut lines = std::mem::take(&mut pipe.lines);
        lines.finish(|bytes, end: LineEnd| {
            let (line, is_head) = running.line(stream, bytes, end);
            self.outbox.push_line(line, is_head);
        });
    }
}
