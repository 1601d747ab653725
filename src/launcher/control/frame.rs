//! Frames: a length, then kind and body.

use super::MAX_FRAME;
use std::fmt;

/// Size of the length in front of a frame.
const PREFIX: usize = 4;

/// A value does not fit into one frame of [`MAX_FRAME`] bytes, or one of its lists is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "encoding a control frame: it is longer than {MAX_FRAME} bytes"
        )
    }
}

impl std::error::Error for TooLong {}

/// The peer broke the format. The connection cannot be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decoding a control frame: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Puts the length in front of kind and body.
pub(super) fn seal(
    kind: u8,
    body: impl FnOnce(&mut super::wire::Writer),
) -> Result<Vec<u8>, TooLong> {
    let mut writer = super::wire::Writer::new();
    writer.u32(0);
    writer.u8(kind);
    body(&mut writer);
    let mut frame = writer.finish()?;
    let length = frame.len() - PREFIX;
    if length > MAX_FRAME {
        return Err(TooLong);
    }
    let length = u32::try_from(length).map_err(|_| TooLong)?;
    frame[..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Cuts a byte stream into frames; for blocking and for asynchronous readers alike.
///
/// Feed what was read with [`Splitter::push`], then take frames until no whole one is left. Holds at
/// most one frame and what the last `push` brought beyond it, if all frames are taken each time.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: Vec<u8>,
    taken: usize,
}

impl Splitter {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, kind and body, or `None` until more bytes came.
    ///
    /// # Errors
    /// [`Malformed`] for a frame without a kind or longer than [`MAX_FRAME`]; the same error
    /// again for every later call.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let rest = &self.buffer[self.taken..];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            self.give_back();
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(Malformed("a frame has no kind"));
        }
        if length > MAX_FRAME {
            return Err(Malformed("a frame is longer than the limit"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.taken + PREFIX;
        self.taken = start + length;
        Ok(Some(&self.buffer[start..self.taken]))
    }

    /// Returns the memory of a large frame once everything was taken.
    fn give_back(&mut self) {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
            self.buffer.shrink_to(4096);
        }
    }
}
