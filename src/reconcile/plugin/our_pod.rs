//! One pod of a Plugin, with its name understood.

use super::change::Built;
use super::kubelet;
use super::resolve::PluginId;
use crate::build::config::grace_seconds;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use patchbay_api::names::{BUILT_ANNOTATION, CONFIG_ANNOTATION, PodName};
use patchbay_protocol::pod_config::PodConfig;

/// One pod of ours, with its name understood.
#[derive(Clone, Debug)]
pub struct OurPod<'a> {
    pub name: PodName,
    pub uid: String,
    pub pod: &'a Pod,
}

impl<'a> OurPod<'a> {
    /// Reads a pod; `None` when its name is not of our making.
    pub fn read(id: &PluginId, pod: &'a Pod) -> Option<Self> {
        Some(Self {
            name: PodName::parse(&id.name, pod.metadata.name.as_deref()?)?,
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

    /// When it was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
    }
}
