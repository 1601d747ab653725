//! The kind Job: one file per step, and beside the pass the hand-out.
//!
//! Two rhythms meet in the status of a Job. The pass (observe, resolve, desire, report) accepts,
//! waits, expires, suspends, cancels and deletes. Dispatch ([`dispatch`]) claims a job for a
//! plugin that asks. Both change a status by the functions of [`transition`] only.

pub mod acceptance;
pub mod conditions;
pub mod desire;
pub mod dispatch;
pub mod location;
pub mod observe;
pub mod output;
pub mod report;
pub mod resolve;
pub mod times;
pub mod transition;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use desire::desire;
pub use resolve::resolve;
