//! Events for people (events.k8s.io), through one recorder that joins repetitions.
//!
//! An event is never worth a failed or a slower pass: it is handed to a task of its own, and what
//! cannot be recorded is logged. The same content about the same object is one event whose count
//! grows, written at most once in a while, so that a crash loop is a series and no flood.
//!
//! kube's own Recorder (5.0) is not used: its key leaves out the note, so that "Service kv was created"
//! and "Pod kv-0-1 was created" would become one event with the first note, and it goes on patching an
//! event that the API server has dropped.

use crate::key::ObjectKey;
use crate::text::bounded_text;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const CONTROLLER: &str = "patchbay.dev/operator";
/// The same content is not written again within this time; a repetition counts then.
const QUIET: Duration = Duration::from_secs(60);
/// After this time without repetition the same content is a new event.
const SERIES: Duration = Duration::from_secs(360);
/// Number of contents that are remembered; beyond it the old ones go.
const REMEMBERED: usize = 4096;
/// Number of events that wait to be written; beyond it they are dropped. Status has the same facts.
const WAITING: usize = 512;
/// Limit of the API for a note.
const NOTE: usize = 1000;

/// Queues events; clones are the same.
#[derive(Clone)]
pub struct Events(mpsc::Sender<QueuedEvent>);

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventContent {
    /// Whether somebody has to do something.
    pub warning: bool,
    /// What was being done.
    pub action: String,
    /// A word of the catalogue.
    pub reason: String,
    pub note: String,
    /// The pod that it is about, if one: name and uid.
    pub pod: Option<(String, String)>,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Namespace and name.
    pub key: ObjectKey,
    /// As the API wants it.
    pub reference: ObjectReference,
}

struct QueuedEvent {
    about: Subject,
    content: EventContent,
}

/// Writes the queued events.
pub struct Recorder {
    client: Client,
    instance: String,
    waiting: mpsc::Receiver<QueuedEvent>,
    /// By the uid of the object and the content.
    recorded: HashMap<(String, EventContent), Recorded>,
}

#[derive(Clone, Debug)]
struct Recorded {
    name: String,
    count: i32,
    last: Instant,
}

/// Makes the one recorder. `instance` is the name of this process.
pub fn recorder(client: Client, instance: &str) -> (Events, Recorder) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let recorder = Recorder {
        client,
        instance: instance.chars().take(128).collect(),
        waiting,
        recorded: HashMap::new(),
    };
    (Events(sender), recorder)
}

impl Events {
    /// Queues an event. Never waits.
    pub fn publish(&self, about: &Subject, content: EventContent) {
        let queued = QueuedEvent {
            about: about.clone(),
            content,
        };
        if let Err(error) = self.0.try_send(queued) {
            tracing::debug!(object = %about.key, %error, "an event was dropped");
        }
    }
}

/// What to write about an event.
#[derive(Debug, PartialEq, Eq)]
enum NextWrite {
    Create,
    /// The event of this name happened again.
    Count {
        name: String,
        count: i32,
    },
    Skip,
}

impl Recorder {
    /// Writes for ever.
    pub async fn run(mut self) -> Infallible {
        while let Some(queued) = self.waiting.recv().await {
            self.record(queued).await;
        }
        // All senders are gone; the task that holds us decides when to end.
        std::future::pending().await
    }

    async fn record(&mut self, QueuedEvent { about, content }: QueuedEvent) {
        let now = Instant::now();
        let uid = about.reference.uid.clone().unwrap_or_default();
        let key = (uid, content);
        let (name, count) = match next_write(self.recorded.get(&key), now) {
            NextWrite::Skip => return,
            NextWrite::Create => (name(&about.key), 1),
            NextWrite::Count { name, count } => (name, count),
        };
        let content = &key.1;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.key.namespace);
        let wrote = async {
            if count == 1 {
                let event = event(&about, content, &name, &self.instance);
                api.create(&PostParams::default(), &event).await.map(drop)
            } else {
                let series = EventSeries {
                    count,
                    last_observed_time: MicroTime(Timestamp::now()),
                };
                let patch = Patch::Merge(json!({ "series": series }));
                api.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .map(drop)
            }
        };
        let error = match timeout(Duration::from_secs(5), wrote).await {
            Ok(Ok(())) => {
                self.remember(key, name, count, now);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        // The event may have expired, and an object may go with its namespace.
        self.recorded.remove(&key);
        let reason = key.1.reason;
        tracing::warn!(object = %about.key, reason, error, "an event was not recorded");
    }

    fn remember(&mut self, key: (String, EventContent), name: String, count: i32, last: Instant) {
        if self.recorded.len() >= REMEMBERED {
            self.recorded
                .retain(|_, known| last.duration_since(known.last) < SERIES);
        }
        if self.recorded.len() < REMEMBERED {
            self.recorded.insert(key, Recorded { name, count, last });
        }
    }
}

fn next_write(known: Option<&Recorded>, now: Instant) -> NextWrite {
    match known {
        Some(known) if now.duration_since(known.last) < QUIET => NextWrite::Skip,
        Some(known) if now.duration_since(known.last) < SERIES => NextWrite::Count {
            name: known.name.clone(),
            count: known.count.saturating_add(1),
        },
        _ => NextWrite::Create,
    }
}

fn name(key: &ObjectKey) -> String {
    format!("{}.{:x}", key.name, Timestamp::now().as_nanosecond())
}

fn event(about: &Subject, content: &EventContent, name: &str, instance: &str) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(about.key.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(if content.warning { "Warning" } else { "Normal" }.to_owned()),
        action: Some(content.action.clone()),
        reason: Some(content.reason.clone()),
        note: Some(bounded_text(&content.note, NOTE)),
        regarding: Some(about.reference.clone()),
        related: content.pod.as_ref().map(|(name, uid)| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(about.key.namespace.clone()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

impl Subject {
    /// From the object.
    pub fn new<K: Resource<DynamicType = ()>>(key: &ObjectKey, object: &K) -> Self {
        let mut reference = object.object_ref(&());
        // One event for all versions of the object.
        reference.resource_version = None;
        reference.uid = object.uid();
        Self {
            key: key.clone(),
            reference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_event_is_skipped_then_counted_then_created_again() {
        let start = Instant::now();
        let known = Recorded {
            name: "kv.1".into(),
            count: 4,
            last: start,
        };
        let at = |seconds| next_write(Some(&known), start + Duration::from_secs(seconds));
        assert_eq!(next_write(None, start), NextWrite::Create);
        assert_eq!(at(59), NextWrite::Skip);
        assert_eq!(
            at(61),
            NextWrite::Count {
                name: "kv.1".into(),
                count: 5
            }
        );
        assert_eq!(at(361), NextWrite::Create);
    }
}
