//! Events: what was done, and what turned. Each is derived from a difference, so that a second
//! pass over the same picture sends none.

use super::PluginEvent;
use crate::plugin::action::{Action, Applied, Outcome};
use crate::plugin::assess::Assessed;
use crate::text::cut;
use patchbay_api::plugin_status::{InstanceState, InstanceStatus, MAX_MESSAGE};
use patchbay_api::reasons::Mover;
use patchbay_api::{ConditionType, PluginStatus, Reason};

pub(super) fn events(
    before: &PluginStatus,
    after: &PluginStatus,
    assessed: &[Assessed],
    applied: &Applied<'_>,
) -> Vec<PluginEvent> {
    let mut events = done(assessed, applied);
    events.extend(assessed.iter().filter_map(|a| turned(before, a)));
    events.extend(flipped(before, after));
    for event in &mut events {
        event.message = cut(&event.message, MAX_MESSAGE);
    }
    events
}

/// What was carried out.
fn done(assessed: &[Assessed], applied: &Applied<'_>) -> Vec<PluginEvent> {
    let uid_of = |name: &str| {
        let line = assessed
            .iter()
            .map(|a| &a.line)
            .find(|line| line.pod == name)?;
        Some((line.pod.clone(), line.pod_uid.clone()))
    };
    applied
        .0
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Done)
        .filter_map(|(action, _)| match action {
            Action::Create(child) => Some(PluginEvent {
                warning: false,
                reason: Reason::Created,
                action: "Create",
                message: format!("{} {} was created", child.kind().as_str(), child.name()),
                related: None,
            }),
            Action::Patch(patch) => Some(PluginEvent {
                warning: patch.why.reason == Reason::SwapFailed,
                reason: patch.why.reason,
                action: "Patch",
                message: patch.why.message.clone(),
                related: uid_of(&patch.name),
            }),
            Action::DeletePod(delete) => Some(PluginEvent {
                warning: delete.why.reason == Reason::PodFailed,
                reason: delete.why.reason,
                action: "Delete",
                message: delete.why.message.clone(),
                related: Some((delete.name.clone(), delete.uid.clone())),
            }),
            Action::AddFinalizer | Action::RemoveFinalizer | Action::EnsureIdentity { .. } => None,
        })
        .collect()
}

/// A replica that got into trouble, or whose process is a new one.
fn turned(before: &PluginStatus, assessed: &Assessed) -> Option<PluginEvent> {
    let line = &assessed.line;
    let known = before.instances.iter().find(|k| k.pod_uid == line.pod_uid);
    let related = Some((line.pod.clone(), line.pod_uid.clone()));
    if let Some(reason) = assessed.reason
        && known.is_none_or(|k| k.reason != line.reason)
        && !matches!(reason.mover(), Mover::Nobody | Mover::Patchbay)
    {
        return Some(PluginEvent {
            warning: true,
            reason,
            action: "Observe",
            message: format!("pod {}: {}", line.pod, line.message),
            related,
        });
    }
    let known = known?;
    restarted(known, line).then(|| PluginEvent {
        warning: false,
        reason: Reason::Restarted,
        action: "Observe",
        message: format!(
            "pod {}: the plugin was started again ({} restarts); before: {}",
            line.pod,
            line.restarts,
            line.last_exit.as_deref().unwrap_or("unknown")
        ),
        related,
    })
}

fn restarted(before: &InstanceStatus, after: &InstanceStatus) -> bool {
    after.state == InstanceState::Ready
        && before.start_id.is_some()
        && after.start_id.is_some()
        && before.start_id != after.start_id
}

/// Conditions that flipped, but not what a replica's own event said already.
fn flipped(before: &PluginStatus, after: &PluginStatus) -> Vec<PluginEvent> {
    let find = |status: &PluginStatus, type_: ConditionType| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == type_.as_str())
            .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    let mut events = Vec::new();
    for type_ in [
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Ready,
        ConditionType::Degraded,
    ] {
        let was = find(before, type_);
        let Some((status, word, message)) = find(after, type_) else {
            continue;
        };
        let Some(reason) = Reason::parse(&word) else {
            continue;
        };
        let same = was
            .as_ref()
            .is_some_and(|(s, r, _)| *s == status && *r == word);
        let warning = match type_ {
            ConditionType::Degraded => status == "True",
            ConditionType::Ready if status == "True" => false,
            // Which replica is in trouble has been said in its own event.
            ConditionType::Ready => continue,
            _ => status == "False",
        };
        if !same && (warning || type_ == ConditionType::Ready) {
            events.push(PluginEvent {
                warning,
                reason,
                action: "Observe",
                message,
                related: None,
            });
        }
    }
    events
}
