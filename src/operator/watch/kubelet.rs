//! The kubelet's warnings about pods that do not come up: what no pod's status says (a Secret that
//! a volume names and that is not there, an image that cannot be pulled for a swap).
//!
//! Asked for by pod, and only while one hangs: a watch on all events would cost more than all
//! other watches together.

use crate::key::PluginKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use patchbay_reconcile::plugin::observe::PodEvent;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A younger pod may simply not be up yet.
const GRACE: SignedDuration = SignedDuration::from_millis(1500);
/// Older warnings are about something that is over: the kubelet repeats itself at least every two
/// minutes while a mount fails.
const FRESH: SignedDuration = SignedDuration::from_secs(150);
/// Pods of one Plugin that are asked about in one pass.
const PODS: usize = 4;
/// Warnings of one pod.
const EVENTS: u32 = 20;
/// First and longest time between two questions about a pod.
const AGAIN: crate::retry::Policy = crate::retry::Policy {
    first: Duration::from_secs(2),
    limit: Duration::from_secs(60),
};

/// Asks, and remembers cached for a while.
pub struct KubeletWarnings {
    client: Client,
    cached: Mutex<HashMap<PluginKey, WarningsByPod>>,
}

/// By the pod's uid.
type WarningsByPod = HashMap<String, CachedWarnings>;

#[derive(Clone)]
struct CachedWarnings {
    asked: u32,
    again: Instant,
    events: Vec<PodEvent>,
}

/// What the warnings are and when to ask again.
#[derive(Debug, Default)]
pub struct Warnings {
    /// About pods that hang.
    pub events: Vec<PodEvent>,
    /// When to look again; `None` while nothing hangs.
    pub next: Option<Instant>,
}

impl KubeletWarnings {
    /// Nothing has been asked yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            cached: Mutex::default(),
        }
    }

    /// The warnings about `pods`, which are all of `plugin`.
    pub async fn about(&self, plugin: &PluginKey, pods: &[Pod], now: Timestamp) -> Warnings {
        let mut warnings = Warnings::default();
        let known = self.lock().remove(plugin).unwrap_or_default();
        // Pods that are gone or come up are forgotten.
        let mut keep = WarningsByPod::new();
        let mut wake = |when: Instant| {
            warnings.next = Some(warnings.next.map_or(when, |next| next.min(when)));
        };
        let mut events = Vec::new();
        let mut asked = 0;
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            match hangs(pod, now) {
                Hangs::No => continue,
                Hangs::NotYet(left) => {
                    let left = Duration::try_from(left).unwrap_or_default();
                    wake(Instant::now() + left);
                    continue;
                }
                Hangs::Yes => {}
            }
            let known = known.get(&uid);
            let answer = match known {
                Some(answer) if Instant::now() < answer.again => answer.clone(),
                known if asked < PODS => {
                    asked += 1;
                    self.ask(pod, &uid, known, now).await
                }
                Some(answer) => answer.clone(),
                None => continue,
            };
            wake(answer.again);
            events.extend(answer.events.iter().cloned());
            keep.insert(uid, answer);
        }
        if !keep.is_empty() {
            self.lock().insert(plugin.clone(), keep);
        }
        warnings.events = events;
        warnings
    }

    /// The Plugin is gone.
    pub fn forget(&self, plugin: &PluginKey) {
        self.lock().remove(plugin);
    }

    async fn ask(
        &self,
        pod: &Pod,
        uid: &str,
        known: Option<&CachedWarnings>,
        now: Timestamp,
    ) -> CachedWarnings {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(EVENTS);
        let (before, old) = known.map_or((0, Vec::new()), |a| (a.asked, a.events.clone()));
        let events = match api.list(&params).await {
            Ok(list) => list
                .items
                .into_iter()
                .filter(|event| is_fresh(event, now))
                .map(|event| PodEvent {
                    pod_uid: uid.to_owned(),
                    reason: event.reason.unwrap_or_default(),
                    message: crate::text::bounded_text(&event.message.unwrap_or_default(), 1024),
                })
                .collect(),
            Err(error) => {
                // What is missing here is a better message, never a decision.
                tracing::debug!(namespace, pod = pod.name_any(), %error, "no events of a pod");
                old
            }
        };
        let asked = before.saturating_add(1);
        CachedWarnings {
            asked,
            again: Instant::now() + AGAIN.delay(asked, crate::retry::jitter()),
            events,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PluginKey, WarningsByPod>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Hangs {
    No,
    NotYet(SignedDuration),
    Yes,
}

/// Whether a container of the pod does not run and its status does not say why.
fn hangs(pod: &Pod, now: Timestamp) -> Hangs {
    let Some(status) = &pod.status else {
        return Hangs::No;
    };
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let scheduled = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled" && c.status == "True");
    if over || !scheduled || pod.metadata.deletion_timestamp.is_some() {
        return Hangs::No;
    }
    let statuses: Vec<&ContainerStatus> = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .collect();
    if !statuses.is_empty() && statuses.iter().all(|status| explains_itself(status)) {
        return Hangs::No;
    }
    let age = pod
        .creation_timestamp()
        .map_or(GRACE, |created| now.duration_since(created.0));
    if age < GRACE {
        Hangs::NotYet(GRACE - age)
    } else {
        Hangs::Yes
    }
}

fn explains_itself(status: &ContainerStatus) -> bool {
    let Some(state) = &status.state else {
        return false;
    };
    if state.running.is_some() {
        return true;
    }
    state
        .waiting
        .as_ref()
        .and_then(|waiting| waiting.reason.as_deref())
        .is_some_and(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"))
}

fn is_fresh(event: &Event, now: Timestamp) -> bool {
    let seen = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref().map(|t| t.0))
        .or(event.last_timestamp.as_ref().map(|t| t.0))
        .or(event.event_time.as_ref().map(|t| t.0))
        .or(event.metadata.creation_timestamp.as_ref().map(|t| t.0));
    seen.is_none_or(|seen| now.duration_since(seen) < FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-22T12:00:10Z".parse().unwrap()
    }

    fn pod(age_seconds: i64, state: serde_json::Value) -> Pod {
        let created = now() - SignedDuration::from_secs(age_seconds);
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u", "creationTimestamp": created.to_string()},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "initContainerStatuses": [{
                    "name": "sidecar", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state,
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn only_a_container_that_does_not_say_why_is_asked_about() {
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        assert_eq!(hangs(&pod(5, creating.clone()), now()), Hangs::Yes);
        assert!(matches!(hangs(&pod(1, creating), now()), Hangs::NotYet(_)));
        for state in [
            json!({"running": {}}),
            json!({"waiting": {"reason": "ImagePullBackOff"}}),
        ] {
            assert_eq!(hangs(&pod(5, state), now()), Hangs::No);
        }
    }

    #[test]
    fn a_sidecar_that_ended_and_does_not_come_back_is_asked_about() {
        let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        assert_eq!(hangs(&pod(60, ended), now()), Hangs::Yes);
    }
}
