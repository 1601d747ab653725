//! Cuts what a process writes into lines.

use patchbay_launcher::control::{LineEnd, MAX_LINE};

/// One stream's unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    unfinished: Vec<u8>,
    /// The line was cut; its rest is thrown away.
    skipping: bool,
}

impl Lines {
    /// Takes bytes and gives every line that they complete. A carriage return stays.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Vec<u8>, LineEnd)) {
        while !bytes.is_empty() {
            let feed = bytes.iter().position(|&byte| byte == b'\n');
            let (text, rest) = match feed {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => (bytes, &bytes[bytes.len()..]),
            };
            bytes = rest;
            if !self.skipping {
                let room = MAX_LINE - self.unfinished.len();
                self.unfinished
                    .extend_from_slice(&text[..text.len().min(room)]);
                if text.len() > room {
                    // Told at once: the line feed may never come.
                    self.skipping = true;
                    each(std::mem::take(&mut self.unfinished), LineEnd::Cut);
                }
            }
            if feed.is_some() {
                if !self.skipping {
                    each(std::mem::take(&mut self.unfinished), LineEnd::Newline);
                }
                self.skipping = false;
            }
        }
    }

    /// The stream is closed: gives the last line if it has no line feed.
    pub(crate) fn finish(&mut self, each: impl FnOnce(Vec<u8>, LineEnd)) {
        if !self.unfinished.is_empty() {
            each(std::mem::take(&mut self.unfinished), LineEnd::Eof);
        }
        self.skipping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(Vec<u8>, LineEnd)> {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for piece in pieces {
            lines.push(piece, |bytes, end| got.push((bytes, end)));
        }
        lines.finish(|bytes, end| got.push((bytes, end)));
        got
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(
            cut(&[b"a", b"b\n\nc\r\nd"]),
            [
                (b"ab".to_vec(), LineEnd::Newline),
                (b"".to_vec(), LineEnd::Newline),
                (b"c\r".to_vec(), LineEnd::Newline),
                (b"d".to_vec(), LineEnd::Eof),
            ]
        );
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_one_byte_more_is_cut_once() {
        let whole = vec![b'x'; MAX_LINE];
        assert_eq!(cut(&[&whole, b"\n"]), [(whole.clone(), LineEnd::Newline)]);
        assert_eq!(
            cut(&[&whole, b"y", &whole, &whole, b"\nz\n"]),
            [(whole, LineEnd::Cut), (b"z".to_vec(), LineEnd::Newline)]
        );
    }
}
