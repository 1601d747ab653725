//! gRPC status for people. Pure.

use crate::output::clean;
use patchbay_protocol::reflect::said;
use tonic::{Code, Status, TimeoutExpired};

/// `NotFound (5): no such key`. The plugin wrote it: nothing in it may reach the terminal as a
/// control sequence.
pub(crate) fn text(status: &Status) -> String {
    clean(&said(status))
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
    fn what_a_plugin_wrote_does_not_act_on_the_terminal() {
        assert_eq!(
            text(&Status::unknown("a\u{1b}[2Jb")),
            "Unknown (2): a\\u{1b}[2Jb"
        );
    }
}
