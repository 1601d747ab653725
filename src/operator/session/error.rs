//! Why a session ended.

use super::attach::GREETING;
use super::dial::SessionDialError;
use super::session_loop::PONG;
use crate::text::bounded_text;
use patchbay_protocol::session::{NEWEST, OLDEST};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Dial(#[from] SessionDialError),
    #[error("attaching to the sidecar: {} ({:?})", bounded_text(.0.message(), 256), .0.code())]
    Attach(Box<tonic::Status>),
    #[error("greeting the sidecar: no greeting within {} s", GREETING.as_secs())]
    Silent,
    #[error("greeting the sidecar: its first message is no greeting")]
    NoHello,
    #[error("greeting the sidecar: it chose session version {0}, we speak {OLDEST} to {NEWEST}")]
    Version(u32),
    #[error("listening to the sidecar: {} ({:?})", bounded_text(.0.message(), 256), .0.code())]
    Broken(Box<tonic::Status>),
    #[error("listening to the sidecar: it closed the session")]
    Closed,
    #[error("listening to the sidecar: no pong within {} s", PONG.as_secs())]
    Dead,
    #[error("greeting the sidecar: its ledger of jobs is invalid or too long")]
    Ledger,
    #[error("telling the sidecar of jobs: it takes nothing more")]
    Slow,
    #[error("taking in output: {0}")]
    Output(&'static str),
}
