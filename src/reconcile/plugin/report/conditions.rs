//! The conditions of a Plugin, each from a list of small decisions. The first that applies is
//! said.

use super::count;
use super::instances::worst;
use crate::family::{self, Texts};
use crate::plugin::action::{Action, Applied, Outcome, Plan};
use crate::plugin::assess::Assessed;
use crate::plugin::kubelet::Trouble;
use crate::plugin::observe::Observed;
use crate::plugin::our_pod::OurPod;
use crate::plugin::resolve::{Resolution, name_taken};
use crate::text::{untrusted_text, with_mover};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use patchbay_api::plugin::SidecarUpdate;
use patchbay_api::reasons::Mover;
use patchbay_api::{ConditionType, PluginStatus, Reason};

/// Texts for a Plugin that names no family; the API server lets none of these in.
const WITHOUT_FAMILY: Texts = Texts {
    handshaken: "have finished their handshake",
    ready: "are ready",
};

/// Everything that the conditions are made from.
pub(super) struct Facts<'a> {
    resolution: &'a Resolution,
    plan: &'a Plan,
    /// What the API server did not let us do.
    refusal: Option<Trouble>,
    /// Pods that count: not on their way out.
    living: Vec<&'a Assessed>,
    /// Replicas that the spec wants.
    pub(super) wanted: usize,
    /// Of the living, those that answer calls.
    pub(super) ready: usize,
    /// Of the living, those that are what the spec says.
    pub(super) updated: usize,
    /// Pods whose sidecar is not the installation's.
    outdated: usize,
    sidecar_update: SidecarUpdate,
    texts: Texts,
}

struct Verdict {
    status: &'static str,
    reason: Reason,
    message: String,
}

fn yes(reason: Reason, message: impl Into<String>) -> Verdict {
    verdict("True", reason, message)
}

fn no(reason: Reason, message: impl Into<String>) -> Verdict {
    verdict("False", reason, message)
}

fn unknown(reason: Reason, message: impl Into<String>) -> Verdict {
    verdict("Unknown", reason, message)
}

fn verdict(status: &'static str, reason: Reason, message: impl Into<String>) -> Verdict {
    Verdict {
        status,
        reason,
        message: message.into(),
    }
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        observed: &Observed,
        resolution: &'a Resolution,
        plan: &'a Plan,
        applied: &Applied<'_>,
        pods: &[OurPod<'_>],
        assessed: &'a [Assessed],
    ) -> Self {
        let spec = &observed.plugin.spec;
        let living: Vec<_> = assessed
            .iter()
            .filter(|a| !a.terminating && a.reason != Some(Reason::PodFailed))
            .collect();
        let updated = living
            .iter()
            .filter(|a| plan.pending.iter().all(|p| p.pod != a.line.pod))
            .count();
        let outdated = pods
            .iter()
            .filter(|pod| !pod.terminating() && !pod.finished())
            .filter(|pod| {
                pod.built()
                    .is_none_or(|built| built.sidecar != observed.settings.sidecar_image)
            })
            .count();
        Self {
            resolution,
            plan,
            refusal: refusal(applied),
            wanted: usize::try_from(spec.replicas).unwrap_or_default(),
            ready: living.iter().filter(|a| a.ready()).count(),
            updated,
            outdated,
            sidecar_update: spec.update.sidecar,
            texts: observed
                .family()
                .map_or(WITHOUT_FAMILY, |spec| family::of(&spec).texts()),
            living,
        }
    }
}

/// The last action, when it was not done.
fn refusal(applied: &Applied<'_>) -> Option<Trouble> {
    let (action, outcome) = applied.0.last()?;
    let (kind, name) = match action {
        Action::Create(child) => (child.kind().as_str(), child.name().to_owned()),
        Action::Patch(patch) => (patch.kind.as_str(), patch.name.clone()),
        Action::DeletePod(delete) => ("Pod", delete.name.clone()),
        Action::EnsureIdentity { secret } => ("Secret", secret.clone()),
        Action::AddFinalizer | Action::RemoveFinalizer => ("Plugin", "itself".to_owned()),
    };
    let pod = kind == "Pod";
    match outcome {
        Outcome::Done | Outcome::Failed { .. } => None,
        Outcome::Taken => Some(Trouble {
            reason: Reason::NameTaken,
            message: name_taken(kind, &name),
        }),
        Outcome::Refused { message } => Some(Trouble {
            reason: if pod {
                Reason::PodRefused
            } else {
                Reason::ChildRefused
            },
            message: format!(
                "the API server refused the {kind} {name}: {}",
                untrusted_text(message)
            ),
        }),
    }
}

/// All conditions, with the transition times of those that did not flip.
pub(super) fn conditions(
    facts: &Facts<'_>,
    before: &PluginStatus,
    observed: &Observed,
) -> Vec<Condition> {
    let verdicts = [
        (ConditionType::Accepted, Some(accepted(facts))),
        (ConditionType::ResolvedRefs, Some(resolved_refs(facts))),
        (ConditionType::Handshaken, Some(handshaken(facts))),
        (ConditionType::SidecarCurrent, Some(sidecar_current(facts))),
        (ConditionType::Ready, Some(ready(facts))),
        (ConditionType::Degraded, degraded(facts)),
    ];
    verdicts
        .into_iter()
        .filter_map(|(type_, verdict)| Some((type_, verdict?)))
        .map(|(type_, verdict)| {
            let known = before.conditions.iter().find(|c| c.type_ == type_.as_str());
            Condition {
                type_: type_.as_str().to_owned(),
                status: verdict.status.to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message: with_mover(&verdict.message, verdict.reason),
                observed_generation: observed.plugin.metadata.generation,
                last_transition_time: known
                    .filter(|known| known.status == verdict.status)
                    .map_or(Time(observed.now), |known| {
                        known.last_transition_time.clone()
                    }),
            }
        })
        .collect()
}

fn accepted(facts: &Facts<'_>) -> Verdict {
    if let Resolution::Refused(refusal) = facts.resolution {
        return no(refusal.reason, refusal.message.clone());
    }
    match &facts.refusal {
        Some(trouble) => no(trouble.reason, trouble.message.clone()),
        None => yes(Reason::Accepted, "the Plugin can be run as it is written"),
    }
}

fn resolved_refs(facts: &Facts<'_>) -> Verdict {
    if !matches!(facts.resolution, Resolution::Wanted(_)) {
        return unknown(Reason::Pending, "nothing was looked up");
    }
    let seen = facts.living.iter().find(|a| {
        matches!(
            a.reason,
            Some(Reason::SecretMissing | Reason::ConfigMapMissing | Reason::KeyMissing)
        )
    });
    match seen {
        Some(a) => no(
            a.reason.unwrap_or(Reason::SecretMissing),
            format!("pod {}: {}", a.line.pod, a.line.message),
        ),
        None => yes(
            Reason::Resolved,
            "nothing that the Plugin names is known to be missing",
        ),
    }
}

fn handshaken(facts: &Facts<'_>) -> Verdict {
    if let Some(verdict) = nothing_runs(facts) {
        return verdict;
    }
    let done = facts.living.iter().filter(|a| a.handshaken).count();
    if done >= facts.wanted {
        return yes(
            Reason::Handshaken,
            format!(
                "{done} of {} replicas {}",
                facts.wanted, facts.texts.handshaken
            ),
        );
    }
    let open: Vec<_> = facts
        .living
        .iter()
        .copied()
        .filter(|a| !a.handshaken)
        .collect();
    match worst(&open) {
        Some(a) => {
            let reason = a.reason.unwrap_or(Reason::Pending);
            let message = format!("pod {}: {}", a.line.pod, a.line.message);
            match reason.mover() {
                Mover::Nobody | Mover::Patchbay => unknown(reason, message),
                _ => no(reason, message),
            }
        }
        // Ready by the kubelet's word, or not created yet.
        None => unknown(
            Reason::WaitingForSession,
            format!(
                "{done} of {} replicas are known to {}",
                facts.wanted, facts.texts.handshaken
            ),
        ),
    }
}

fn sidecar_current(facts: &Facts<'_>) -> Verdict {
    if let Some(verdict) = nothing_runs(facts) {
        return verdict;
    }
    let failed = facts
        .plan
        .pending
        .iter()
        .find(|p| p.failed && p.change == crate::plugin::change::Change::SidecarSwap);
    if let Some(failed) = failed {
        return no(
            Reason::SwapFailed,
            format!(
                "pod {}: the sidecar {} did not become ready in time and {} was put back",
                failed.pod, failed.to, failed.from
            ),
        );
    }
    let total = facts.living.len();
    match (facts.outdated, facts.sidecar_update) {
        (0, _) => {
            let swapping = facts
                .plan
                .pending
                .iter()
                .any(|p| p.change == crate::plugin::change::Change::SidecarSwap);
            if swapping {
                no(Reason::Updating, "a new sidecar is starting")
            } else {
                yes(Reason::Current, "every pod runs the installation's sidecar")
            }
        }
        (outdated, SidecarUpdate::Auto) => no(
            Reason::Updating,
            format!(
                "{outdated} of {total} pods still run another sidecar; they are changed one at a time"
            ),
        ),
        (outdated, SidecarUpdate::Manual) => no(
            Reason::SidecarOutdated,
            format!(
                "{outdated} of {total} pods run another sidecar; delete them one by one, or set spec.update.sidecar to Auto"
            ),
        ),
    }
}

fn ready(facts: &Facts<'_>) -> Verdict {
    match facts.resolution {
        Resolution::Deleting(_) => {
            return no(
                Reason::Deleting,
                format!("{} pods are still on their way out", facts.living.len()),
            );
        }
        Resolution::Refused(refusal) if facts.living.is_empty() => {
            return no(refusal.reason, refusal.message.clone());
        }
        _ => {}
    }
    if facts.wanted == 0 {
        return no(
            Reason::ScaledToZero,
            "spec.replicas is 0; raise it to run the plugin",
        );
    }
    let (ready, wanted) = (facts.ready, facts.wanted);
    if ready >= wanted {
        return yes(
            Reason::Ready,
            format!("{ready} of {wanted} replicas {}", facts.texts.ready),
        );
    }
    if let Some(a) = worst(&facts.living) {
        let reason = a.reason.unwrap_or(Reason::Pending);
        return no(
            reason,
            format!(
                "{ready} of {wanted} replicas {}; pod {}: {}",
                facts.texts.ready, a.line.pod, a.line.message
            ),
        );
    }
    if let Some(trouble) = &facts.refusal {
        return no(trouble.reason, trouble.message.clone());
    }
    let refs = resolved_refs(facts);
    if refs.status == "False" {
        return no(refs.reason, refs.message);
    }
    if facts.living.is_empty() {
        return unknown(Reason::Pending, "no pod has been seen yet");
    }
    no(
        Reason::PodPending,
        format!(
            "{ready} of {wanted} replicas {}; the others are being created",
            facts.texts.ready
        ),
    )
}

/// Only while true.
fn degraded(facts: &Facts<'_>) -> Option<Verdict> {
    if let Resolution::Deleting(_) = facts.resolution {
        return None;
    }
    if let Some(failed) = facts.plan.pending.iter().find(|p| p.failed) {
        return Some(yes(
            Reason::SwapFailed,
            format!(
                "pod {}: {} did not become ready in time and {} was put back; nothing else is changed until another image is named",
                failed.pod, failed.to, failed.from
            ),
        ));
    }
    if let Some(flaw) = facts.living.iter().find_map(|a| a.flaw.as_ref()) {
        return Some(yes(flaw.reason, flaw.message.clone()));
    }
    // While Patchbay itself is at work a missing replica is no flaw.
    let stuck = facts
        .living
        .iter()
        .filter_map(|a| a.reason)
        .any(|reason| !matches!(reason.mover(), Mover::Nobody | Mover::Patchbay));
    (facts.ready > 0 && facts.ready < facts.wanted && stuck).then(|| {
        yes(
            Reason::PartlyReady,
            format!(
                "{} of {} replicas {}",
                count(facts.ready),
                facts.wanted,
                facts.texts.ready
            ),
        )
    })
}

/// What conditions about running pods say while there is nothing to run.
fn nothing_runs(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.wanted == 0 {
        return Some(unknown(Reason::ScaledToZero, "spec.replicas is 0"));
    }
    if !facts.living.is_empty() {
        return None;
    }
    Some(match facts.resolution {
        Resolution::Deleting(_) => unknown(Reason::Deleting, "the Plugin is being deleted"),
        _ => unknown(Reason::Pending, "no pod has been seen yet"),
    })
}
