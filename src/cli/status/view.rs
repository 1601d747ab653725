//! What is to be known about one Plugin. Pure: an object and events in, plain data out.
//!
//! Nothing is judged anew here: conditions, reasons, sentences and the next mover are the
//! operator's and the API crate's.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use patchbay_api::conditions::ConditionType;
use patchbay_api::names::{PluginName, PodName};
use patchbay_api::plugin_status::{InstanceStatus, UpdateStatus};
use patchbay_api::reasons::Mover;
use patchbay_api::{Plugin, PluginStatus, Reason};
use serde::Serialize;

/// So many events are shown.
const EVENTS: usize = 5;

/// One Plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PluginView {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether the present spec is Ready.
    pub(crate) ready: bool,
    pub(crate) ready_replicas: i32,
    pub(crate) wanted_replicas: i32,
    pub(crate) family: String,
    pub(crate) image: String,
    /// What hinders believing the conditions: nobody reported, or not on the present spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    pub(crate) conditions: Vec<ConditionView>,
    pub(crate) instances: Vec<InstanceStatus>,
    pub(crate) instances_omitted: i32,
    pub(crate) services: Vec<String>,
    pub(crate) services_omitted: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<Trouble>,
    /// The latest, newest first.
    pub(crate) events: Vec<EventView>,
}

/// One condition and whose move it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    /// Whether it stands as it should.
    pub(crate) good: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Absent when it is nobody's, or when this build does not know the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_move: Option<&'static str>,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trouble {
    /// Whether it still is so.
    pub(crate) present: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Since when it is so, or when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_move: Option<&'static str>,
}

/// One event of the Plugin or of its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
    pub(crate) warning: bool,
    pub(crate) reason: String,
    /// The pod that it is about; absent when about the Plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    pub(crate) message: String,
}

/// Brings together what is known of `plugin`.
pub(crate) fn view(plugin: &Plugin, events: &[Event]) -> PluginView {
    let name = plugin.name_any();
    let nothing = PluginStatus::default();
    let status = plugin.status.as_ref().unwrap_or(&nothing);
    let conditions: Vec<ConditionView> = status.conditions.iter().map(condition).collect();
    let ready = find(status, ConditionType::Ready);
    let events = events_of(plugin, events);

    PluginView {
        namespace: plugin.namespace().unwrap_or_default(),
        ready: ready
            .is_some_and(|condition| condition.status == "True" && !is_stale(plugin, condition)),
        ready_replicas: status.ready_replicas,
        wanted_replicas: plugin.spec.replicas,
        family: plugin
            .spec
            .protocol
            .family()
            .map(|family| family.as_str().to_owned())
            .unwrap_or_default(),
        image: plugin.spec.image.clone(),
        note: note(plugin),
        conditions,
        instances: status.instances.clone(),
        instances_omitted: status.instances_omitted,
        services: status
            .provides
            .as_ref()
            .map(|provides| provides.services.clone())
            .unwrap_or_default(),
        services_omitted: status
            .provides
            .as_ref()
            .map_or(0, |provides| provides.omitted),
        update: status.update.clone(),
        trouble: trouble(status, ready, &events),
        events: events.into_iter().take(EVENTS).collect(),
        name,
    }
}

fn find(status: &PluginStatus, type_: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

fn condition(condition: &Condition) -> ConditionView {
    let wanted = if condition.type_ == ConditionType::Degraded.as_str() {
        "False"
    } else {
        "True"
    };
    let good = condition.status == wanted;
    ConditionView {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        good,
        reason: condition.reason.clone(),
        message: told(&condition.reason, &condition.message),
        next_move: if good {
            None
        } else {
            next_move(&condition.reason)
        },
    }
}

/// The message, or the catalogue's sentence when there is none.
fn told(reason: &str, message: &str) -> String {
    match Reason::parse(reason) {
        Some(known) if message.is_empty() => known.sentence().to_owned(),
        _ => message.to_owned(),
    }
}

fn next_move(reason: &str) -> Option<&'static str> {
    Reason::parse(reason)
        .map(Reason::mover)
        .filter(|mover| *mover != Mover::Nobody)
        .map(Mover::as_str)
}

fn is_stale(plugin: &Plugin, condition: &Condition) -> bool {
    matches!((condition.observed_generation, plugin.metadata.generation), (Some(seen), Some(now)) if seen < now)
}

fn note(plugin: &Plugin) -> Option<String> {
    let Some(status) = &plugin.status else {
        return Some("Nothing has been reported on it yet. Is the operator running?".to_owned());
    };
    if plugin.metadata.deletion_timestamp.is_some() {
        return Some("It is being deleted.".to_owned());
    }
    match (status.observed_generation, plugin.metadata.generation) {
        (seen, Some(now)) if seen.unwrap_or(0) < now => Some(format!(
            "The operator has not looked at the latest change yet (generation {now}, reported on {}).",
            seen.unwrap_or(0)
        )),
        _ => None,
    }
}

/// What is wrong now; else the last warning; else how a plugin process ended before.
fn trouble(
    status: &PluginStatus,
    ready: Option<&Condition>,
    events: &[EventView],
) -> Option<Trouble> {
    if let Some(condition) = ready.filter(|condition| condition.status != "True") {
        let worst = status
            .instances
            .iter()
            .find(|instance| instance.reason == condition.reason);
        return Some(Trouble {
            present: true,
            reason: condition.reason.clone(),
            // The pod's own words say more than the sum over all pods.
            message: match worst {
                Some(instance) => told(&instance.reason, &instance.message),
                None => told(&condition.reason, &condition.message),
            },
            at: Some(condition.last_transition_time.0),
            pod: worst.map(|instance| instance.pod.clone()),
            next_move: next_move(&condition.reason),
        });
    }
    if let Some(event) = events.iter().find(|event| event.warning) {
        return Some(Trouble {
            present: false,
            reason: event.reason.clone(),
            message: told(&event.reason, &event.message),
            at: event.at,
            pod: event.pod.clone(),
            next_move: None,
        });
    }
    let ended = status
        .instances
        .iter()
        .find_map(|instance| Some((instance, instance.last_exit.clone()?)));
    ended.map(|(instance, exit)| Trouble {
        present: false,
        reason: Reason::Restarted.as_str().to_owned(),
        message: format!("the process before the present one ended with {exit}"),
        at: instance.started_at.as_ref().map(|time| time.0),
        pod: Some(instance.pod.clone()),
        next_move: None,
    })
}

/// Events of the Plugin and of its pods, newest first.
fn events_of(plugin: &Plugin, events: &[Event]) -> Vec<EventView> {
    let parsed = PluginName::parse(&plugin.name_any()).ok();
    let about = |event: &Event| -> Option<Option<String>> {
        let regarding = event.regarding.as_ref()?;
        let name = regarding.name.as_deref()?;
        if regarding.namespace != plugin.namespace() {
            return None;
        }
        match regarding.kind.as_deref()? {
            "Plugin" if name == plugin.name_any() => Some(None),
            "Pod" if PodName::parse(parsed.as_ref()?, name).is_some() => {
                Some(Some(name.to_owned()))
            }
            _ => None,
        }
    };
    let mut found: Vec<EventView> = events
        .iter()
        .filter(|event| !repeats_the_pod(event))
        .filter_map(|event| {
            Some(EventView {
                pod: about(event)?,
                at: time(event),
                warning: event.type_.as_deref() == Some("Warning"),
                reason: event.reason.clone().unwrap_or_default(),
                message: event.note.clone().unwrap_or_default(),
            })
        })
        .collect();
    found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.message.cmp(&b.message)));
    found
}

/// The kubelet repeats, at every probe, what the sidecar answered; that stands at the pod.
fn repeats_the_pod(event: &Event) -> bool {
    let note = event.note.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some("Unhealthy") && note.starts_with("Readiness probe failed:")
}

/// When it last happened: writers of the old and the new form leave different fields empty.
fn time(event: &Event) -> Option<Timestamp> {
    [
        event
            .series
            .as_ref()
            .map(|series| series.last_observed_time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.deprecated_last_timestamp.as_ref().map(|time| time.0),
        event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
    ]
    .into_iter()
    .flatten()
    .next()
}
