//! Makes foreign bytes fit to be shown: in a status field, an event, a log line or a terminal.
//!
//! The result is printable, on one line, bounded, and cannot be taken for anything that we wrote:
//! control characters, line separators, invisible characters and those that turn the writing
//! direction come out as escapes, and a backslash is doubled.

/// How much of an offending line a message quotes, in bytes.
pub const QUOTE: usize = 256;

/// Stands at the end of a text that was cut; three bytes.
const CUT: &str = "…";

/// The printable form of `bytes`, at most `max` bytes long.
///
/// Valid UTF-8 is kept where it is visible; every other byte becomes `\xNN`, every other character
/// `\u{…}`. A longer text ends in `…` and is never cut inside an escape. With `max` below three a
/// cut text is empty.
pub fn printable(bytes: &[u8], max: usize) -> String {
    let mut out = Bounded::new(max);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let fits = match c {
                '\\' => out.push("\\\\"),
                '\n' => out.push("\\n"),
                '\r' => out.push("\\r"),
                '\t' => out.push("\\t"),
                c if c.is_ascii_control() => out.push(&format!("\\x{:02x}", c as u32)),
                c if hidden(c) => out.push(&format!("\\u{{{:x}}}", c as u32)),
                c => out.push(c.encode_utf8(&mut [0; 4])),
            };
            if !fits {
                return out.cut();
            }
        }
        for byte in chunk.invalid() {
            if !out.push(&format!("\\x{byte:02x}")) {
                return out.cut();
            }
        }
    }
    out.text
}

/// Characters that show nothing, break the line or change how the rest is shown.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
}

/// A text that remembers the last place where the mark of a cut still fits.
struct Bounded {
    text: String,
    max: usize,
    room_for_mark: usize,
}

impl Bounded {
    fn new(max: usize) -> Bounded {
        Bounded {
            text: String::new(),
            max,
            room_for_mark: 0,
        }
    }

    fn push(&mut self, piece: &str) -> bool {
        if self.text.len() + piece.len() > self.max {
            return false;
        }
        self.text.push_str(piece);
        if self.text.len() + CUT.len() <= self.max {
            self.room_for_mark = self.text.len();
        }
        true
    }

    fn cut(mut self) -> String {
        self.text.truncate(self.room_for_mark);
        if CUT.len() <= self.max {
            self.text.push_str(CUT);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn visible_text_is_kept() {
        assert_eq!(
            printable("1|1|unix|/run/é漢".as_bytes(), 100),
            "1|1|unix|/run/é漢"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        assert_eq!(
            printable(b"a\0\x1b[31m\n\r\t\\", 100),
            "a\\x00\\x1b[31m\\n\\r\\t\\\\"
        );
        assert_eq!(printable(b"\xff\xc3", 100), "\\xff\\xc3");
        assert_eq!(
            printable("x\u{202e}y\u{2028}".as_bytes(), 100),
            "x\\u{202e}y\\u{2028}"
        );
    }

    #[test]
    fn a_cut_is_marked_and_never_inside_an_escape() {
        assert_eq!(printable(b"abcdef", 6), "abcdef");
        assert_eq!(printable(b"abcdefg", 6), "abc…");
        assert_eq!(printable(b"ab\0\0", 8), "ab…");
        assert_eq!(printable(b"abc", 2), "");
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_bounded_and_printable(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), max in 0usize..400,
        ) {
            let text = printable(&bytes, max);
            prop_assert!(text.len() <= max);
            prop_assert!(!text.chars().any(hidden));
            prop_assert_eq!(&text, &printable(&bytes, max));
        }

        #[test]
        fn different_bytes_look_different(a in ".{0,20}", b in ".{0,20}") {
            prop_assume!(a != b);
            prop_assert_ne!(printable(a.as_bytes(), 4096), printable(b.as_bytes(), 4096));
        }
    }
}
