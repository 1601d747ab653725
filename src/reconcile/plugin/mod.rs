//! The kind Plugin: one file per step.

pub mod action;
pub mod assess;
pub mod change;
pub mod desire;
pub mod kubelet;
pub mod observe;
pub mod our_pod;
pub mod report;
pub mod resolve;

#[cfg(test)]
pub(crate) mod samples;

pub use desire::desire;
pub use report::report;
pub use resolve::resolve;
