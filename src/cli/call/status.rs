//! gRPC status as text.

use patchbay_protocol::reflect::said;
use tonic::{Code, Status, TimeoutExpired};

use crate::stdio::escape_control;

/// `NotFound (5): no such key`. The message is untrusted, so control characters are escaped.
pub(crate) fn text(status: &Status) -> String {
    escape_control(&said(status))
}

/// Whether the deadline passed on this side; tonic reports that as Cancelled.
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

pub(crate) fn hint(status: &Status) -> Option<&'static str> {
    match status.code() {
        Code::DeadlineExceeded => {
            Some("the plugin did not respond in time; --timeout sets another limit")
        }
        Code::Unimplemented => Some("the plugin describes the method but does not implement it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_escapes_control_characters() {
        assert_eq!(
            text(&Status::unknown("a\u{1b}[2Jb")),
            "Unknown (2): a\\u{1b}[2Jb"
        );
    }
}
