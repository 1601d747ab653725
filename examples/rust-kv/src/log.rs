//! Lines on standard error in the JSON form that go-plugin hosts take levels from.

use std::io::{self, Write};

/// Something worth knowing.
pub(crate) fn info(message: &str, subject: &str) {
    line("info", message, subject);
}

/// Something that stops the plugin.
pub(crate) fn error(message: &str, subject: &str) {
    line("error", message, subject);
}

/// Text for a person, as it is.
pub(crate) fn plain(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn line(level: &str, message: &str, subject: &str) {
    plain(&format!(
        r#"{{"@level":"{level}","@message":{},"@module":"rust-kv","subject":{}}}"#,
        quoted(message),
        quoted(subject)
    ));
}

/// A JSON string. Control characters are escaped, so a line stays a line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_string_with_quotes_and_line_feeds_stays_one_json_line() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}
