//! Words for people: bounded, on one line, and with foreign parts escaped.

use patchbay_api::plugin_status::{MAX_FOREIGN, MAX_MESSAGE};
use patchbay_api::reasons::{Mover, Reason};
use patchbay_protocol::escape::printable;

/// A text of the kubelet, the API server or a container runtime: escaped and bounded.
pub fn untrusted_text(text: &str) -> String {
    printable(text.as_bytes(), MAX_MESSAGE / 2)
}

/// A short text from elsewhere: a name, a kind.
pub fn untrusted_name(text: &str) -> String {
    printable(text.as_bytes(), MAX_FOREIGN)
}

/// Cuts a text that is already safe to show. Never inside a character.
pub fn cut(text: &str, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

/// A message of a condition: what was found, then whose move it is.
pub fn with_mover(message: &str, reason: Reason) -> String {
    let message = message.trim_end();
    let mover = reason.mover();
    if mover == Mover::Nobody {
        return cut(message, MAX_MESSAGE);
    }
    let tail = format!(" Next move: {}.", mover.as_str());
    let mut head = cut(message, MAX_MESSAGE - tail.len() - 1);
    if !head.is_empty() && !head.ends_with(['.', '!', '?', '…']) {
        head.push('.');
    }
    format!("{head}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_next_move() {
        let text = with_mover(&"ä".repeat(2000), Reason::CookieRejected);
        assert!(text.len() <= MAX_MESSAGE, "{}", text.len());
        assert!(
            text.ends_with("… Next move: the author of this Plugin."),
            "{text}"
        );
    }

    #[test]
    fn sentence_with_a_full_stop_gets_no_second_one() {
        assert_eq!(
            with_mover("The image is gone.", Reason::ImagePullFailed),
            "The image is gone. Next move: the author of this Plugin."
        );
        assert_eq!(
            with_mover("2 of 2 answer calls", Reason::Ready),
            "2 of 2 answer calls"
        );
    }

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(untrusted_text("a\nb\u{202e}c"), "a\\nb\\u{202e}c");
        assert!(untrusted_text(&"x".repeat(9000)).len() <= MAX_MESSAGE / 2);
    }
}
