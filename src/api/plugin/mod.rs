//! The kind Plugin: a program, how to speak to it, and how many of it.
//!
//! Spec only; what is seen stands in [`crate::plugin_status`]. Defaults stand in the schema and
//! are the same as here. Numbers are `i32` as in all of Kubernetes; the schema bounds them.

pub mod jobs;
pub mod life;
pub mod pod;
pub mod protocol;
pub mod rules;
pub mod service;

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod schema_tests;

use crate::plugin_status::PluginStatus;
use crate::schema::{LARGE, SMALL, bounded, keyed, rules_on_items};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements, VolumeMount};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

pub use crate::family::go_plugin::{Cookie, GoPlugin, Handshake, PortRange, TlsMode, TlsOptions};
pub use crate::family::pcp::{PcpController, Stage};
pub use jobs::JobOptions;
pub use life::{
    Health, OnFailure, Replacement, Restart, Shutdown, SidecarUpdate, Strategy, Update,
};
pub use pod::{PodOptions, PodSecurity, PodVolume};
pub use protocol::Protocol;
pub use service::{Client, IpBlock, PodPeers, ServiceOptions, ServiceType, TrafficPolicy};

/// What a plugin is and how it shall run.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "patchbay.dev",
    version = "v1alpha1",
    kind = "Plugin",
    plural = "plugins",
    shortname = "pbplugin",
    shortname = "pbplugins",
    category = "patchbay",
    namespaced,
    status = "PluginStatus",
    derive = "PartialEq",
    doc = "A plugin program that Patchbay runs as pods, shakes hands with, watches and serves.",
    validation = kube::core::Rule::new(rules::NAME)
        .message(kube::core::Message::Expression(rules::NAME_MESSAGE.to_owned())),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Family", type_ = "string", json_path = ".status.family",
        description = "The family of protocols that the plugin speaks."),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.handshake.appVersion",
        description = "The application version that was agreed upon."),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready",
        description = "Replicas that answer calls, of those wanted."),
    printcolumn(name = "Handshake", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Handshaken\")].status",
        description = "Whether every replica has finished its handshake."),
    printcolumn(name = "Sidecar", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"SidecarCurrent\")].status",
        description = "Whether every pod runs the installation's sidecar."),
    printcolumn(name = "Reason", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "Time since the Plugin was created."),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1,
        description = "The plugin's image."),
    printcolumn(name = "Message", type_ = "string", priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "What was found, what was expected, what to do.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct PluginSpec {
    /// How many pods run the plugin. 0 to 200.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 200))]
    pub replicas: i32,

    /// Image with the plugin program.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// When the kubelet pulls the image.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// The program and its first arguments. Always needed: the launcher starts it and cannot read
    /// the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,

    /// Further arguments. As in a container, `$(VAR)` is replaced from `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,

    /// Environment of the plugin, as in a container. Variables of the handshake are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env")]
    pub env: Vec<EnvVar>,

    /// Environment from ConfigMaps and Secrets, as in a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env_from")]
    pub env_from: Vec<EnvFromSource>,

    /// Folder in which the plugin starts. The image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub working_dir: Option<String>,

    /// Requests and limits of the plugin's container, as in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,

    /// Where volumes of `pod.volumes` appear in the plugin's container. /patchbay and /tmp are
    /// taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,

    /// How to speak to the plugin. Exactly one family.
    pub protocol: Protocol,

    /// Files that are verified before each start. The file that is executed is verified on the
    /// descriptor that is executed; the others protect until the plugin's first instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"])
    )]
    pub checksums: Vec<Checksum>,

    /// Periodic health check.
    #[serde(default)]
    pub health: Health,

    /// Back-off between starts of the plugin process.
    #[serde(default)]
    pub restart: Restart,

    /// Phases of a stop. The pod's grace period is derived from them.
    #[serde(default)]
    pub shutdown: Shutdown,

    /// How changes reach running pods.
    #[serde(default)]
    pub update: Update,

    /// How many Jobs it may have at a time, and what happens when it is lost.
    #[serde(default)]
    pub jobs: JobOptions,

    /// How client programs reach the plugin.
    #[serde(default)]
    pub service: ServiceOptions,

    /// The volume that sidecar and plugin share: sockets and temporary files.
    #[serde(default)]
    pub scratch: Scratch,

    /// Everything else about the pods.
    #[serde(default)]
    pub pod: PodOptions,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of the container.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

impl ImagePullPolicy {
    /// The word of the pod's field.
    pub const fn as_str(self) -> &'static str {
        match self {
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Never => "Never",
        }
    }
}

/// One file and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::checksum()))]
pub struct Checksum {
    /// Absolute path in the plugin's container.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// SHA-256 of the file: 64 lower-case hexadecimal digits.
    #[schemars(length(min = 1, max = 128))]
    pub sha256: String,
}

/// The shared volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::scratch()))]
pub struct Scratch {
    /// Memory counts against the containers' limits; Disk may lead to eviction.
    pub medium: Medium,
    /// Upper bound of its content, such as 64Mi.
    #[schemars(length(min = 1, max = 32))]
    pub size_limit: String,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            medium: Medium::Memory,
            size_limit: "64Mi".to_owned(),
        }
    }
}

/// Where a volume's content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// In memory.
    Memory,
    /// On the node's disk.
    Disk,
}

fn one() -> i32 {
    1
}

fn env(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<EnvVar>>(generator, LARGE);
    rules_on_items(&mut schema, rules::env_item());
    keyed(&mut schema, &["name"]);
    schema
}

fn env_from(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<EnvFromSource>>(generator, SMALL);
    rules_on_items(&mut schema, rules::env_from_item());
    schema.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
    schema
}

fn resources(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<ResourceRequirements>(generator, SMALL);
    // Claims of dynamic resources need a field of the pod that a Plugin does not have.
    if let Some(serde_json::Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove("claims");
    }
    schema
}

fn volume_mounts(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<VolumeMount>>(generator, SMALL);
    rules_on_items(&mut schema, rules::volume_mount_item());
    keyed(&mut schema, &["mountPath"]);
    schema
}
