//! The sidecar of a plugin pod: the host side of the plugin's protocol and the only holder of
//! credentials.
//!
//! `run.rs` is the main loop, `instance/` the state machine that `driver.rs` drives, `session/` what
//! the operator talks to, `proxy/` what client programs talk to, `workers/` what the workers of a
//! PCP controller plugin talk to, `family/` what each family of plugins needs, `jobs/` where work comes
//! from and where its output goes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod arguments;
pub mod configuration;
pub mod counters;
pub mod debug;
pub mod directory_watch;
mod driver;
pub mod error;
pub mod family;
pub mod handover;
pub mod install;
pub mod instance;
pub mod jobs;
pub mod launcher_connection;
pub mod logs;
pub mod output;
pub mod paths;
pub mod proxy;
pub mod random;
pub mod ready;
pub mod run;
pub mod sandbox;
pub mod session;
pub mod start_command;
pub mod workers;
