//! One ordinal and its pods.

use super::revision;
use crate::plugin::observe::{Observed, Phase};
use crate::plugin::our_pod::OurPod;
use patchbay_api::names::CONFIG_ANNOTATION;

pub(super) struct Slot<'a> {
    pub(super) ordinal: u16,
    /// The newest pod that lives.
    pub(super) current: Option<&'a OurPod<'a>>,
    /// Everything else of this ordinal.
    pub(super) others: Vec<&'a OurPod<'a>>,
    /// Whether it answers calls and no change of ours is about to interrupt it.
    pub(super) works: bool,
}

impl<'a> Slot<'a> {
    pub(super) fn new(ordinal: u16, pods: &[&'a OurPod<'a>], observed: &Observed) -> Self {
        let current = pods
            .iter()
            .copied()
            .filter(|pod| !pod.terminating() && !pod.finished())
            .max_by_key(|pod| pod.name.incarnation);
        Self {
            ordinal,
            current,
            others: pods
                .iter()
                .copied()
                .filter(|pod| current.is_none_or(|c| c.uid != pod.uid))
                .collect(),
            works: current.is_some_and(|pod| works(pod, observed)),
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
            let written = pod.annotation(CONFIG_ANNOTATION).map(revision);
            instance.phase != Phase::Ready || written.is_some_and(|w| instance.revision < w)
        });
    pod.ready() && !swapping && !interrupted
}
