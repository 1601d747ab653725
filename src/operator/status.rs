//! Status: written only on a difference, at most once a second, the important change first.

use crate::key::PluginKey;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use patchbay_api::reasons::Mover;
use patchbay_api::{ConditionType, Plugin, PluginStatus, Reason};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Two writes of one Plugin's status are at least so far apart.
const APART: Duration = Duration::from_secs(1);
/// Steps on the way are written when they last so long: a write that says "starting" must not
/// keep the one that says "ready" waiting for its second.
const CALM: Duration = Duration::from_secs(3);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusWriteError {
    /// No answer, or no.
    #[error("writing the status: {0}")]
    Api(#[source] Box<kube::Error>),
    /// Cannot happen with our types.
    #[error("comparing the status: {0}")]
    Json(#[from] serde_json::Error),
}

/// How long a change may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Nothing has changed.
    Nothing,
    /// A step on the way.
    Calm,
    /// Somebody waits for it: readiness turned, or there is trouble.
    Now,
}

/// How urgent the change from `old` to `new` is.
pub fn urgency(old: Option<&PluginStatus>, new: &PluginStatus) -> Urgency {
    let Some(old) = old else {
        return Urgency::Now;
    };
    if old == new {
        return Urgency::Nothing;
    }
    let verdict = |status: &PluginStatus, kind: ConditionType| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == kind.as_str())
            .map(|c| (c.status.clone(), c.reason.clone()))
    };
    let turned = |kind| {
        let (old, new) = (verdict(old, kind), verdict(new, kind));
        old.map(|(status, _)| status) != new.map(|(status, _)| status)
    };
    let trouble = ConditionType::SUMMARY.into_iter().any(|kind| {
        let (old, new) = (verdict(old, kind), verdict(new, kind));
        old != new
            && new.is_some_and(|(_, reason)| {
                Reason::parse(&reason)
                    .is_none_or(|r| !matches!(r.mover(), Mover::Nobody | Mover::Patchbay))
            })
    });
    if trouble
        || turned(ConditionType::Ready)
        || turned(ConditionType::Accepted)
        || old.ready_replicas != new.ready_replicas
    {
        Urgency::Now
    } else {
        Urgency::Calm
    }
}

/// When a Plugin's status was written and since when a calm change waits.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    written: Option<Instant>,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// When a change of this urgency may be written.
    fn due(&mut self, urgency: Urgency, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        let wished = match urgency {
            Urgency::Calm => since + CALM,
            Urgency::Now | Urgency::Nothing => now,
        };
        match self.written {
            Some(written) => wished.max(written + APART),
            None => wished,
        }
    }

    fn mark_written(&mut self, now: Instant) {
        self.written = Some(now);
        self.waiting_since = None;
    }
}

/// What became of a report.
#[derive(Debug)]
pub enum StatusWrite {
    /// The status says it already.
    Same,
    /// It was written; this is the object now.
    Now(Box<Plugin>),
    /// It will be written by a pass at this time.
    Later(Instant),
}

pub struct StatusWriter {
    client: Client,
    paces: Mutex<HashMap<PluginKey, Pace>>,
}

impl StatusWriter {
    /// Nothing has been written yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            paces: Mutex::default(),
        }
    }

    /// Makes the status of `plugin` be `new`.
    pub async fn write(
        &self,
        key: &PluginKey,
        plugin: &Plugin,
        new: &PluginStatus,
    ) -> Result<StatusWrite, StatusWriteError> {
        let now = Instant::now();
        // Compared as it will be read back: times lose their fractions on the way.
        let new_value = serde_json::to_value(new)?;
        let new: PluginStatus = serde_json::from_value(new_value.clone())?;
        let urgency = urgency(plugin.status.as_ref(), &new);
        {
            let mut paces = self.lock();
            let pace = paces.entry(key.clone()).or_default();
            if urgency == Urgency::Nothing {
                pace.waiting_since = None;
                return Ok(StatusWrite::Same);
            }
            let due = pace.due(urgency, now);
            if due > now {
                return Ok(StatusWrite::Later(due));
            }
        }
        let old = serde_json::to_value(&plugin.status)?;
        let Some(difference) = difference(&old, &new_value) else {
            return Ok(StatusWrite::Same);
        };
        let patch = json!({
            "metadata": { "uid": plugin.meta().uid },
            "status": difference,
        });
        let plugins: Api<Plugin> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = plugins
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        let written = match answer {
            Ok(written) => written,
            // Gone, or replaced by another of the same name: nobody reads this status any more.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                return Ok(StatusWrite::Same);
            }
            Err(error) => return Err(StatusWriteError::Api(Box::new(error))),
        };
        self.lock()
            .entry(key.clone())
            .or_default()
            .mark_written(now);
        Ok(StatusWrite::Now(Box::new(written)))
    }

    /// The Plugin is gone.
    pub fn forget(&self, key: &PluginKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PluginKey, Pace>> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merge patch that turns `old` into `new`; `None` when they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key).unwrap_or(&Value::Null);
        if let Some(change) = difference(before, value) {
            patch.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    fn status(ready: &str, reason: Reason) -> PluginStatus {
        PluginStatus {
            conditions: vec![Condition {
                type_: "Ready".into(),
                status: ready.into(),
                reason: reason.as_str().into(),
                message: String::new(),
                last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
                observed_generation: None,
            }],
            ..PluginStatus::default()
        }
    }

    #[test]
    fn a_difference_removes_adds_and_changes() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]});
        let new = json!({"b": {"c": 2, "d": 4}, "e": "x", "l": [1]});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"a": null, "b": {"d": 4}, "e": "x", "l": [1]}))
        );
        assert_eq!(difference(&new, &new.clone()), None);
        assert_eq!(difference(&Value::Null, &new), Some(new.clone()));
    }

    #[test]
    fn readiness_and_trouble_are_urgent_and_steps_on_the_way_are_not() {
        let starting = status("False", Reason::Starting);
        let cases = [
            (None, starting.clone(), Urgency::Now),
            (
                Some(starting.clone()),
                status("False", Reason::PodPending),
                Urgency::Calm,
            ),
            (
                Some(starting.clone()),
                status("True", Reason::Ready),
                Urgency::Now,
            ),
            (
                Some(starting.clone()),
                status("False", Reason::CookieRejected),
                Urgency::Now,
            ),
            (Some(starting.clone()), starting, Urgency::Nothing),
        ];
        for (old, new, expected) in cases {
            assert_eq!(urgency(old.as_ref(), &new), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_writes_are_a_second_apart_and_ready_does_not_wait_for_starting() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::default();
        assert_eq!(pace.due(Urgency::Now, start), start);
        pace.mark_written(start);
        // "Starting" is seen after 50 ms and would be written at 3.05 s …
        assert_eq!(pace.due(Urgency::Calm, at(50)), at(3050));
        assert_eq!(pace.due(Urgency::Calm, at(900)), at(3050));
        // … so that "ready" can be written at once.
        assert_eq!(pace.due(Urgency::Now, at(1300)), at(1300));
        pace.mark_written(at(1300));
        assert_eq!(pace.due(Urgency::Now, at(1400)), at(2300));
    }
}
