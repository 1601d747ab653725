//! The rules of a Job in CEL. Those about a change run on updates of status too, so that a faulty
//! writer cannot change a final phase.
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
            "'spec.expireTime is ' + self.expireTime + ' and startTime ' + self.startTime + '; expected expireTime after startTime: correct one of them'",
            "spec.expireTime is not after startTime: correct one of them",
        ),
        rule(
            "self.backoffLimit == 0 || self.deliveryPolicy == 'AtLeastOnce'",
            "spec.backoffLimit is greater than 0 and deliveryPolicy is AtMostOnce; expected retries with AtLeastOnce only, for work that may be done twice: set backoffLimit to 0 or deliveryPolicy to AtLeastOnce",
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
        "'the time is ' + self + '; expected a time from 1970 to 2199, because other times usually result from a wrong unit: correct it'",
        "the time is not from 1970 to 2199: check the unit",
    )])
}

fn unchanged(field: &str, same: &str) -> Value {
    rule(
        same,
        &format!(
            "spec.{field} was changed; expected changes of suspend, priority, ttlSecondsAfterFinished and expireTime only, because the other fields are immutable: create a new Job"
        ),
    )
}

pub(super) fn plugin_ref() -> Value {
    json!([telling(
        "self.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "'pluginRef.name is ' + self.name + '; expected the name of a Plugin, which consists of a-z, 0-9 and -: copy it from kubectl get pbplugins'",
        "pluginRef.name is not a valid name of a Plugin: copy it from kubectl get pbplugins",
    )])
}

pub(super) fn target() -> Value {
    json!([
        telling(
            "self.client == '' || self.client.matches('^[0-9A-Za-z]([-_.0-9A-Za-z]*[0-9A-Za-z])?$') || isIP(self.client) || (self.client.matches('^::[fF]{4}:[0-9]') && isIP(self.client.substring(7)))",
            "'target.client is ' + self.client + '; expected an IPv4 or IPv6 address or a host name, without port, brackets, zone and spaces: write only the address'",
            "target.client is not an IP address or a host name without port, brackets, zone and spaces: write only the address",
        ),
        telling(
            "self.port == '' || (self.port.matches('^[1-9][0-9]{0,4}$') && int(self.port) <= 65535)",
            "'target.port is ' + self.port + '; expected the plugin\\'s port as a decimal number from 1 to 65535 without leading zeros, or an empty string for any port: correct or remove it'",
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

/// Of the object: the status is never removed.
pub(crate) const STATUS_STAYS: &str = "!has(oldSelf.status) || has(self.status)";
/// What [`STATUS_STAYS`] says.
pub(crate) const STATUS_STAYS_MESSAGE: &str = "status was removed; expected it to be kept, because it is the only record of what happened to the Job";

pub(crate) fn status() -> Value {
    json!([
        rule(
            "!has(oldSelf.phase) || (has(self.phase) && (self.phase == oldSelf.phase || !(oldSelf.phase in ['Invalid', 'Succeeded', 'Failed'])))",
            "status.phase was removed or was changed from a final phase; expected no change from Invalid, Succeeded and Failed",
        ),
        rule(
            "!has(oldSelf.phase) || !has(self.phase) || oldSelf.phase != 'Ready' || self.phase != 'Waiting'",
            "status.phase was changed from Ready to Waiting; expected a Job whose start time has passed to stay Ready, even if a clock is set back",
        ),
        rule(
            "!has(self.phase) || !(self.phase in ['Claimed', 'Running']) || has(self.claim)",
            "status.phase is Claimed or Running without a claim; expected the claim of the pod that holds the Job",
        ),
        rule(
            "!has(self.claim) || !has(oldSelf.claim) || self.claim.claimId == oldSelf.claim.claimId",
            "status.claim was replaced by another claim; expected a Job to be released before it is claimed again",
        ),
        rule(
            "self.attempt >= oldSelf.attempt",
            "status.attempt was decreased; expected it to stay the same or to increase",
        ),
        rule(
            "!has(self.conditions) || !self.conditions.exists(c, c.type == 'Complete' && c.status == 'True') || !self.conditions.exists(c, c.type == 'Failed' && c.status == 'True')",
            "status.conditions has both Complete and Failed; expected only one of them",
        ),
    ])
}

pub(crate) fn output() -> Value {
    json!([rule(
        "self == oldSelf",
        "spec was changed; expected no change, because stored output is immutable",
    )])
}
