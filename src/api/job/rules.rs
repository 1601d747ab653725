//! The rules of a Job in CEL. Those about a change run on updates of status too, so that not even
//! a faulty writer moves a job out of its end.
//!
//! Each message names the field, what was found, what is expected and what to do. Every rule has
//! an accepted and a rejected example in `rules_tests`. What CEL cannot see is checked by the
//! operator: the size of `target.optional` and the command against what the plugin advertises.

use crate::schema::{rule, telling};
use serde_json::{Value, json};

/// On the object itself.
pub(crate) const NAME: &str = "size(self.metadata.name) <= 48 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
/// What [`NAME`] says.
pub(crate) const NAME_MESSAGE: &str = "'metadata.name is ' + self.metadata.name + '; expected at most 48 characters of a-z, 0-9 and -, because names of objects with output are made from it: choose a shorter or simpler name'";

pub(super) fn spec() -> Value {
    let mut rules = vec![
        rule(
            "has(self.command) != has(self.call)",
            "spec has both command and call, or neither; expected exactly one: command for a PCP controller plugin, call for a gRPC plugin",
        ),
        telling(
            "!has(self.startTime) || !has(self.expireTime) || timestamp(self.expireTime) > timestamp(self.startTime)",
            "'spec.expireTime is ' + self.expireTime + ' and startTime ' + self.startTime + '; expected the end after the beginning: correct one of them'",
            "spec.expireTime is not after startTime: correct one of them",
        ),
        rule(
            "self.backoffLimit == 0 || self.deliveryPolicy == 'AtLeastOnce'",
            "spec.backoffLimit is more than 0 and deliveryPolicy AtMostOnce; expected further attempts only for work that may be done twice: set backoffLimit to 0 or deliveryPolicy to AtLeastOnce",
        ),
    ];
    let always = [
        "pluginRef",
        "target",
        "backoffLimit",
        "backoff",
        "deliveryPolicy",
        "outputPolicy",
    ];
    rules.extend(always.map(|field| unchanged(field, &format!("self.{field} == oldSelf.{field}"))));
    let optional = ["command", "call", "activeDeadlineSeconds"];
    rules.extend(optional.map(|field| {
        unchanged(
            field,
            &format!(
                "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
            ),
        )
    }));
    // Two spellings of one time are the same: a program may write it with or without a fraction.
    rules.push(unchanged(
        "startTime",
        "has(self.startTime) == has(oldSelf.startTime) && (!has(self.startTime) || timestamp(self.startTime) == timestamp(oldSelf.startTime))",
    ));
    Value::Array(rules)
}

pub(super) fn time() -> Value {
    json!([telling(
        "timestamp(self) >= timestamp('1970-01-01T00:00:00Z') && timestamp(self) < timestamp('2200-01-01T00:00:00Z')",
        "'the time is ' + self + '; expected one from 1970 to 2199, because others are slips of a unit: correct it'",
        "the time must lie between 1970 and 2199: check the unit",
    )])
}

fn unchanged(field: &str, same: &str) -> Value {
    rule(
        same,
        &format!(
            "spec.{field} would change; expected that only suspend, priority, ttlSecondsAfterFinished and expireTime change after creation: make a new Job"
        ),
    )
}

pub(super) fn plugin_ref() -> Value {
    json!([telling(
        "self.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "'pluginRef.name is ' + self.name + '; expected the name of a Plugin, made of a-z, 0-9 and -: copy it from kubectl get pbplugins'",
        "pluginRef.name cannot be the name of a Plugin: copy it from kubectl get pbplugins",
    )])
}

pub(super) fn target() -> Value {
    json!([
        telling(
            "self.client == '' || self.client.matches('^[0-9A-Za-z]([-_.0-9A-Za-z]*[0-9A-Za-z])?$') || isIP(self.client) || (self.client.matches('^::[fF]{4}:[0-9]') && isIP(self.client.substring(7)))",
            "'target.client is ' + self.client + '; expected an IPv4 or IPv6 address or the name of a host, without port, brackets, zone and spaces: write only the address, the port belongs to the plugin'",
            "target.client is not an address or the name of a host, without port, brackets, zone and spaces: write only the address",
        ),
        telling(
            "self.port == '' || (self.port.matches('^[1-9][0-9]{0,4}$') && int(self.port) <= 65535)",
            "'target.port is ' + self.port + '; expected the plugin\\'s port as a decimal number from 1 to 65535 without leading zeros, or nothing for any: correct or remove it'",
            "target.port is not a decimal number from 1 to 65535 without leading zeros: correct or remove it",
        ),
    ])
}

pub(super) fn backoff() -> Value {
    json!([rule(
        "self.initialSeconds <= self.maxSeconds",
        "backoff.initialSeconds is greater than maxSeconds: correct one of them",
    )])
}

/// Of the object: what became of a job is never forgotten.
pub(crate) const STATUS_STAYS: &str = "!has(oldSelf.status) || has(self.status)";
/// What [`STATUS_STAYS`] says.
pub(crate) const STATUS_STAYS_MESSAGE: &str =
    "status would vanish; expected that what became of a job is never forgotten";

pub(crate) fn status() -> Value {
    json!([
        rule(
            "!has(oldSelf.phase) || (has(self.phase) && (self.phase == oldSelf.phase || !(oldSelf.phase in ['Invalid', 'Succeeded', 'Failed'])))",
            "status.phase would leave an end or vanish; expected that nothing leaves Invalid, Succeeded and Failed",
        ),
        rule(
            "!has(oldSelf.phase) || !has(self.phase) || oldSelf.phase != 'Ready' || self.phase != 'Waiting'",
            "status.phase would go from Ready to Waiting; expected that a job whose time has come stays ready, whatever a clock says",
        ),
        rule(
            "!has(self.phase) || !(self.phase in ['Claimed', 'Running']) || has(self.claim)",
            "status.phase is Claimed or Running without a claim; expected the claim of the pod that has the job",
        ),
        rule(
            "!has(self.claim) || !has(oldSelf.claim) || self.claim.claimId == oldSelf.claim.claimId",
            "status.claim would go from one claim directly to another; expected that a job is given back before it is claimed again",
        ),
        rule(
            "self.attempt >= oldSelf.attempt",
            "status.attempt would fall; expected that attempts are counted up",
        ),
        rule(
            "!has(self.conditions) || !self.conditions.exists(c, c.type == 'Complete' && c.status == 'True') || !self.conditions.exists(c, c.type == 'Failed' && c.status == 'True')",
            "status.conditions says both Complete and Failed; expected one end",
        ),
    ])
}

pub(crate) fn output() -> Value {
    json!([rule(
        "self == oldSelf",
        "spec would change; expected that output never changes once it is stored",
    )])
}
