//! A gRPC status in words. Pure.

use tonic::Status;

/// `NotFound (5): no such key`, with the causes beneath a failed connection. The message is the
/// other side's: code that shows it bounds it and removes what acts on a terminal.
pub fn said(status: &Status) -> String {
    let mut text = format!("{:?} ({})", status.code(), i32::from(status.code()));
    let message = status.message().trim();
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_shows_name_number_and_message() {
        assert_eq!(
            said(&Status::not_found(" no such key\n")),
            "NotFound (5): no such key"
        );
        assert_eq!(said(&Status::unavailable("")), "Unavailable (14)");
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::io::Error::other("connection refused");
        let mut status = Status::unavailable("no connection");
        status.set_source(std::sync::Arc::new(cause));
        assert_eq!(
            said(&status),
            "Unavailable (14): no connection: connection refused"
        );
    }
}
