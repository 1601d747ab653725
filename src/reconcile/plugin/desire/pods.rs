//! Pods: which to create, to delete and to change.
//!
//! Each ordinal has at most one pod that counts; the others are on their way out. A step that
//! takes a replica away waits until few enough are away already. A replica that does not work
//! anyway may always be changed: that is how a mistake is repaired.

use super::slot::Slot;
use super::{highest_incarnation, preconditions};
use crate::build::config::pod_config;
use crate::build::pod::{config_text, pod as build_pod};
use crate::moment::later;
use crate::plugin::action::{
    Action, Child, ChildKind, ChildPatch, DeletePod, PatchFormat, Plan, Why,
};
use crate::plugin::change::{
    Allowed, Built, Change, Container, FailedSwap, PodChange, Steps, classify,
};
use crate::plugin::kubelet;
use crate::plugin::observe::Observed;
use crate::plugin::our_pod::OurPod;
use crate::plugin::resolve::Resolved;
use jiff::{SignedDuration, Timestamp};
use patchbay_api::Reason;
use patchbay_api::names::{BUILT_ANNOTATION, CONFIG_ANNOTATION, PodName};
use patchbay_api::plugin::{Replacement, Update};
use patchbay_protocol::pod_config::PodConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A pod that fails younger than this is replaced no sooner: what makes it fail is likely to make
/// its successor fail too.
const RECREATE_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// Everything that the decision about one ordinal needs.
pub(super) struct Rollout<'a> {
    pub(super) observed: &'a Observed,
    pub(super) resolved: &'a Resolved,
    pub(super) wanted: Built,
    pub(super) config: PodConfig,
    allowed: Allowed,
    replacement: Replacement,
    pub(super) progress_deadline_seconds: i32,
    /// How many more working replicas may be taken away in this pass.
    budget: i64,
    /// Whether a change of an image is on its way or has failed: then no further one begins.
    swapping: bool,
    pub(super) stopped: Option<FailedSwap>,
}

pub(super) fn decide(
    observed: &Observed,
    resolved: &Resolved,
    pods: &[OurPod<'_>],
    plan: &mut Plan,
) {
    let replicas = u16::try_from(resolved.spec.replicas).unwrap_or_default();
    let mut by_ordinal: BTreeMap<u16, Vec<&OurPod<'_>>> = BTreeMap::new();
    for pod in pods {
        by_ordinal.entry(pod.name.ordinal).or_default().push(pod);
    }
    for (_, excess) in by_ordinal.range(replicas..) {
        for pod in excess.iter().filter(|pod| !pod.terminating()) {
            let message = format!(
                "pod {} is more than the {replicas} wanted replicas",
                pod.name
            );
            plan.actions.push(delete(pod, Reason::Deleted, message));
        }
    }

    let none = Vec::new();
    let slots: Vec<_> = (0..replicas)
        .map(|ordinal| Slot::new(ordinal, by_ordinal.get(&ordinal).unwrap_or(&none), observed))
        .collect();
    let away = slots.iter().filter(|slot| !slot.works).count();
    let wanted = Built::wanted(resolved, &observed.settings);
    let built: Vec<Built> = slots
        .iter()
        .filter_map(|slot| slot.current)
        .filter_map(OurPod::built)
        .collect();
    // Every field by its name: one that is added and not used here does not compile.
    let &Update {
        strategy,
        max_unavailable,
        progress_deadline_seconds,
        replacement,
        sidecar,
    } = &resolved.spec.update;
    let mut rollout = Rollout {
        observed,
        resolved,
        config: pod_config(resolved, &observed.settings),
        allowed: Allowed { strategy, sidecar },
        replacement,
        progress_deadline_seconds,
        budget: i64::from(max_unavailable) - away as i64,
        swapping: built.iter().any(|built| built.swap.is_some()),
        stopped: built
            .iter()
            .filter_map(|built| built.failed.clone())
            .find(|failed| failed.image == wanted.image(failed.container)),
        wanted,
    };
    let mut later = Vec::new();
    for slot in &slots {
        rollout.clean(slot, plan);
        match slot.current {
            Some(pod) => rollout.change(slot, pod, plan),
            None => rollout.create(slot, &mut later),
        }
    }
    // Changes and deletions first, so that a refused pod does not keep another from being repaired.
    plan.actions.append(&mut later);
}

impl Rollout<'_> {
    /// Deletes what does not count: pods that failed, and older ones that still live.
    fn clean(&mut self, slot: &Slot<'_>, plan: &mut Plan) {
        for pod in slot.others.iter().filter(|pod| !pod.terminating()) {
            if pod.finished() {
                let due = pod.created().map(|created| later(created, RECREATE_PAUSE));
                match due.filter(|due| *due > self.observed.now) {
                    Some(due) => wake(plan, due),
                    None => {
                        let why = kubelet::end_of(pod.pod);
                        let message = format!("pod {} is replaced: {why}", pod.name);
                        plan.actions.push(delete(pod, Reason::PodFailed, message));
                    }
                }
            } else {
                let message = format!("pod {} has a successor", pod.name);
                plan.actions.push(delete(pod, Reason::Deleted, message));
            }
        }
    }

    fn create(&self, slot: &Slot<'_>, actions: &mut Vec<Action>) {
        let alone = self.replacement == Replacement::WhenGone;
        let waits = slot
            .others
            .iter()
            .any(|pod| alone || (pod.finished() && !pod.terminating() && self.young(pod)));
        if waits {
            return;
        }
        let name = PodName {
            plugin: self.resolved.id.name.clone(),
            ordinal: slot.ordinal,
            incarnation: highest_incarnation(self.observed, &self.resolved.id, slot.ordinal)
                .saturating_add(1),
        };
        let pod = build_pod(self.resolved, &self.observed.settings, &name);
        actions.push(Action::Create(Child::Pod(Box::new(pod))));
    }

    fn young(&self, pod: &OurPod<'_>) -> bool {
        pod.created()
            .is_some_and(|created| later(created, RECREATE_PAUSE) > self.observed.now)
    }

    /// Brings one living pod a step closer to the spec.
    fn change(&mut self, slot: &Slot<'_>, pod: &OurPod<'_>, plan: &mut Plan) {
        let Some(built) = pod.built() else {
            let from = "an unknown build".to_owned();
            plan.pending
                .push(self.pending(pod, Change::ReplacePod, from, false));
            self.replace(
                slot,
                pod,
                "its annotation patchbay.dev/built is unreadable",
                plan,
            );
            return;
        };
        let all = classify(Some(&built), &self.wanted, self.allowed);
        let mut steps = all;
        match self.stopped.as_ref().map(|failed| failed.container) {
            // What failed on one pod is tried on no other.
            Some(Container::Sidecar) => steps.sidecar = false,
            Some(Container::Plugin) => steps.plugin = false,
            None => {}
        }
        let failed = self.stopped.is_some() && built.failed == self.stopped;
        let change = match (all.greatest(), &built.swap) {
            (Change::Nothing, Some(swap)) => swap.container.change(),
            (change, _) => change,
        };
        if change != Change::Nothing {
            let from = self.from(&built, change);
            plan.pending.push(self.pending(pod, change, from, failed));
        }
        match &built.swap {
            Some(swap) if !steps.pod => self.settle(slot, pod, &built, swap, steps, plan),
            _ => self.step(slot, pod, &built, steps, plan),
        }
    }

    pub(super) fn step(
        &mut self,
        slot: &Slot<'_>,
        pod: &OurPod<'_>,
        built: &Built,
        steps: Steps,
        plan: &mut Plan,
    ) {
        match steps.greatest() {
            Change::Nothing => {}
            Change::ReplacePod => {
                self.replace(
                    slot,
                    pod,
                    "the Plugin changed in a way that a living pod cannot take over",
                    plan,
                );
            }
            Change::PluginSwap => {
                if self.take(slot) {
                    plan.actions
                        .push(self.swap(pod, built, Container::Plugin, true));
                }
            }
            Change::SidecarSwap => {
                // The plugin lives on, but the pod leaves the endpoints for a moment: one at a time.
                let alone = !self.swapping && (self.budget > 0 || !slot.works);
                if alone {
                    self.swapping = true;
                    plan.actions
                        .push(self.swap(pod, built, Container::Sidecar, false));
                } else if steps.process || steps.live {
                    self.configure(slot, pod, built, steps, plan);
                }
            }
            Change::PluginRestart | Change::Live => self.configure(slot, pod, built, steps, plan),
        }
    }

    fn configure(
        &mut self,
        slot: &Slot<'_>,
        pod: &OurPod<'_>,
        built: &Built,
        steps: Steps,
        plan: &mut Plan,
    ) {
        if steps.process && !self.take(slot) {
            return;
        }
        let mut next = built.clone();
        self.take_over_config(&mut next);
        let what = if steps.process {
            "the plugin starts again with it"
        } else {
            "the sidecar takes it over at once"
        };
        let message = format!("pod {} gets its new configuration; {what}", pod.name);
        let annotations = json!({
            CONFIG_ANNOTATION: config_text(&self.config),
            BUILT_ANNOTATION: next.write(),
        });
        plan.actions
            .push(patch(pod, annotations, None, Reason::Updating, message));
    }

    pub(super) fn take_over_config(&self, next: &mut Built) {
        next.live.clone_from(&self.wanted.live);
        next.process.clone_from(&self.wanted.process);
        next.generation = self.wanted.generation;
    }

    fn replace(&mut self, slot: &Slot<'_>, pod: &OurPod<'_>, why: &str, plan: &mut Plan) {
        if self.take(slot) {
            let message = format!("pod {} is replaced: {why}", pod.name);
            plan.actions.push(delete(pod, Reason::Updating, message));
        }
    }

    /// Asks for leave to take a replica away.
    fn take(&mut self, slot: &Slot<'_>) -> bool {
        if !slot.works {
            return true;
        }
        if self.budget > 0 {
            self.budget -= 1;
            return true;
        }
        false
    }

    fn from(&self, built: &Built, change: Change) -> String {
        match change {
            Change::SidecarSwap => built.sidecar.clone(),
            Change::PluginSwap => built.plugin.clone(),
            _ => format!("generation {}", built.generation),
        }
    }

    fn pending(&self, pod: &OurPod<'_>, change: Change, from: String, failed: bool) -> PodChange {
        PodChange {
            pod: pod.name.to_string(),
            change,
            from,
            to: match change {
                Change::SidecarSwap => self.wanted.sidecar.clone(),
                Change::PluginSwap => self.wanted.plugin.clone(),
                _ => format!("generation {}", self.wanted.generation),
            },
            failed,
        }
    }
}

pub(super) fn patch(
    pod: &OurPod<'_>,
    annotations: Value,
    image: Option<(Container, &str)>,
    reason: Reason,
    message: String,
) -> Action {
    let mut metadata = preconditions(&pod.pod.metadata);
    metadata.insert("annotations".to_owned(), annotations);
    let mut body = json!({ "metadata": metadata });
    if let Some((container, image)) = image {
        let list = match container {
            Container::Sidecar => "initContainers",
            Container::Plugin => "containers",
        };
        body["spec"] = json!({ list: [{ "name": container.name(), "image": image }] });
    }
    Action::Patch(ChildPatch {
        kind: ChildKind::Pod,
        name: pod.name.to_string(),
        format: PatchFormat::Strategic,
        body,
        why: Why { reason, message },
    })
}

fn delete(pod: &OurPod<'_>, reason: Reason, message: String) -> Action {
    Action::DeletePod(DeletePod {
        name: pod.name.to_string(),
        uid: pod.uid.clone(),
        grace_seconds: pod.grace_seconds(),
        why: Why { reason, message },
    })
}

/// Asks for another look, the earliest of all that were asked for.
pub(super) fn wake(plan: &mut Plan, at: Timestamp) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |known| known.min(at)));
}
