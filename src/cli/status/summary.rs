//! The summary of one Plugin, from the object and events.
//!
//! Conditions and reasons are the operator's; their sentences and movers are the API crate's.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use patchbay_api::conditions::ConditionType;
use patchbay_api::names::{PluginName, PodName};
use patchbay_api::plugin_status::{InstanceStatus, UpdateStatus};
use patchbay_api::{Plugin, PluginStatus, Reason};
use serde::Serialize;

use crate::reason_text::{message_or_sentence, next_move};

/// Maximum number of events shown.
const MAX_EVENTS: usize = 5;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PluginSummary {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether it is Ready at its current generation.
    pub(crate) ready: bool,
    pub(crate) ready_replicas: i32,
    pub(crate) wanted_replicas: i32,
    pub(crate) family: String,
    pub(crate) image: String,
    /// Why the conditions may not be up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    pub(crate) conditions: Vec<ConditionSummary>,
    pub(crate) instances: Vec<InstanceStatus>,
    pub(crate) instances_omitted: i32,
    pub(crate) services: Vec<String>,
    pub(crate) services_omitted: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_problem: Option<Problem>,
    pub(crate) events: Vec<EventSummary>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionSummary {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    /// Whether it has its desired status.
    pub(crate) good: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Who has to act. Absent if nobody, or if this version does not know the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_move: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// Whether it persists.
    pub(crate) present: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Since when, or when.
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
pub(crate) struct EventSummary {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
    pub(crate) warning: bool,
    pub(crate) reason: String,
    /// Absent if the event is about the Plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    pub(crate) message: String,
}

pub(crate) fn summarize(plugin: &Plugin, events: &[Event]) -> PluginSummary {
    let name = plugin.name_any();
    let nothing = PluginStatus::default();
    let status = plugin.status.as_ref().unwrap_or(&nothing);
    let conditions: Vec<ConditionSummary> = status.conditions.iter().map(condition).collect();
    let ready = find(status, ConditionType::Ready);
    let events = events_of(plugin, events);

    PluginSummary {
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
        last_problem: last_problem(status, ready, &events),
        events: events.into_iter().take(MAX_EVENTS).collect(),
        name,
    }
}

fn find(status: &PluginStatus, type_: ConditionType) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

fn condition(condition: &Condition) -> ConditionSummary {
    let wanted = if condition.type_ == ConditionType::Degraded.as_str() {
        "False"
    } else {
        "True"
    };
    let good = condition.status == wanted;
    ConditionSummary {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        good,
        reason: condition.reason.clone(),
        message: message_or_sentence(&condition.reason, &condition.message),
        next_move: if good {
            None
        } else {
            next_move(&condition.reason)
        },
    }
}

fn is_stale(plugin: &Plugin, condition: &Condition) -> bool {
    matches!((condition.observed_generation, plugin.metadata.generation), (Some(seen), Some(now)) if seen < now)
}

fn note(plugin: &Plugin) -> Option<String> {
    let Some(status) = &plugin.status else {
        return Some(
            "The operator has not reported a status yet. Check that the operator is running."
                .to_owned(),
        );
    };
    if plugin.metadata.deletion_timestamp.is_some() {
        return Some("The Plugin is being deleted.".to_owned());
    }
    match (status.observed_generation, plugin.metadata.generation) {
        (seen, Some(now)) if seen.unwrap_or(0) < now => Some(format!(
            "The operator has not processed the latest change yet (generation {now}, status is of {}).",
            seen.unwrap_or(0)
        )),
        _ => None,
    }
}

/// What is wrong now; else the last warning; else how the previous plugin process ended.
fn last_problem(
    status: &PluginStatus,
    ready: Option<&Condition>,
    events: &[EventSummary],
) -> Option<Problem> {
    if let Some(condition) = ready.filter(|condition| condition.status != "True") {
        let worst = status
            .instances
            .iter()
            .find(|instance| instance.reason == condition.reason);
        return Some(Problem {
            present: true,
            reason: condition.reason.clone(),
            // The message of one pod says more than the summary over all pods.
            message: match worst {
                Some(instance) => message_or_sentence(&instance.reason, &instance.message),
                None => message_or_sentence(&condition.reason, &condition.message),
            },
            at: Some(condition.last_transition_time.0),
            pod: worst.map(|instance| instance.pod.clone()),
            next_move: next_move(&condition.reason),
        });
    }
    if let Some(event) = events.iter().find(|event| event.warning) {
        return Some(Problem {
            present: false,
            reason: event.reason.clone(),
            message: message_or_sentence(&event.reason, &event.message),
            at: event.at,
            pod: event.pod.clone(),
            next_move: None,
        });
    }
    let ended = status
        .instances
        .iter()
        .find_map(|instance| Some((instance, instance.last_exit.clone()?)));
    ended.map(|(instance, exit)| Problem {
        present: false,
        reason: Reason::Restarted.as_str().to_owned(),
        message: format!("the previous process ended with {exit}"),
        at: instance.started_at.as_ref().map(|time| time.0),
        pod: Some(instance.pod.clone()),
        next_move: None,
    })
}

/// Events of the Plugin and of its pods, newest first.
fn events_of(plugin: &Plugin, events: &[Event]) -> Vec<EventSummary> {
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
    let mut found: Vec<EventSummary> = events
        .iter()
        .filter(|event| !repeats_the_pod(event))
        .filter_map(|event| {
            Some(EventSummary {
                pod: about(event)?,
                at: event_time(event),
                warning: event.type_.as_deref() == Some("Warning"),
                reason: event.reason.clone().unwrap_or_default(),
                message: event.note.clone().unwrap_or_default(),
            })
        })
        .collect();
    found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.message.cmp(&b.message)));
    found
}

/// The kubelet repeats the sidecar's probe message, which is shown at the pod.
fn repeats_the_pod(event: &Event) -> bool {
    let note = event.note.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some("Unhealthy") && note.starts_with("Readiness probe failed:")
}

/// When the event last happened. Old and new APIs fill different fields.
pub(crate) fn event_time(event: &Event) -> Option<Timestamp> {
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
