//! Every decision of the operator that depends on the family of a plugin: one trait, one file per
//! family. Nothing else in this crate asks which family a plugin has.

pub mod go_plugin;
pub mod pcp;

use crate::job::acceptance::Acceptance;
use crate::job::observe::PluginView;
use crate::plugin::observe::Instance;
use patchbay_api::plugin::{ServiceType, TrafficPolicy};
use patchbay_api::plugin_status::InstanceStatus;
use patchbay_api::{FamilySpec, JobSpec};
use patchbay_protocol::pod_config::FamilyConfig;
use serde_json::{Map, Value};

/// What the operator has to know about a family, with the settings of one Plugin.
pub trait PluginFamily {
    /// Its part of the document that a sidecar reads.
    fn config(&self) -> FamilyConfig;

    /// Where the pods accept connections of those who use the plugin.
    fn client_port(&self) -> ClientPort;

    /// What a node does with traffic from outside when the author says nothing.
    fn traffic_policy(&self, service: ServiceType) -> Option<TrafficPolicy>;

    /// Secret with certificates for the connection to the plugin, if the Plugin names one.
    fn certificates(&self) -> Option<&str>;

    /// Its part of what a living pod cannot change; it is compared as JSON. A key that is added
    /// must be absent while its setting has the default, or the next release replaces every pod.
    fn fixed_at_creation(&self) -> Map<String, Value>;

    /// Texts for conditions.
    fn texts(&self) -> Texts;

    /// Whether the process of a pod that the kubelet calls ready has finished its handshake, as far
    /// as is known while no session is open: by the last message of its sidecar, or by the status
    /// that was written before.
    fn handshake_known(&self, last: Option<&Instance>, before: Option<&InstanceStatus>) -> bool;

    /// Whether the warnings of a plugin that is ready make its Plugin degraded.
    fn warnings_degrade(&self) -> bool;

    /// Whether the plugin takes a job. `job` has either a command or a call; `name` is the
    /// Plugin's, safe to print.
    fn judge_job(&self, job: &JobSpec, plugin: &PluginView, name: &str) -> Acceptance;
}

/// A port for the clients of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPort {
    /// The port of the pod.
    pub number: u16,
    /// Its name in the sidecar's container.
    pub container_port: &'static str,
    /// Its name in the Services.
    pub service_port: &'static str,
    /// What meshes and gateways shall speak to it.
    pub app_protocol: Option<&'static str>,
}

/// What the replicas of a family do, behind "3 of 3 replicas".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Replicas that finished their handshake.
    pub handshaken: &'static str,
    /// Replicas that are ready.
    pub ready: &'static str,
}

/// The family of a Plugin.
pub fn of(spec: &FamilySpec) -> &dyn PluginFamily {
    match spec {
        FamilySpec::GoPlugin(settings) => settings,
        FamilySpec::PcpController(settings) => settings,
    }
}

/// A number of a setting. The schema lets no negative one in.
pub(crate) fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// A port of a setting. The schema lets nothing above 65535 in.
fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
