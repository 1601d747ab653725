//! Foreign texts, made safe to print.

use patchbay_protocol::escape::printable;

/// At most `limit` bytes of `text`, printable and on one line. Escapes that the sidecar made stay
/// as they are.
pub(crate) fn bounded_text(text: &str, limit: usize) -> String {
    let parts: Vec<String> = text
        .split('\\')
        .map(|part| printable(part.as_bytes(), limit))
        .collect();
    let mut out = parts.join("\\");
    if out.len() > limit {
        let mut end = limit;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character_and_shows_what_is_hidden() {
        assert!(bounded_text("añb", 2).len() <= 2);
        assert_eq!(bounded_text("a\u{1b}[31mb", 100), "a\\x1b[31mb");
        assert!(!bounded_text("a\u{202e}b", 100).contains('\u{202e}'));
    }

    #[test]
    fn escapes_that_the_sidecar_made_are_not_escaped_again() {
        assert_eq!(bounded_text("a\\x1bb \\\\ c", 100), "a\\x1bb \\\\ c");
    }
}
