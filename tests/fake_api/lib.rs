//! An API server in memory, for the unit tests of the operator and for the simulation.
//!
//! It knows what optimistic concurrency needs and no more: objects by their paths, uids, resource
//! versions, generations, the subresource status, preconditions. It has no schemas, no defaults and no
//! admission. What it answers is compared with a real API server by [`script`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod client;
mod faults;
pub mod script;
mod server;

pub use client::client;
pub use faults::{FakeApi, Fault};
pub use server::{Answer, ApiRequest, ApiServer, Change};
