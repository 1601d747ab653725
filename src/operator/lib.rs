//! The operator: watches, writes, sessions, leadership, certificates.
//!
//! Nothing here decides what a Plugin needs; that is `patchbay-reconcile`, which knows no client,
//! clock or task. This crate observes, calls it, and writes what it says.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod apply;
pub mod certificates;
pub mod client;
pub mod clock;
pub mod controller;
pub mod events;
pub mod health;
pub mod http;
pub mod jobs;
pub mod key;
pub mod leader;
mod leader_tasks;
pub mod logging;
pub mod metrics;
pub mod queue;
pub mod retry;
pub mod run;
pub mod session;
pub mod settings;
pub mod skew;
pub mod status;
mod text;
pub mod watch;
