//! Reasons as text: their sentence and who has to act, from the catalogue of the API crate.

use patchbay_api::Reason;
use patchbay_api::reasons::Mover;

/// The message, or the reason's sentence if there is no message.
pub(crate) fn message_or_sentence(reason: &str, message: &str) -> String {
    match Reason::parse(reason) {
        Some(known) if message.is_empty() => known.sentence().to_owned(),
        _ => message.to_owned(),
    }
}

/// Who has to act. `None` if nobody, or if this version does not know the reason.
pub(crate) fn next_move(reason: &str) -> Option<&'static str> {
    Reason::parse(reason)
        .map(Reason::mover)
        .filter(|mover| *mover != Mover::Nobody)
        .map(Mover::as_str)
}

/// Messages of conditions end with the next move; this removes it.
pub(crate) fn without_next_move(message: &str) -> &str {
    message
        .rfind(" Next move: ")
        .map_or(message, |end| &message[..end])
}
