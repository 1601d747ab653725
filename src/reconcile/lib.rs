//! What a Plugin or a Job needs, decided without a cluster: no client, no clock, no randomness, no task.
//!
//! One reconcile is five calls with the same names for every kind:
//!
//! 1. **observe** (the operator) fills [`plugin::observe::Observed`];
//! 2. [`plugin::resolve`] parses it: wanted, refused or on its way out;
//! 3. [`plugin::desire`] says what to do, as a list of [`plugin::action::Action`];
//! 4. **apply** (the operator) does it, in order, up to the first action that does not succeed;
//! 5. [`plugin::report`] makes status, events and the time of the next look.
//!
//! The command line and the tests run the very same functions.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod build;
pub mod family;
pub mod job;
mod moment;
pub mod plugin;
pub mod suggest;
pub mod text;
