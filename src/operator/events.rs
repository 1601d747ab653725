//! Events for people (events.k8s.io), through one recorder that joins repetitions.
//!
//! An event is never worth a failed or a slower pass: it is handed to a task of its own, and what
//! cannot be recorded is logged. The same words about the same object are one event whose count
//! grows, told at most once in a while, so that a crash loop is a series and no flood.

use crate::key::ObjectKey;
use crate::session::bounds::bounded_text;
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
/// The same words are not told again within this time; a repetition counts then.
const QUIET: Duration = Duration::from_secs(60);
/// After this time without repetition the same words are a new event.
const SERIES: Duration = Duration::from_secs(360);
/// EventContent that are remembered; beyond it the old ones go.
const REMEMBERED: usize = 4096;
/// EventContent that wait to be told; beyond it they are dropped. Status says it all the same.
const WAITING: usize = 512;
/// Limit of the API for a note.
const NOTE: usize = 1000;

/// Takes words from everywhere.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Said>);

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

/// Whom an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Namespace and name.
    pub key: ObjectKey,
    /// As the API wants it.
    pub reference: ObjectReference,
}

struct Said {
    about: Subject,
    content: EventContent,
}

/// Tells what was said.
pub struct Recorder {
    client: Client,
    instance: String,
    waiting: mpsc::Receiver<Said>,
    /// By the uid of the object and what was said.
    told: HashMap<(String, EventContent), Recorded>,
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
        told: HashMap::new(),
    };
    (Events(sender), recorder)
}

impl Events {
    /// Says something about an object. Never waits.
    pub fn say(&self, about: &Subject, content: EventContent) {
        let said = Said {
            about: about.clone(),
            content,
        };
        if let Err(error) = self.0.try_send(said) {
            tracing::debug!(object = %about.key, %error, "an event was dropped");
        }
    }
}

/// What to do with words.
#[derive(Debug, PartialEq, Eq)]
enum Telling {
    New,
    Again { name: String, count: i32 },
    Hush,
}

impl Recorder {
    /// Tells for ever.
    pub async fn run(mut self) -> Infallible {
        while let Some(said) = self.waiting.recv().await {
            self.tell(said).await;
        }
        // All senders are gone; the task that holds us decides when to end.
        std::future::pending().await
    }

    async fn tell(&mut self, Said { about, content }: Said) {
        let now = Instant::now();
        let uid = about.reference.uid.clone().unwrap_or_default();
        let key = (uid, content);
        let (name, count) = match telling(self.told.get(&key), now) {
            Telling::Hush => return,
            Telling::New => (name(&about.key), 1),
            Telling::Again { name, count } => (name, count),
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
        self.told.remove(&key);
        let reason = key.1.reason;
        tracing::warn!(object = %about.key, reason, error, "an event was not recorded");
    }

    fn remember(&mut self, key: (String, EventContent), name: String, count: i32, last: Instant) {
        if self.told.len() >= REMEMBERED {
            self.told
                .retain(|_, told| last.duration_since(told.last) < SERIES);
        }
        if self.told.len() < REMEMBERED {
            self.told.insert(key, Recorded { name, count, last });
        }
    }
}

fn telling(told: Option<&Recorded>, now: Instant) -> Telling {
    match told {
        Some(told) if now.duration_since(told.last) < QUIET => Telling::Hush,
        Some(told) if now.duration_since(told.last) < SERIES => Telling::Again {
            name: told.name.clone(),
            count: told.count.saturating_add(1),
        },
        _ => Telling::New,
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
    fn repetitions_are_hushed_then_counted_then_new() {
        let start = Instant::now();
        let told = Recorded {
            name: "kv.1".into(),
            count: 4,
            last: start,
        };
        let at = |seconds| telling(Some(&told), start + Duration::from_secs(seconds));
        assert_eq!(telling(None, start), Telling::New);
        assert_eq!(at(59), Telling::Hush);
        assert_eq!(
            at(61),
            Telling::Again {
                name: "kv.1".into(),
                count: 5
            }
        );
        assert_eq!(at(361), Telling::New);
    }
}
