//! Calls of methods whose shapes are known only at run time: descriptors by gRPC reflection,
//! messages from JSON and back, and the codec between.
//!
//! Everything here works on a channel that somebody else opened, and bounds what a plugin sends
//! where the protocol does not.

mod codec;
mod descriptors;
mod json;
mod said;
mod shape;

pub use codec::DynamicCodec;
pub use descriptors::{Reflection, ReflectionError};
pub use json::{JsonError, json, messages};
pub use said::said;
pub use shape::shape;

use prost_reflect::MethodDescriptor;

/// `pkg.Service/Method`.
pub fn written(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Whether a service is gRPC's or go-plugin's own and not what the plugin is for.
pub fn is_machinery(service: &str) -> bool {
    service.starts_with("grpc.") || service.starts_with("plugin.")
}
