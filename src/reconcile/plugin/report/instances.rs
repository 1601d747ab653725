//! The list of instances and the one that speaks for all.

use crate::plugin::assess::Assessed;
use patchbay_api::plugin_status::InstanceStatus;

/// At most `most` lines, the worst first and then by ordinal; and how many are left out.
pub(super) fn worst_first(assessed: &[Assessed], most: usize) -> (Vec<InstanceStatus>, usize) {
    let mut lines: Vec<_> = assessed.iter().map(|a| a.line.clone()).collect();
    lines.sort_by(|a, b| (a.state, a.ordinal, &a.pod).cmp(&(b.state, b.ordinal, &b.pod)));
    let omitted = lines.len().saturating_sub(most);
    lines.truncate(most);
    (lines, omitted)
}

/// The handshaken instance whose process has run longest; the answer does not change while that
/// process lives.
pub(super) fn speaker(assessed: &[Assessed]) -> Option<&Assessed> {
    assessed
        .iter()
        .filter(|a| a.handshaken && !a.terminating)
        .min_by_key(|a| {
            (
                a.line.started_at.as_ref().map(|t| t.0),
                a.line.ordinal,
                a.line.pod.clone(),
            )
        })
}

/// The replica whose trouble is shown: the first of the worst state among those that count.
pub(super) fn worst<'a>(assessed: &[&'a Assessed]) -> Option<&'a Assessed> {
    assessed
        .iter()
        .copied()
        .filter(|a| !a.ready())
        .min_by_key(|a| (a.line.state, a.line.ordinal, a.line.pod.clone()))
}
