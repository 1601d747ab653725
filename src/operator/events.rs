//! Events for people (events.k8s.io), through one recorder that joins repetitions.
//!
//! An event is never worth a failed pass: what cannot be recorded is logged. The same words about
//! the same Plugin are said at most once in a while, so a crash loop is a series and no flood.

use crate::key::PluginKey;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The same words are not said again within this time.
const QUIET: Duration = Duration::from_secs(60);
/// Words that are remembered; beyond it the old ones go.
const REMEMBERED: usize = 4096;
/// Limit of the API for a note.
const NOTE: usize = 1000;

/// Says things about Plugins.
pub struct Events {
    recorder: Recorder,
    said: Mutex<HashMap<(PluginKey, String, String), Instant>>,
}

impl Events {
    /// `instance` is the name of this process.
    pub fn new(client: Client, instance: &str) -> Self {
        Self {
            recorder: Recorder::new(
                client,
                Reporter {
                    controller: "patchbay.dev/operator".into(),
                    instance: Some(instance.chars().take(128).collect()),
                },
            ),
            said: Mutex::default(),
        }
    }

    /// Says something about a Plugin.
    pub async fn say(&self, about: &Subject, words: Words<'_>) {
        if !self.is_new(about, words.reason, words.note, Instant::now()) {
            return;
        }
        let event = Event {
            type_: words.type_,
            reason: words.reason.to_owned(),
            note: Some(crate::session::bounds::bounded_text(words.note, NOTE)),
            action: words.action.to_owned(),
            secondary: words.related,
        };
        let published = tokio::time::timeout(
            Duration::from_secs(5),
            self.recorder.publish(&event, &about.reference),
        )
        .await;
        let error = match published {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let reason = words.reason;
        tracing::warn!(plugin = %about.key, reason, error, "an event was not recorded");
    }

    /// The Plugin is gone.
    pub fn forget(&self, key: &PluginKey) {
        self.lock().retain(|(known, _, _), _| known != key);
    }

    fn is_new(&self, about: &Subject, reason: &str, note: &str, now: Instant) -> bool {
        let mut said = self.lock();
        let words = (about.key.clone(), reason.to_owned(), note.to_owned());
        if said
            .get(&words)
            .is_some_and(|when| now.duration_since(*when) < QUIET)
        {
            return false;
        }
        if said.len() >= REMEMBERED {
            said.retain(|_, when| now.duration_since(*when) < QUIET);
        }
        if said.len() < REMEMBERED {
            said.insert(words, now);
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(PluginKey, String, String), Instant>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event says.
pub struct Words<'a> {
    /// Normal or Warning.
    pub type_: EventType,
    /// What was being done.
    pub action: &'a str,
    /// A word of the catalogue.
    pub reason: &'a str,
    /// For people.
    pub note: &'a str,
    /// The pod that it is about, if one.
    pub related: Option<ObjectReference>,
}

/// Whom an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Namespace and name.
    pub key: PluginKey,
    /// As the API wants it.
    pub reference: ObjectReference,
}
