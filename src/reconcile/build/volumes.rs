//! Volumes of a pod: ours, each with its own limit, and those of the Plugin.

use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
    SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use patchbay_api::names::CONFIG_ANNOTATION;
use patchbay_api::plugin::{Medium, PodVolume};
use patchbay_launcher::layout;

const BIN: &str = "patchbay-bin";
const RUN: &str = "patchbay-run";
const PRIVATE: &str = "patchbay-private";
const IDENTITY: &str = "patchbay-identity";
const CONFIG: &str = "patchbay-config";
const PLUGIN_TLS: &str = "patchbay-plugin-tls";
const TMP: &str = "patchbay-tmp";

/// Holds one launcher, and a second one while it is replaced.
const BIN_LIMIT: &str = "16Mi";
/// Holds the hand-over record, a cached configuration, the ledger of jobs, and their output until
/// the operator has stored it.
const PRIVATE_LIMIT: &str = "64Mi";
const TMP_LIMIT: &str = "128Mi";

/// Every volume of the pod.
pub fn volumes(resolved: &Resolved) -> Vec<Volume> {
    let scratch = &resolved.spec.scratch;
    let identity = resolved.id.name.identity_secret();
    // Files of a Secret belong to root and to the group of the volumes. Without such a group only
    // "everybody" is left, which is the sidecar alone: nobody else mounts them.
    let mode = match resolved.spec.pod.security_context.fs_group {
        Some(_) => 0o440,
        None => 0o444,
    };
    let mut volumes = vec![
        empty_dir(BIN, Medium::Disk, BIN_LIMIT),
        empty_dir(RUN, scratch.medium, &scratch.size_limit),
        empty_dir(PRIVATE, Medium::Memory, PRIVATE_LIMIT),
        secret(IDENTITY, &identity, mode),
        config(),
        empty_dir(TMP, Medium::Disk, TMP_LIMIT),
    ];
    if let Some(name) = resolved.family().certificates() {
        volumes.push(secret(PLUGIN_TLS, name, mode));
    }
    volumes.extend(resolved.spec.pod.volumes.iter().map(of_plugin));
    volumes
}

/// What the sidecar sees.
pub fn sidecar_mounts(resolved: &Resolved) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(BIN, layout::BIN),
        mount(RUN, layout::RUN),
        mount(PRIVATE, layout::PRIVATE),
        read_only(IDENTITY, layout::IDENTITY),
        read_only(CONFIG, layout::CONFIG),
    ];
    if resolved.family().certificates().is_some() {
        mounts.push(read_only(PLUGIN_TLS, layout::PLUGIN_TLS));
    }
    mounts
}

/// What the plugin sees: nothing secret, and the launcher only to execute it.
pub fn plugin_mounts(resolved: &Resolved) -> Vec<VolumeMount> {
    let mut mounts = vec![
        read_only(BIN, layout::BIN),
        mount(RUN, layout::RUN),
        mount(TMP, "/tmp"),
    ];
    mounts.extend(resolved.spec.volume_mounts.iter().cloned());
    mounts
}

fn empty_dir(name: &str, medium: Medium, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: match medium {
                Medium::Memory => Some("Memory".to_owned()),
                Medium::Disk => None,
            },
            size_limit: Some(Quantity(limit.to_owned())),
        }),
        ..Volume::default()
    }
}

fn secret(name: &str, secret: &str, mode: i32) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(mode),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn config() -> Volume {
    Volume {
        name: CONFIG.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: layout::CONFIG_FILE.to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: format!("metadata.annotations['{CONFIG_ANNOTATION}']"),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            default_mode: Some(0o444),
        }),
        ..Volume::default()
    }
}

fn of_plugin(volume: &PodVolume) -> Volume {
    let PodVolume {
        name,
        config_map,
        secret,
        empty_dir,
        persistent_volume_claim,
        csi,
    } = volume.clone();
    Volume {
        name,
        config_map,
        secret,
        empty_dir,
        persistent_volume_claim,
        csi,
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(name, path)
    }
}
