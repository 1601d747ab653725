//! gRPC status for people. Pure.

use crate::output::clean;
use tonic::{Code, Status, TimeoutExpired};

/// `NotFound (5): no such key`, with the cause beneath a failed connection.
pub(crate) fn text(status: &Status) -> String {
    let mut text = format!("{:?} ({})", status.code(), i32::from(status.code()));
    // The plugin wrote it: nothing in it may reach the terminal as a control sequence.
    let message = clean(status.message().trim());
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(&message);
    }
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// Whether the deadline passed on this side: the client's library calls that Cancelled.
pub(crate) fn timed_out_here(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What may help, for a code that has an answer of ours.
pub(crate) fn hint(status: &Status) -> Option<&'static str> {
    match status.code() {
        Code::DeadlineExceeded => {
            Some("the plugin did not answer in time; --timeout sets another limit")
        }
        Code::Unimplemented => Some("the plugin describes the method and does not offer it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_name_number_and_message() {
        assert_eq!(
            text(&Status::not_found("no such key")),
            "NotFound (5): no such key"
        );
        assert_eq!(text(&Status::unavailable("")), "Unavailable (14)");
        assert_eq!(
            text(&Status::unknown("a\u{1b}[2Jb")),
            "Unknown (2): a\\u{1b}[2Jb"
        );
    }
}
