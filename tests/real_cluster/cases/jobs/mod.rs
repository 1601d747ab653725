//! Jobs on their ordinary way. Numbers are those of the conformance cases of the PCP job queue.

mod ends;
mod order;
mod outputs;
mod refusals;
mod users;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    [
        order::cases(),
        outputs::cases(),
        refusals::cases(),
        ends::cases(),
        users::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
