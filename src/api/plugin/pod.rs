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

/// Settings of the pods. Fields without a note mean what they mean in a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::pod()))]
pub struct PodOptions {
    /// Secrets with which the kubelet pulls the plugin's image, as in a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Labels that a node must have, as in a Pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Attraction to nodes and pods, as in a Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "affinity")]
    pub affinity: Option<Affinity>,
    /// Tolerations of the pods, as in a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
    /// How replicas are spread, as in a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "spread")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class, as in a Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Runtime class, as in a Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Service account, as in a Pod. Its token is never mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// User and groups of both containers.
    pub security_context: PodSecurity,
    /// Volumes for `volumeMounts`: configMap, secret, emptyDir, persistentVolumeClaim or csi.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub volumes: Vec<PodVolume>,
    /// Further labels of the pods; only with prefixes that the installation allows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text_map")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// User and groups of both containers. `null` leaves a value to the cluster, for example to
/// OpenShift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSecurity {
    /// User id; never 0.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// Group id; never 0.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// Group of the volumes.
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

/// A volume: a name and exactly one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::volume()))]
pub struct PodVolume {
    /// Name that `volumeMounts` uses.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Files from a ConfigMap, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config_map")]
    pub config_map: Option<ConfigMapVolumeSource>,
    /// Files from a Secret, as in a Pod. Identities of Patchbay are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret")]
    pub secret: Option<SecretVolumeSource>,
    /// An empty folder, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "empty_dir")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
    /// A claimed volume, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "claim")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// A volume of a CSI driver, as in a Pod.
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
