//! The pod of one replica. Created once; afterwards only one image, or annotations of ours, are
//! patched.

use super::config::{grace_seconds, pod_config};
use super::containers::{self, some};
use super::{child_meta, security, volumes};
use crate::plugin::change::Built;
use crate::plugin::observe::Settings;
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use patchbay_api::names::{
    BUILT_ANNOTATION, CONFIG_ANNOTATION, DEFAULT_CONTAINER_ANNOTATION, ORDINAL_LABEL,
    PLUGIN_CONTAINER, PodName,
};
use patchbay_api::plugin::PodOptions;
use patchbay_protocol::pod_config::PodConfig;

/// The pod of that name.
pub fn pod(resolved: &Resolved, settings: &Settings, name: &PodName) -> Pod {
    // Every field by its name: one that is added and not used here does not compile.
    let PodOptions {
        image_pull_secrets,
        node_selector,
        affinity,
        tolerations,
        topology_spread_constraints,
        priority_class_name,
        runtime_class_name,
        service_account_name,
        security_context,
        // Together with the mounts, in `volumes`.
        volumes: _,
        labels: own_labels,
        annotations: own_annotations,
    } = &resolved.spec.pod;
    let config = pod_config(resolved, settings);
    let mut metadata = child_meta(&resolved.id, name.to_string());
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(ORDINAL_LABEL.to_owned(), name.ordinal.to_string());
    // Ours win: the Service and the policy select by them.
    for (key, value) in own_labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.extend(own_annotations.clone());
    annotations.extend([
        (CONFIG_ANNOTATION.to_owned(), config_text(&config)),
        (
            BUILT_ANNOTATION.to_owned(),
            Built::wanted(resolved, settings).write(),
        ),
        (
            DEFAULT_CONTAINER_ANNOTATION.to_owned(),
            PLUGIN_CONTAINER.to_owned(),
        ),
    ]);
    Pod {
        metadata,
        spec: Some(PodSpec {
            init_containers: Some(vec![containers::sidecar(resolved, settings)]),
            containers: vec![containers::plugin(resolved)],
            volumes: Some(volumes::volumes(resolved)),
            restart_policy: Some("Always".to_owned()),
            termination_grace_period_seconds: Some(i64::from(grace_seconds(&config.shutdown))),
            automount_service_account_token: Some(false),
            // A Service named plugin-min would set PLUGIN_MIN_PORT.
            enable_service_links: Some(false),
            security_context: Some(security::of_pod(security_context)),
            image_pull_secrets: some(image_pull_secrets),
            node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
            affinity: affinity.clone(),
            tolerations: some(tolerations),
            topology_spread_constraints: some(topology_spread_constraints),
            priority_class_name: priority_class_name.clone(),
            runtime_class_name: runtime_class_name.clone(),
            service_account_name: service_account_name.clone(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The text of the annotation `patchbay.dev/config`.
pub fn config_text(config: &PodConfig) -> String {
    // A struct of texts and numbers always has a JSON form.
    serde_json::to_string(config).unwrap_or_default()
}
