//! What launcher, sidecar and operator have in common: the pod's layout and the control protocol.
//!
//! Nothing here starts a process; that is the binary's business.

pub mod control;
pub mod layout;
