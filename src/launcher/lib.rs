//! What launcher, sidecar and operator have in common: the pod's layout and the control protocol.
//!
//! Nothing here starts a process; that is the binary's business.

#![warn(missing_docs)]

pub mod control;
pub mod layout;
