//! The launcher as a process: PID 1 of its own pid namespace, spoken to from outside, as in a pod.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod output;
mod sidecar;
mod starting;
mod stopping;
mod surviving;
