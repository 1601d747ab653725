//! How a row of output is written in a Job: as text where JSON can hold it, else as base64; in
//! the Job itself while it is small, else in objects of kind JobOutput.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use patchbay_api::Job;
use patchbay_api::job_status::{Encoding, MAX_PREVIEW, MAX_ROWS, Output};
use sha2::{Digest, Sha256};

/// The one row of a job that nobody got in time.
pub const TIMEOUT: &str = "Job Timeout";

/// Whether bytes can stand in JSON as they are: UTF-8 without NUL.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Writes a row or a piece of one. `text` says whether the plugin gave text; bytes stay bytes, so
/// that reading back gives the same kind.
pub fn encode(bytes: &[u8], text: bool) -> (Encoding, String) {
    if text
        && !bytes.contains(&0)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return (Encoding::Text, text.to_owned());
    }
    (Encoding::Base64, STANDARD.encode(bytes))
}

/// The beginning of a row as `status.output.preview` has it, from its first bytes (a few thousand
/// are enough). `text` says whether the whole row is written as text.
pub fn preview(head: &[u8], text: bool) -> String {
    if text {
        // The head may end inside a character.
        let whole = match std::str::from_utf8(head) {
            Ok(whole) => whole,
            Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
        };
        return first_chars(whole, MAX_PREVIEW).to_owned();
    }
    // Four characters of base64 hold three bytes, so the cut decodes by itself.
    STANDARD.encode(&head[..head.len().min(MAX_PREVIEW / 4 * 3)])
}

/// Maximum number of characters.
pub(crate) fn first_chars(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Whether a further row of this size goes into the Job itself. The writer asks before it
/// stores pieces elsewhere.
pub fn fits_inline(job: &Job, bytes: u64) -> bool {
    let output = job
        .status
        .as_ref()
        .and_then(|status| status.output.as_ref());
    let (rows, used) = output.map_or((0, 0), |output| (output.rows.len(), inline_bytes(output)));
    let most = u64::try_from(job.spec.output_policy.inline_max_bytes).unwrap_or_default();
    rows < MAX_ROWS && used.saturating_add(bytes) <= most
}

/// Bytes of the rows that stand in the Job itself.
fn inline_bytes(output: &Output) -> u64 {
    output
        .rows
        .iter()
        .filter(|row| row.content.is_some())
        .map(|row| u64::try_from(row.bytes).unwrap_or_default())
        .sum()
}

/// Hexadecimal digits of a digest.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in digest {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// SHA-256 of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_stored_as_text_and_bytes_as_base64() {
        for text in ["42.42", "666", "True", "", "grüße"] {
            assert_eq!(
                encode(text.as_bytes(), true),
                (Encoding::Text, text.to_owned())
            );
        }
        assert_eq!(
            encode(b"\x00\xff", false),
            (Encoding::Base64, "AP8=".to_owned())
        );
        assert_eq!(encode(b"abc", false), (Encoding::Base64, "YWJj".to_owned()));
    }

    #[test]
    fn text_that_json_cannot_hold_is_stored_as_base64() {
        for bytes in [&b"a\0b"[..], b"\xff", b"\xc3"] {
            assert_eq!(encode(bytes, true).0, Encoding::Base64);
            assert!(!is_text(bytes));
        }
    }

    #[test]
    fn preview_is_cut_between_characters_and_decodes_alone() {
        let text = "ä".repeat(5000);
        assert_eq!(preview(text.as_bytes(), true).chars().count(), MAX_PREVIEW);
        assert_eq!(preview(&text.as_bytes()[..7], true), "äää");
        let bytes = preview(&[7; 5000], false);
        assert_eq!(bytes.len(), MAX_PREVIEW);
        assert_eq!(STANDARD.decode(bytes).unwrap(), [7; MAX_PREVIEW / 4 * 3]);
    }

    #[test]
    fn digest_is_written_as_64_lower_case_digits() {
        assert_eq!(
            hex(&digest(b"")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
