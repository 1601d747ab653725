//! Pods: which to create, to delete and to change.
//!
//! Each ordinal has at most one pod that counts; the others are on their way out. A step that
//! takes a replica away waits until few enough are away already. A replica that does not work
//! anyway may always be changed: that is how a mistake is repaired.

use super::{highest_incarnation, preconditions};
use crate::build::config::{grace_seconds, pod_config};
use crate::build::pod::{config_text, pod as build_pod};
use crate::plugin::action::{
    Action, Child, ChildKind, ChildPatch, DeletePod, PatchFormat, Plan, Why,
};
use crate::plugin::change::{
    Allowed, Built, Change, Container, FailedSwap, PodChange, Steps, Swap, classify,
};
use crate::plugin::kubelet;
use crate::plugin::observe::{Observed, Phase};
use crate::plugin::resolve::{Resolved, Who};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use patchbay_api::Reason;
use patchbay_api::names::{
    BUILT_ANNOTATION, CONFIG_ANNOTATION, PLUGIN_CONTAINER, PodName, SIDECAR_CONTAINER,
};
use patchbay_api::plugin::Replacement;
use patchbay_protocol::pod_config::PodConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A pod that fails younger than this is replaced no sooner: what makes it fail is likely to make
/// its successor fail too.
const YOUNG: SignedDuration = SignedDuration::from_secs(30);

/// One pod of ours, with its name understood.
#[derive(Clone, Debug)]
pub struct OurPod<'a> {
    /// Its name.
    pub name: PodName,
    /// Its uid.
    pub uid: String,
    /// The object.
    pub pod: &'a Pod,
}

impl<'a> OurPod<'a> {
    /// Reads a pod; `None` when its name is not of our making.
    pub fn read(who: &Who, pod: &'a Pod) -> Option<Self> {
        Some(Self {
            name: PodName::parse(&who.name, pod.metadata.name.as_deref()?)?,
            uid: pod.metadata.uid.clone()?,
            pod,
        })
    }

    /// Whether it was told to go.
    pub fn terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has ended for good.
    pub fn finished(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Failed" | "Succeeded"))
    }

    /// Whether the kubelet calls it ready.
    pub fn ready(&self) -> bool {
        !self.terminating() && !self.finished() && kubelet::ready(self.pod)
    }

    /// Its address.
    pub fn ip(&self) -> Option<&'a str> {
        let ip = self.pod.status.as_ref()?.pod_ip.as_deref()?;
        (!ip.is_empty()).then_some(ip)
    }

    /// One of its annotations.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        let annotations = self.pod.metadata.annotations.as_ref()?;
        annotations.get(key).map(String::as_str)
    }

    /// What it was built from.
    pub fn built(&self) -> Option<Built> {
        Built::read(self.annotation(BUILT_ANNOTATION))
    }

    /// Grace period that its present configuration needs; the pod's own field is as old as the pod.
    pub fn grace_seconds(&self) -> Option<u32> {
        let config: PodConfig = serde_json::from_str(self.annotation(CONFIG_ANNOTATION)?).ok()?;
        Some(grace_seconds(&config.shutdown))
    }

    fn created(&self) -> Option<Timestamp> {
        self.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
    }

    fn delete(&self, reason: Reason, message: String) -> Action {
        Action::DeletePod(DeletePod {
            name: self.name.to_string(),
            uid: self.uid.clone(),
            grace_seconds: self.grace_seconds(),
            why: Why { reason, message },
        })
    }
}

/// Everything that the decision about one ordinal needs.
struct Wave<'a> {
    observed: &'a Observed,
    resolved: &'a Resolved,
    wanted: Built,
    config: PodConfig,
    /// How many more working replicas may be taken away in this pass.
    budget: i64,
    /// Whether a change of an image is on its way or has failed: then no further one begins.
    swapping: bool,
    stopped: Option<FailedSwap>,
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
            plan.actions.push(pod.delete(Reason::Deleted, message));
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
        .filter_map(|slot| slot.counts)
        .filter_map(OurPod::built)
        .collect();
    let mut wave = Wave {
        observed,
        resolved,
        config: pod_config(resolved, &observed.settings),
        budget: i64::from(resolved.spec.update.max_unavailable) - away as i64,
        swapping: built.iter().any(|built| built.swap.is_some()),
        stopped: built
            .iter()
            .filter_map(|built| built.failed.clone())
            .find(|failed| failed.image == wanted.image(failed.container)),
        wanted,
    };
    let mut later = Vec::new();
    for slot in &slots {
        wave.clean(slot, plan);
        match slot.counts {
            Some(pod) => wave.change(slot, pod, plan),
            None => wave.create(slot, &mut later),
        }
    }
    // Changes and deletions first, so that a refused pod does not keep another from being repaired.
    plan.actions.append(&mut later);
}

/// One ordinal.
struct Slot<'a> {
    ordinal: u16,
    /// The newest pod that lives.
    counts: Option<&'a OurPod<'a>>,
    /// Everything else of this ordinal.
    others: Vec<&'a OurPod<'a>>,
    /// Whether it answers calls and no change of ours is about to interrupt it.
    works: bool,
}

impl<'a> Slot<'a> {
    fn new(ordinal: u16, pods: &[&'a OurPod<'a>], observed: &Observed) -> Self {
        let counts = pods
            .iter()
            .copied()
            .filter(|pod| !pod.terminating() && !pod.finished())
            .max_by_key(|pod| pod.name.incarnation);
        Self {
            ordinal,
            counts,
            others: pods
                .iter()
                .copied()
                .filter(|pod| counts.is_none_or(|c| c.uid != pod.uid))
                .collect(),
            works: counts.is_some_and(|pod| works(pod, observed)),
        }
    }
}

/// The kubelet notices an interruption seconds after it was ordered. So a change on its way counts
/// as one already: a swap, a configuration that is not in force, a sidecar that says otherwise.
fn works(pod: &OurPod<'_>, observed: &Observed) -> bool {
    let swapping = pod.built().is_some_and(|built| built.swap.is_some());
    let interrupted = observed
        .sessions
        .get(&pod.uid)
        .filter(|session| session.attached)
        .and_then(|session| session.instance.as_ref())
        .is_some_and(|instance| {
            let written = pod.annotation(CONFIG_ANNOTATION).map(super::revision);
            instance.phase != Phase::Ready || written.is_some_and(|w| instance.revision < w)
        });
    pod.ready() && !swapping && !interrupted
}

impl Built {
    fn image(&self, container: Container) -> &str {
        match container {
            Container::Sidecar => &self.sidecar,
            Container::Plugin => &self.plugin,
        }
    }

    fn set_image(&mut self, container: Container, image: &str) {
        match container {
            Container::Sidecar => self.sidecar = image.to_owned(),
            Container::Plugin => self.plugin = image.to_owned(),
        }
    }
}

impl Wave<'_> {
    /// Deletes what does not count: pods that failed, and older ones that still live.
    fn clean(&mut self, slot: &Slot<'_>, plan: &mut Plan) {
        for pod in slot.others.iter().filter(|pod| !pod.terminating()) {
            if pod.finished() {
                let due = pod.created().map(|created| created + YOUNG);
                match due.filter(|due| *due > self.observed.now) {
                    Some(due) => wake(plan, due),
                    None => {
                        let why = kubelet::end_of(pod.pod);
                        let message = format!("pod {} is replaced: {why}", pod.name);
                        plan.actions.push(pod.delete(Reason::PodFailed, message));
                    }
                }
            } else {
                let message = format!("pod {} has a successor", pod.name);
                plan.actions.push(pod.delete(Reason::Deleted, message));
            }
        }
    }

    fn create(&self, slot: &Slot<'_>, actions: &mut Vec<Action>) {
        if !self.resolved.missing.is_empty() {
            return;
        }
        let alone = self.resolved.spec.update.replacement == Replacement::WhenGone;
        let waits = slot
            .others
            .iter()
            .any(|pod| alone || (pod.finished() && !pod.terminating() && self.young(pod)));
        if waits {
            return;
        }
        let name = PodName {
            plugin: self.resolved.who.name.clone(),
            ordinal: slot.ordinal,
            incarnation: highest_incarnation(self.observed, &self.resolved.who, slot.ordinal)
                .saturating_add(1),
        };
        let pod = build_pod(self.resolved, &self.observed.settings, &name);
        actions.push(Action::Create(Child::Pod(Box::new(pod))));
    }

    fn young(&self, pod: &OurPod<'_>) -> bool {
        pod.created()
            .is_some_and(|created| created + YOUNG > self.observed.now)
    }

    fn allowed(&self) -> Allowed {
        Allowed {
            strategy: self.resolved.spec.update.strategy,
            sidecar: self.resolved.spec.update.sidecar,
        }
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
        let all = classify(Some(&built), &self.wanted, self.allowed());
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

    fn step(
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

    fn take_over_config(&self, next: &mut Built) {
        next.live.clone_from(&self.wanted.live);
        next.process.clone_from(&self.wanted.process);
        next.generation = self.wanted.generation;
    }

    /// Changes one image on the living pod. With the plugin's image goes its configuration: both
    /// start anew together.
    fn swap(&self, pod: &OurPod<'_>, built: &Built, container: Container, config: bool) -> Action {
        let to = self.wanted.image(container);
        let from = built.image(container).to_owned();
        let mut next = built.clone();
        next.set_image(container, to);
        next.failed = None;
        next.swap = Some(Swap {
            container,
            from: from.clone(),
            at: self.observed.now,
            restarts: kubelet::restarts(pod.pod, container.name()),
            worked: pod.ready(),
        });
        let mut annotations = serde_json::Map::new();
        if config {
            self.take_over_config(&mut next);
            annotations.insert(
                CONFIG_ANNOTATION.to_owned(),
                config_text(&self.config).into(),
            );
        }
        annotations.insert(BUILT_ANNOTATION.to_owned(), next.write().into());
        let message = format!(
            "pod {}: the {} changes from {from} to {to}",
            pod.name,
            container.name()
        );
        patch(
            pod,
            annotations.into(),
            Some((container, to)),
            Reason::Swapped,
            message,
        )
    }

    /// Looks at a change of an image that is on its way.
    fn settle(
        &mut self,
        slot: &Slot<'_>,
        pod: &OurPod<'_>,
        built: &Built,
        swap: &Swap,
        steps: Steps,
        plan: &mut Plan,
    ) {
        let name = swap.container.name();
        let image = built.image(swap.container);
        let anew =
            kubelet::restarts(pod.pod, name) > swap.restarts && kubelet::running(pod.pod, name);
        let deadline = swap.at
            + SignedDuration::from_secs(i64::from(
                self.resolved.spec.update.progress_deadline_seconds,
            ));
        let mut next = built.clone();
        next.swap = None;
        // A replica that did not work before cannot be the judge of its new image.
        if anew && (pod.ready() || !swap.worked) {
            let message = format!("pod {}: the {name} now runs {image}", pod.name);
            let annotations = json!({ BUILT_ANNOTATION: next.write() });
            plan.actions
                .push(patch(pod, annotations, None, Reason::Swapped, message));
        } else if image != self.wanted.image(swap.container) {
            // Another image was asked for meanwhile: no need to wait for the end of this one.
            self.step(slot, pod, built, steps, plan);
        } else if self.observed.now < deadline {
            wake(plan, deadline);
        } else {
            next.set_image(swap.container, &swap.from);
            next.failed = Some(FailedSwap {
                container: swap.container,
                image: image.to_owned(),
            });
            self.stopped.clone_from(&next.failed);
            let message = format!(
                "pod {}: the {name} {image} was not ready after {} s; {} is put back",
                pod.name, self.resolved.spec.update.progress_deadline_seconds, swap.from
            );
            let annotations = json!({ BUILT_ANNOTATION: next.write() });
            let back = Some((swap.container, swap.from.as_str()));
            plan.actions
                .push(patch(pod, annotations, back, Reason::SwapFailed, message));
        }
    }

    fn replace(&mut self, slot: &Slot<'_>, pod: &OurPod<'_>, why: &str, plan: &mut Plan) {
        // Without what the successor needs there would be none.
        if self.resolved.missing.is_empty() && self.take(slot) {
            let message = format!("pod {} is replaced: {why}", pod.name);
            plan.actions.push(pod.delete(Reason::Updating, message));
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

impl Container {
    /// Name of the container in the pod.
    pub const fn name(self) -> &'static str {
        match self {
            Container::Sidecar => SIDECAR_CONTAINER,
            Container::Plugin => PLUGIN_CONTAINER,
        }
    }

    const fn change(self) -> Change {
        match self {
            Container::Sidecar => Change::SidecarSwap,
            Container::Plugin => Change::PluginSwap,
        }
    }
}

fn patch(
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

/// Asks for another look, the earliest of all that were asked for.
fn wake(plan: &mut Plan, at: Timestamp) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |known| known.min(at)));
}
