//! Decides what to do next. Nothing here is remembered: the same picture gives the same plan, and
//! a plan that was carried out leaves nothing to do.
//!
//! The order of the actions is a promise: finalizer, policy, Services, identity, then pods. A pod
//! never exists before the policy that fences it.

mod children;
mod images;
mod pods;
mod slot;
#[cfg(test)]
mod tests;

use super::action::{Action, DeletePod, Plan, Why};
use super::observe::{Identity, Observed};
use super::our_pod::OurPod;
use super::resolve::{Deleting, PluginId, Resolution, Resolved};
use k8s_openapi::api::core::v1::Pod;
use patchbay_api::Reason;
use patchbay_api::names::{CONFIG_ANNOTATION, PodName};
use patchbay_protocol::pod_config::PodConfig;

/// What to do about what was seen.
pub fn desire(observed: &Observed, resolution: &Resolution) -> Plan {
    match resolution {
        Resolution::Wanted(resolved) => run(observed, resolved),
        Resolution::Deleting(deleting) => tear_down(observed, deleting),
        // What runs stays, and stays in touch.
        Resolution::Refused(refusal) => Plan {
            session_targets: refusal
                .id
                .as_ref()
                .map(|id| session_targets(&our_pods(observed, id)))
                .unwrap_or_default(),
            ..Plan::default()
        },
    }
}

fn run(observed: &Observed, resolved: &Resolved) -> Plan {
    if !resolved.finalizer {
        // Its own pass: the answer carries the resource version that everything else builds on.
        return Plan {
            actions: vec![Action::AddFinalizer],
            ..Plan::default()
        };
    }
    let pods = our_pods(observed, &resolved.id);
    let mut plan = Plan {
        session_targets: session_targets(&pods),
        ..Plan::default()
    };
    children::network_policy(observed, resolved, &mut plan.actions);
    children::services(observed, resolved, &mut plan.actions);
    if observed.identity != Identity::InPlace {
        plan.actions.push(Action::EnsureIdentity {
            secret: resolved.id.name.identity_secret(),
        });
    }
    pods::decide(observed, resolved, &pods, &mut plan);
    plan
}

/// Pods first, everything else by owner reference: otherwise the garbage collector removes the
/// policy while a plugin still runs out its grace period.
fn tear_down(observed: &Observed, deleting: &Deleting) -> Plan {
    let pods = our_pods(observed, &deleting.id);
    if !deleting.finalizer {
        return Plan::default();
    }
    if pods.is_empty() {
        return Plan {
            actions: vec![Action::RemoveFinalizer],
            ..Plan::default()
        };
    }
    Plan {
        actions: pods
            .iter()
            .filter(|pod| !pod.terminating())
            .map(|pod| {
                Action::DeletePod(DeletePod {
                    name: pod.name.to_string(),
                    uid: pod.uid.clone(),
                    grace_seconds: pod.grace_seconds(),
                    why: Why {
                        reason: Reason::Deleting,
                        message: format!("pod {} is deleted with its Plugin", pod.name),
                    },
                })
            })
            .collect(),
        session_targets: session_targets(&pods),
        ..Plan::default()
    }
}

/// The pods that this very Plugin owns, in the order of their names.
pub fn our_pods<'a>(observed: &'a Observed, id: &PluginId) -> Vec<OurPod<'a>> {
    let mut pods: Vec<_> = observed
        .pods
        .iter()
        .filter(|pod| id.owns(&pod.metadata))
        .filter_map(|pod| OurPod::read(id, pod))
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn session_targets(pods: &[OurPod<'_>]) -> Vec<super::action::SessionTarget> {
    pods.iter()
        .filter(|pod| !pod.finished())
        .filter_map(|pod| {
            let config = pod.annotation(CONFIG_ANNOTATION)?;
            Some(super::action::SessionTarget {
                pod_uid: pod.uid.clone(),
                pod: pod.name.to_string(),
                ip: pod.ip()?.to_owned(),
                revision: revision(config),
                config: config.to_owned(),
                allow_start: !pod.terminating(),
            })
        })
        .collect()
}

fn revision(config: &str) -> u64 {
    serde_json::from_str::<PodConfig>(config)
        .map(|config| config.revision)
        .unwrap_or_default()
}

/// Highest incarnation of an ordinal that was ever seen: pods, with any owner, and status.
fn highest_incarnation(observed: &Observed, id: &PluginId, ordinal: u16) -> u32 {
    let pods = observed
        .pods
        .iter()
        .filter_map(|pod: &Pod| pod.metadata.name.as_deref());
    let remembered = observed.plugin.status.iter().flat_map(|status| {
        status
            .instances
            .iter()
            .map(|instance| instance.pod.as_str())
    });
    pods.chain(remembered)
        .filter_map(|name| PodName::parse(&id.name, name))
        .filter(|name| name.ordinal == ordinal)
        .map(|name| name.incarnation)
        .max()
        .unwrap_or_default()
}

/// The uid and resource version that every patch carries.
fn preconditions(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> serde_json::Map<String, serde_json::Value> {
    let mut map = serde_json::Map::new();
    map.insert(
        "uid".to_owned(),
        meta.uid.clone().unwrap_or_default().into(),
    );
    map.insert(
        "resourceVersion".to_owned(),
        meta.resource_version.clone().unwrap_or_default().into(),
    );
    map
}
