//! Makes status, events and the time of the next look. Conditions are made here and nowhere else.
//!
//! The same picture gives the same status: nothing here reads a clock, and a transition time moves
//! only when a condition flips. The operator writes status only when it differs.

mod conditions;
mod events;
mod instances;
mod provides;
#[cfg(test)]
mod tests;
mod update;

use super::action::{Applied, Plan};
use super::assess::{Assessed, assess};
use super::desire::our_pods;
use super::observe::Observed;
use super::resolve::{PluginId, Resolution};
use conditions::Facts;
use jiff::Timestamp;
use patchbay_api::PluginStatus;
use patchbay_api::Reason;
use patchbay_api::names::PluginName;
use patchbay_api::plugin_status::MAX_INSTANCES;

/// What is said about a Plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Status as it shall be. Equal to the known one when there is nothing to write.
    pub status: PluginStatus,
    /// Events to send, in order.
    pub events: Vec<PluginEvent>,
    /// When to look again although nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// An event about a Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginEvent {
    /// Normal or Warning.
    pub warning: bool,
    pub reason: Reason,
    /// What was done, such as Create; one word of events.k8s.io.
    pub action: &'static str,
    /// For people; at most 1024 bytes.
    pub message: String,
    /// The pod that it is about: name and uid.
    pub related: Option<(String, String)>,
}

/// What to say after a plan was carried out.
pub fn report(
    observed: &Observed,
    resolution: &Resolution,
    plan: &Plan,
    applied: &Applied<'_>,
) -> Report {
    let before = observed.plugin.status.clone().unwrap_or_default();
    let id = id(resolution);
    let pods = id.map(|id| our_pods(observed, id)).unwrap_or_default();
    let assessed: Vec<Assessed> = pods.iter().map(|pod| assess(observed, pod)).collect();
    let facts = Facts::new(observed, resolution, plan, applied, &pods, &assessed);
    let living = || assessed.iter().filter(|a| !a.terminating);
    let (lines, omitted) = instances::worst_first(&assessed, MAX_INSTANCES);
    let speaker = instances::speaker(&assessed);
    let status = PluginStatus {
        observed_generation: observed.plugin.metadata.generation,
        selector: id.map(|id| PluginName::pod_selector(&id.name)),
        replicas: count(living().count()),
        ready_replicas: count(facts.ready),
        updated_replicas: count(facts.updated),
        ready: Some(format!("{}/{}", facts.ready, facts.wanted)),
        family: observed
            .plugin
            .spec
            .protocol
            .family()
            .map(|family| family.as_str().to_owned()),
        conditions: conditions::conditions(&facts, &before, observed),
        handshake: speaker.and_then(|a| a.line.handshake.clone()),
        provides: speaker.and_then(|a| provides::provides(observed, a, &before)),
        instances: lines,
        instances_omitted: count(omitted),
        update: update::update(observed, plan, &facts, &before),
    };
    let events = events::events(&before, &status, &assessed, applied);
    Report {
        status,
        events,
        wake_at: plan.wake_at,
    }
}

fn id(resolution: &Resolution) -> Option<&PluginId> {
    match resolution {
        Resolution::Wanted(resolved) => Some(&resolved.id),
        Resolution::Deleting(deleting) => Some(&deleting.id),
        Resolution::Refused(refusal) => refusal.id.as_ref(),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
