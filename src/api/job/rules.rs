//! The rules of a Job in CEL, transition rules included. They run on updates of status too, so
//! that not even a faulty writer moves a job out of its end.

use crate::schema::rule;
use serde_json::{Value, json};

/// On the object itself.
pub(crate) const NAME: &str = "size(self.metadata.name) <= 48 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
/// What [`NAME`] says.
pub(crate) const NAME_MESSAGE: &str = "'metadata.name is ' + self.metadata.name + '; expected at most 48 characters of a-z, 0-9 and -, because names of objects with output are made from it: choose a shorter or simpler name'";

pub(super) fn spec() -> Value {
    json!([rule(
        "has(self.command) != has(self.call)",
        "spec has both command and call, or neither; expected exactly one: command for a controller plugin, call for a gRPC plugin",
    )])
}

pub(super) fn backoff() -> Value {
    json!([rule(
        "self.initialSeconds <= self.maxSeconds",
        "backoff.initialSeconds is greater than maxSeconds: correct one of them",
    )])
}

pub(crate) fn status() -> Value {
    json!([rule(
        "!has(oldSelf.phase) || !(oldSelf.phase in ['Invalid', 'Succeeded', 'Failed']) || (has(self.phase) && self.phase == oldSelf.phase)",
        "status.phase would leave an end; expected that nothing leaves Invalid, Succeeded and Failed",
    )])
}

pub(crate) fn output() -> Value {
    json!([rule(
        "self == oldSelf",
        "spec would change; expected that output never changes once it is stored",
    )])
}
