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

/// Specification of the desired behavior of the Plugin.
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
    doc = "Plugin is a plugin program that Patchbay runs in pods and makes available to clients in the cluster.",
    validation = kube::core::Rule::new(rules::NAME)
        .message(kube::core::Message::Expression(rules::NAME_MESSAGE.to_owned())),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Family", type_ = "string", json_path = ".status.family",
        description = "Key of spec.protocol: the protocol that the plugin speaks."),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.handshake.appVersion",
        description = "Application protocol version that was negotiated in the handshake."),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready",
        description = "Number of ready replicas and of desired replicas."),
    printcolumn(name = "Handshake", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Handshaken\")].status",
        description = "Whether the handshake of every replica has succeeded."),
    printcolumn(name = "Sidecar", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"SidecarCurrent\")].status",
        description = "Whether every pod runs the sidecar image of the installed operator."),
    printcolumn(name = "Reason", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the condition Ready."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp",
        description = "Time since the Plugin was created."),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1,
        description = "Image of the plugin."),
    printcolumn(name = "Message", type_ = "string", priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "Message of the condition Ready.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct PluginSpec {
    /// Number of desired pods. Defaults to 1. Must be between 0 and 200.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 200))]
    pub replicas: i32,

    /// Container image name. The image must contain the plugin program.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// Image pull policy. Applies to the image of the plugin. Defaults to IfNotPresent.
    #[serde(default)]
    #[schemars(transform = crate::schema::explain_values)]
    pub image_pull_policy: ImagePullPolicy,

    /// Entrypoint array. Not executed within a shell. Required: the launcher starts the plugin and
    /// cannot read the image's ENTRYPOINT. At most 64 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,

    /// Arguments to the entrypoint. Variable references $(VAR_NAME) are expanded using `env`, as in a
    /// container. At most 256 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 8192)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,

    /// List of environment variables to set in the container. Variables that the sidecar sets for the
    /// protocol are rejected. At most 128 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env")]
    pub env: Vec<EnvVar>,

    /// List of sources to populate environment variables in the container. Each source is a ConfigMap
    /// or a Secret. At most 32 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env_from")]
    pub env_from: Vec<EnvFromSource>,

    /// Container's working directory. If not specified, the working directory of the image is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub working_dir: Option<String>,

    /// Compute Resources required by this container. Applies to the container of the plugin. Claims of
    /// dynamic resources are not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,

    /// Pod volumes to mount into the container's filesystem. Each mount names a volume of
    /// `pod.volumes`. The paths /patchbay and /tmp are reserved. At most 32 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,

    /// Protocol that the plugin speaks. Exactly one of its keys must be set.
    pub protocol: Protocol,

    /// List of files whose SHA-256 is verified before each start of the plugin process. The program
    /// itself is verified through the file descriptor that is executed. For other files, a change after
    /// the verification is not noticed. At most 32 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"])
    )]
    pub checksums: Vec<Checksum>,

    /// Periodic probe of the plugin process over gRPC. Has no effect with pcpController, where only the
    /// end of the process is noticed.
    #[serde(default)]
    pub health: Health,

    /// Back-off between restarts of the plugin process.
    #[serde(default)]
    pub restart: Restart,

    /// Time limits for the stop of the plugin process. The terminationGracePeriodSeconds of the pod is
    /// computed from them.
    #[serde(default)]
    pub shutdown: Shutdown,

    /// How changes of the Plugin are applied to running pods.
    #[serde(default)]
    pub update: Update,

    /// Limits for the Jobs of this Plugin.
    #[serde(default)]
    pub jobs: JobOptions,

    /// Service of the Plugin, and the clients that may use it.
    #[serde(default)]
    pub service: ServiceOptions,

    /// The emptyDir volume that sidecar and plugin share for sockets and temporary files.
    #[serde(default)]
    pub scratch: Scratch,

    /// Settings of the pods beyond the container of the plugin.
    #[serde(default)]
    pub pod: PodOptions,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// The kubelet always pulls the image when the container starts.
    Always,
    /// The kubelet pulls the image only if it is not present on the node.
    #[default]
    IfNotPresent,
    /// The kubelet never pulls the image; it must be present on the node.
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

/// A file and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::checksum()))]
pub struct Checksum {
    /// Absolute path of the file in the container of the plugin.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// SHA-256 of the file, as 64 lower-case hexadecimal digits.
    #[schemars(length(min = 1, max = 128))]
    pub sha256: String,
}

/// The shared volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::scratch()))]
pub struct Scratch {
    /// medium represents what type of storage medium should back this directory. Defaults to Memory.
    #[schemars(transform = crate::schema::explain_values)]
    pub medium: Medium,
    /// sizeLimit is the total amount of local storage required for this EmptyDir volume. Defaults to
    /// 64Mi.
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

/// Storage medium of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// tmpfs; what is stored counts against the memory limits of the containers.
    Memory,
    /// The disk of the node; the pod may be evicted when the disk runs full.
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
