//! What a Job waits for now, and who has to act.

use jiff::Timestamp;
use kube::ResourceExt;
use patchbay_api::job_status::{Claim, Phase};
use patchbay_api::names::CANCEL_ANNOTATION;
use patchbay_api::reasons::Mover;
use patchbay_api::{ConditionType, Job, JobStatus, Plugin, Reason};
use patchbay_reconcile::job::times;
use serde::Serialize;

use super::PluginLookup;
use super::history::delivered;
use crate::reason_text::{message_or_sentence, next_move, without_next_move};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentWait {
    /// What has to happen.
    pub(super) waiting_for: String,
    /// When it happens, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Timestamp>,
    /// When the Job fails if it has not happened by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fails_at: Option<Timestamp>,
    /// Why it has not happened yet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    /// Who has to act. Absent if nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_move: Option<&'static str>,
}

/// `None` for a Job that has ended and is kept.
pub(super) fn waiting(job: &Job, plugin: &PluginLookup, now: Timestamp) -> Option<CurrentWait> {
    let nothing = JobStatus::default();
    let status = job.status.as_ref().unwrap_or(&nothing);
    let name = &job.spec.plugin_ref.name;
    let operator = |what: &str| CurrentWait {
        waiting_for: format!("the operator to {what}; check that it is running"),
        at: None,
        fails_at: None,
        message: String::new(),
        next_move: Some(Mover::Patchbay.as_str()),
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Some(operator("let the Job be deleted"));
    }
    let Some(phase) = status.phase else {
        return Some(operator("process the new Job"));
    };
    if !phase.is_terminal() && job.annotations().contains_key(CANCEL_ANNOTATION) {
        return Some(operator("cancel the Job"));
    }
    Some(match phase {
        Phase::Invalid | Phase::Succeeded | Phase::Failed => return after_end(job, status),
        Phase::Suspended => CurrentWait {
            waiting_for: "somebody to set spec.suspend to false".to_owned(),
            at: None,
            fails_at: None,
            message: String::new(),
            next_move: next_move(Reason::Suspended.as_str()),
        },
        Phase::Waiting => not_eligible(job, status),
        Phase::Ready => not_claimed(job, status, plugin),
        Phase::Claimed | Phase::Running => {
            let what = match phase {
                Phase::Claimed => "to report progress",
                _ => "to return the output",
            };
            let (pod, mover) = match &status.claim {
                Some(claim) => holder(claim, name, plugin),
                None => (String::new(), None),
            };
            let delivery = match phase {
                Phase::Claimed if delivered(status).is_some() => "the plugin has received the job",
                Phase::Claimed => "it is not known yet whether the plugin has received the job",
                _ => "",
            };
            let message = [delivery, &pod].into_iter().filter(|part| !part.is_empty());
            CurrentWait {
                waiting_for: format!("Plugin {name} {what}"),
                at: None,
                fails_at: times::deadline(job).filter(|deadline| *deadline > now),
                message: message.collect::<Vec<_>>().join("; "),
                next_move: mover.or_else(|| next_move(&status.reason)),
            }
        }
    })
}

/// Deletion, or what a user can do about a failure.
fn after_end(job: &Job, status: &JobStatus) -> Option<CurrentWait> {
    let delete_at = times::delete_at(job);
    let mover = next_move(&status.reason).filter(|_| status.phase != Some(Phase::Succeeded));
    if delete_at.is_none() && mover.is_none() {
        return None;
    }
    Some(CurrentWait {
        waiting_for: match delete_at {
            Some(_) => "its deletion, as spec.ttlSecondsAfterFinished says".to_owned(),
            None => "nothing, the Job has ended".to_owned(),
        },
        at: delete_at,
        fails_at: None,
        message: match mover {
            Some(_) => Reason::parse(&status.reason)
                .map_or(String::new(), |reason| reason.sentence().to_owned()),
            None => String::new(),
        },
        next_move: mover,
    })
}

fn not_eligible(job: &Job, status: &JobStatus) -> CurrentWait {
    let name = &job.spec.plugin_ref.name;
    let (waiting_for, at) = match Reason::parse(&status.reason) {
        Some(Reason::StartTimeInFuture) => ("its start time".to_owned(), Some(times::start(job))),
        Some(Reason::BackingOff) => (
            "the time of the next attempt".to_owned(),
            Some(times::eligible_at(job)),
        ),
        Some(Reason::PluginMissing) => (format!("Plugin {name} to be created"), None),
        Some(Reason::PluginNotReady) => (format!("Plugin {name} to report its commands"), None),
        _ => ("its conditions to be met".to_owned(), None),
    };
    let message = match at {
        Some(_) => String::new(),
        None => condition_message(status, ConditionType::Accepted),
    };
    CurrentWait {
        waiting_for,
        at,
        fails_at: times::expire(job),
        message,
        next_move: next_move(&status.reason),
    }
}

/// Ready: the plugin has to request work. If the plugin is not Ready, that is why it does not.
fn not_claimed(job: &Job, status: &JobStatus, plugin: &PluginLookup) -> CurrentWait {
    let name = &job.spec.plugin_ref.name;
    let (message, mover) = match plugin {
        PluginLookup::Missing => (
            format!("Plugin {name} does not exist"),
            next_move(Reason::PluginMissing.as_str()),
        ),
        PluginLookup::Found(plugin) => not_ready(plugin),
        PluginLookup::Unknown => (String::new(), None),
    };
    let message = match message.as_str() {
        "" => condition_message(status, ConditionType::Eligible),
        _ => message,
    };
    CurrentWait {
        waiting_for: match job.spec.call {
            Some(_) => format!("a pod of Plugin {name} to be free for the call"),
            None => format!("Plugin {name} to request work"),
        },
        at: None,
        fails_at: times::expire(job),
        message,
        next_move: mover.or_else(|| next_move(&status.reason)),
    }
}

/// Why the Plugin is not Ready; empty if it is.
fn not_ready(plugin: &Plugin) -> (String, Option<&'static str>) {
    let name = plugin.name_any();
    let ready = plugin.status.as_ref().and_then(|status| {
        let ready = ConditionType::Ready.as_str();
        status.conditions.iter().find(|found| found.type_ == ready)
    });
    match ready {
        Some(ready) if ready.status == "True" => (String::new(), None),
        Some(ready) => {
            let message = message_or_sentence(&ready.reason, without_next_move(&ready.message));
            (
                format!("Plugin {name} is not Ready: {}: {message}", ready.reason),
                next_move(&ready.reason),
            )
        }
        None => (
            format!("Plugin {name} has no status yet"),
            Some(Mover::Patchbay.as_str()),
        ),
    }
}

/// The pod that has the job, if something is wrong with it.
fn holder(claim: &Claim, name: &str, plugin: &PluginLookup) -> (String, Option<&'static str>) {
    let pod = &claim.holder_pod;
    let plugin = match plugin {
        PluginLookup::Found(plugin) => plugin,
        PluginLookup::Missing => return (format!("Plugin {name} does not exist any more"), None),
        PluginLookup::Unknown => return (String::new(), None),
    };
    let Some(status) = &plugin.status else {
        return (String::new(), None);
    };
    let instance = status
        .instances
        .iter()
        .find(|instance| instance.pod_uid == claim.holder_pod_uid);
    match instance {
        Some(instance) if instance.reason.is_empty() => {
            (format!("pod {pod} is {:?}", instance.state), None)
        }
        Some(instance) => (
            format!("pod {pod} is {:?}: {}", instance.state, instance.reason),
            next_move(&instance.reason),
        ),
        None if status.instances_omitted > 0 => (String::new(), None),
        None => (
            format!("pod {pod} is not among the pods of the Plugin"),
            None,
        ),
    }
}

fn condition_message(status: &JobStatus, type_: ConditionType) -> String {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
        .map(|condition| {
            message_or_sentence(&condition.reason, without_next_move(&condition.message))
        })
        .unwrap_or_default()
}
