//! What a difference between "as built" and "as wanted" costs.
//!
//! Both sides are records of ours: one stands in a pod's annotation `patchbay.dev/built`, the
//! other is computed from the spec. Live fields of a pod are never compared, so a mutating webhook
//! or an autoscaler cannot make this loop.

use crate::build::config::pod_config;
use jiff::Timestamp;
use patchbay_api::PluginSpec;
use patchbay_api::plugin::{SidecarUpdate, Strategy};
use patchbay_protocol::pod_config::{CONTRACT, Jobs, PodConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::observe::Settings;
use super::resolve::Resolved;

/// Kinds of change, from none to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The pod is what the spec says.
    Nothing,
    /// The sidecar takes it over at once.
    Live,
    /// The plugin process starts again in the same container.
    PluginRestart,
    /// The sidecar's image changes on the living pod; the plugin process goes on.
    SidecarSwap,
    /// The plugin's image changes on the living pod; the sidecar goes on.
    PluginSwap,
    /// A new pod takes its place.
    ReplacePod,
}

impl Change {
    /// The word as it stands in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Change::Nothing => "Nothing",
            Change::Live => "Live",
            Change::PluginRestart => "PluginRestart",
            Change::SidecarSwap => "SidecarSwap",
            Change::PluginSwap => "PluginSwap",
            Change::ReplacePod => "ReplacePod",
        }
    }
}

/// What one pod still needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodChange {
    /// Name of the pod.
    pub pod: String,
    pub change: Change,
    /// What it runs: an image, or a generation.
    pub from: String,
    /// What it shall run.
    pub to: String,
    /// Whether the change was tried and taken back.
    pub failed: bool,
}

/// The record in the annotation `patchbay.dev/built`. Unknown fields are accepted, so that an
/// older operator reads the record of a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Version of the contract between operator and pod.
    pub contract: u32,
    /// Generation of the Plugin that the pod was last brought to.
    pub generation: i64,
    /// Hash of what the sidecar takes over at once.
    pub live: String,
    /// Hash of what needs the plugin process to start again.
    pub process: String,
    /// Image of the sidecar.
    pub sidecar: String,
    /// Image of the plugin.
    pub plugin: String,
    /// Hash of everything that a living pod cannot change.
    pub pod: String,
    /// A change of an image that has not become ready yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// A change of an image that was taken back; it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedSwap>,
}

/// One of the two containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Container {
    Sidecar,
    Plugin,
}

/// A change of an image on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swap {
    pub container: Container,
    pub from: String,
    /// When it was changed.
    pub at: Timestamp,
    /// The container's restarts at that moment: it was restarted since when there are more.
    pub restarts: i32,
    /// Whether the pod was ready then.
    pub worked: bool,
}

/// A change of an image that did not become ready in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedSwap {
    pub container: Container,
    /// The image that did not become ready.
    pub image: String,
}

impl Built {
    /// Reads an annotation; `None` when it is absent or unreadable.
    pub fn read(annotation: Option<&str>) -> Option<Built> {
        serde_json::from_str(annotation?).ok()
    }

    pub fn write(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a pod looks like that is made now.
    pub fn wanted(resolved: &Resolved, settings: &Settings) -> Built {
        let config = pod_config(resolved, settings);
        Built {
            contract: CONTRACT,
            generation: resolved.id.generation,
            live: hash(&taken_over_at_once(&config)),
            process: hash(&json!(config.by_effect().process)),
            sidecar: settings.sidecar_image.clone(),
            plugin: resolved.spec.image.clone(),
            pod: hash(&fixed_at_creation(resolved)),
            swap: None,
            failed: None,
        }
    }
}

/// What the sidecar takes over at once. Jobs with the usual limits are left out, so that pods of a
/// release that knew none are not touched: a document without them means the same.
fn taken_over_at_once(config: &PodConfig) -> Value {
    let (health, restart, shutdown, jobs) = config.by_effect().live;
    if *jobs == Jobs::default() {
        json!([health, restart, shutdown])
    } else {
        json!([health, restart, shutdown, jobs])
    }
}

/// What a living pod cannot change. Inputs, not the built pod: a new operator that builds the same
/// inputs differently leaves running pods as they are. A field that is added here must be left out
/// of the document while it has its default, or every pod is replaced by the next release.
fn fixed_at_creation(resolved: &Resolved) -> Value {
    let PluginSpec {
        replicas: _,
        image: _,
        image_pull_policy,
        command,
        args,
        env,
        env_from,
        working_dir,
        resources,
        volume_mounts,
        protocol: _,
        checksums: _,
        health: _,
        restart: _,
        shutdown: _,
        update: _,
        jobs: _,
        service: _,
        scratch,
        pod,
    } = &resolved.spec;
    let mut fixed = json!({
        "imagePullPolicy": image_pull_policy,
        "command": command,
        "args": args,
        "env": env,
        "envFrom": env_from,
        "workingDir": working_dir,
        "resources": resources,
        "volumeMounts": volume_mounts,
        "scratch": scratch,
        "pod": pod,
    });
    if let Value::Object(fixed) = &mut fixed {
        fixed.extend(resolved.family().fixed_at_creation());
    }
    fixed
}

/// The steps that a pod needs; several may be needed one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub live: bool,
    pub process: bool,
    pub sidecar: bool,
    pub plugin: bool,
    pub pod: bool,
}

impl Steps {
    /// The greatest of them.
    pub const fn greatest(self) -> Change {
        if self.pod {
            Change::ReplacePod
        } else if self.plugin {
            Change::PluginSwap
        } else if self.sidecar {
            Change::SidecarSwap
        } else if self.process {
            Change::PluginRestart
        } else if self.live {
            Change::Live
        } else {
            Change::Nothing
        }
    }
}

/// What the author allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// See `spec.update.strategy`.
    pub strategy: Strategy,
    /// See `spec.update.sidecar`.
    pub sidecar: SidecarUpdate,
}

/// Compares a pod's record with the wanted one.
pub fn classify(built: Option<&Built>, wanted: &Built, allowed: Allowed) -> Steps {
    let Some(built) = built else {
        // Nobody knows what it is.
        return Steps {
            pod: true,
            ..Steps::default()
        };
    };
    // A pod of another contract runs on as it is until its author changes something.
    let comparable = built.contract == wanted.contract || built.generation != wanted.generation;
    let image = built.plugin != wanted.plugin;
    Steps {
        live: built.live != wanted.live,
        process: built.process != wanted.process,
        sidecar: built.sidecar != wanted.sidecar && allowed.sidecar == SidecarUpdate::Auto,
        plugin: image && allowed.strategy == Strategy::InPlace,
        pod: (comparable && built.pod != wanted.pod)
            || (image && allowed.strategy == Strategy::Replace),
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a document.
fn hash(document: &Value) -> String {
    let mut text = String::new();
    canonical(document, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes a document with its keys in order. The JSON library orders them or not, as a feature
/// says that any crate of a program may switch on; two programs must not disagree here.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (at, (key, value)) in ordered.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests;
