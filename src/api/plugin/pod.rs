//! Everything about the pods that is not the plugin's container: placement, identity, volumes.

use super::rules;
use crate::schema::{SMALL, bounded, keyed};
use k8s_openapi::api::core::v1::{
    Affinity, CSIVolumeSource, ConfigMapVolumeSource, EmptyDirVolumeSource, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, SecretVolumeSource, Toleration, TopologySpreadConstraint,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Uid and gid of both containers when a Plugin names none.
pub const DEFAULT_ID: i64 = 65_532;

/// Settings of the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::pod()))]
pub struct PodOptions {
    /// ImagePullSecrets is an optional list of references to secrets in the same namespace to use for
    /// pulling any of the images used by this PodSpec. At most 32 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// NodeSelector is a selector which must be true for the pod to fit on a node. At most 32 labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub node_selector: BTreeMap<String, String>,
    /// If specified, the pod's scheduling constraints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "affinity")]
    pub affinity: Option<Affinity>,
    /// If specified, the pod's tolerations. At most 32 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
    /// TopologySpreadConstraints describes how a group of pods ought to spread across topology domains.
    /// At most 32 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "spread")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// If specified, indicates the pod's priority. Name of a PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// RuntimeClassName refers to a RuntimeClass object in the node.k8s.io group, which should be used to
    /// run this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// ServiceAccountName is the name of the ServiceAccount to use to run this pod. Its token is never
    /// mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// SecurityContext holds pod-level security attributes and common container settings. It applies to
    /// the plugin and to the sidecar.
    pub security_context: PodSecurity,
    /// List of volumes that can be mounted by containers belonging to the pod. The plugin mounts them
    /// with `volumeMounts`. Each volume has exactly one source: configMap, secret, emptyDir,
    /// persistentVolumeClaim or csi. At most 32 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub volumes: Vec<PodVolume>,
    /// Map of string keys and values that can be used to organize and categorize (scope and select)
    /// objects. Added to the labels of the pods. Only prefixes that the installation allows are
    /// accepted. At most 32 labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations is an unstructured key value map stored with a resource that may be set by external
    /// tools to store and retrieve arbitrary metadata. Added to the annotations of the pods. At most 32
    /// annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// User and groups of both containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurity {
    /// The UID to run the entrypoint of the container process. 0 is not allowed. `null` leaves the value
    /// to the cluster, for example to OpenShift. Defaults to 65532. Must be between 1 and 2147483647.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// The GID to run the entrypoint of the container process. 0 is not allowed. `null` leaves the value
    /// to the cluster, for example to OpenShift. Defaults to 65532. Must be between 1 and 2147483647.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// A special supplemental group that applies to all containers in a pod. It owns the volumes. `null`
    /// leaves the value to the cluster, for example to OpenShift. Defaults to 65532. Must be between 1
    /// and 2147483647.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

impl Default for PodSecurity {
    fn default() -> Self {
        Self {
            run_as_user: Some(DEFAULT_ID),
            run_as_group: Some(DEFAULT_ID),
            fs_group: Some(DEFAULT_ID),
        }
    }
}

/// A volume with exactly one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::volume()))]
pub struct PodVolume {
    /// name of the volume. Must be a DNS_LABEL and unique within the pod.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// configMap represents a configMap that should populate this volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config_map")]
    pub config_map: Option<ConfigMapVolumeSource>,
    /// secret represents a secret that should populate this volume. Secrets that hold identities of
    /// Patchbay (pb-id-...) are rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret")]
    pub secret: Option<SecretVolumeSource>,
    /// emptyDir represents a temporary directory that shares a pod's lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "empty_dir")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
    /// persistentVolumeClaimVolumeSource represents a reference to a PersistentVolumeClaim in the same
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "claim")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// csi (Container Storage Interface) represents ephemeral storage that is handled by certain
    /// external CSI drivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "csi")]
    pub csi: Option<CSIVolumeSource>,
}

fn pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<LocalObjectReference>>(generator, SMALL);
    keyed(&mut schema, &["name"]);
    schema
}

fn text_map(generator: &mut SchemaGenerator) -> Schema {
    bounded::<BTreeMap<String, String>>(generator, SMALL)
}

fn annotation_map(generator: &mut SchemaGenerator) -> Schema {
    let bounds = crate::schema::Bounds {
        string: 16_384,
        ..SMALL
    };
    bounded::<BTreeMap<String, String>>(generator, bounds)
}

fn affinity(generator: &mut SchemaGenerator) -> Schema {
    bounded::<Affinity>(generator, SMALL)
}

fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<Toleration>>(generator, SMALL);
    schema.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
    schema
}

fn spread(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = bounded::<Vec<TopologySpreadConstraint>>(generator, SMALL);
    keyed(&mut schema, &["topologyKey", "whenUnsatisfiable"]);
    schema
}

fn config_map(generator: &mut SchemaGenerator) -> Schema {
    bounded::<ConfigMapVolumeSource>(generator, SMALL)
}

fn secret(generator: &mut SchemaGenerator) -> Schema {
    bounded::<SecretVolumeSource>(generator, SMALL)
}

fn empty_dir(generator: &mut SchemaGenerator) -> Schema {
    bounded::<EmptyDirVolumeSource>(generator, SMALL)
}

fn claim(generator: &mut SchemaGenerator) -> Schema {
    bounded::<PersistentVolumeClaimVolumeSource>(generator, SMALL)
}

fn csi(generator: &mut SchemaGenerator) -> Schema {
    bounded::<CSIVolumeSource>(generator, SMALL)
}
