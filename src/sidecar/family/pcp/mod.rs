//! The host side of a controller plugin of the PCP job queue. Its call of `start()` on the jobs socket
//! is its handshake, and its process is all that is watched.
//!
//! `jobs_api.rs` is where it asks for jobs, `commands.rs` what it advertises, `job.rs` the job that it
//! gets; the libraries in `runtime/python` are the other side.

pub mod commands;
mod decisions;
mod failures;
mod http_body;
pub mod job;
pub mod jobs_api;
mod query_string;

#[cfg(test)]
pub(crate) use decisions::TAKEOVER_TIMEOUT_MS;
#[cfg(test)]
pub(crate) mod jobs_api_tests;
