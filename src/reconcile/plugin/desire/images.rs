//! Changes of one image on a living pod: begun, watched, and taken back when they fail.

use super::pods::{Rollout, patch, wake};
use super::slot::Slot;
use crate::build::pod::config_text;
use crate::moment::later;
use crate::plugin::action::{Action, Plan};
use crate::plugin::change::{Built, Change, Container, FailedSwap, Steps, Swap};
use crate::plugin::kubelet;
use crate::plugin::our_pod::OurPod;
use jiff::SignedDuration;
use patchbay_api::Reason;
use patchbay_api::names::{
    BUILT_ANNOTATION, CONFIG_ANNOTATION, PLUGIN_CONTAINER, SIDECAR_CONTAINER,
};
use serde_json::json;

impl Rollout<'_> {
    /// Changes one image on the living pod. With the plugin's image goes its configuration: both
    /// restart together.
    pub(super) fn swap(
        &self,
        pod: &OurPod<'_>,
        built: &Built,
        container: Container,
        config: bool,
    ) -> Action {
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
    pub(super) fn settle(
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
        let restarted =
            kubelet::restarts(pod.pod, name) > swap.restarts && kubelet::running(pod.pod, name);
        let deadline = later(
            swap.at,
            SignedDuration::from_secs(i64::from(self.progress_deadline_seconds)),
        );
        let mut next = built.clone();
        next.swap = None;
        // A replica that did not work before cannot be the judge of its new image.
        if restarted && (pod.ready() || !swap.worked) {
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
                pod.name, self.progress_deadline_seconds, swap.from
            );
            let annotations = json!({ BUILT_ANNOTATION: next.write() });
            let back = Some((swap.container, swap.from.as_str()));
            plan.actions
                .push(patch(pod, annotations, back, Reason::SwapFailed, message));
        }
    }
}

impl Built {
    pub(super) fn image(&self, container: Container) -> &str {
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

impl Container {
    /// Name of the container in the pod.
    pub const fn name(self) -> &'static str {
        match self {
            Container::Sidecar => SIDECAR_CONTAINER,
            Container::Plugin => PLUGIN_CONTAINER,
        }
    }

    pub(super) const fn change(self) -> Change {
        match self {
            Container::Sidecar => Change::SidecarSwap,
            Container::Plugin => Change::PluginSwap,
        }
    }
}
