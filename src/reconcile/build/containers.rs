//! The two containers of a pod.

use super::{probes, security, volumes};
use crate::plugin::observe::Settings;
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector,
};
use patchbay_api::names::{PLUGIN_CONTAINER, SIDECAR_CONTAINER};
use patchbay_launcher::layout;

/// The sidecar's program in its image; the launcher lies beside it.
pub const SIDECAR_PROGRAM: &str = "/patchbay-sidecar";

/// Tells the sidecar the addresses of its pod, separated by commas: it listens for workers at
/// each of them and never at the wildcard.
pub const POD_IPS: &str = "PATCHBAY_POD_IPS";

/// The native sidecar: an init container that never ends. It is up before the plugin's container
/// starts and outlives it.
pub fn sidecar(resolved: &Resolved, settings: &Settings) -> Container {
    let client_port = resolved.family().client_port();
    Container {
        name: SIDECAR_CONTAINER.to_owned(),
        image: Some(settings.sidecar_image.clone()),
        image_pull_policy: Some(settings.sidecar_pull_policy.clone()),
        command: Some(vec![SIDECAR_PROGRAM.to_owned(), "run".to_owned()]),
        restart_policy: Some("Always".to_owned()),
        ports: Some(vec![
            port("session", layout::SESSION_PORT),
            port(client_port.container_port, client_port.number),
        ]),
        env: Some(vec![
            from_field("POD_NAME", "metadata.name"),
            from_field(POD_IPS, "status.podIPs"),
        ]),
        lifecycle: Some(probes::after_start()),
        readiness_probe: Some(probes::readiness()),
        resources: Some(settings.sidecar_resources.clone()),
        security_context: Some(security::of_sidecar()),
        volume_mounts: Some(volumes::sidecar_mounts(resolved)),
        ..Container::default()
    }
}

/// The plugin's container. Its command stays visible behind the launcher's, so that `$(VAR)` is
/// replaced as in any container.
pub fn plugin(resolved: &Resolved) -> Container {
    let spec = &resolved.spec;
    let launcher = format!("{}/{}", layout::BIN, layout::LAUNCHER);
    let command = [launcher, "--".to_owned()]
        .into_iter()
        .chain(spec.command.iter().cloned())
        .collect();
    Container {
        name: PLUGIN_CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: Some(spec.image_pull_policy.as_str().to_owned()),
        command: Some(command),
        args: some(&spec.args),
        env: some(&spec.env),
        env_from: some(&spec.env_from),
        working_dir: spec.working_dir.clone(),
        resources: spec.resources.clone(),
        security_context: Some(security::of_plugin()),
        volume_mounts: Some(volumes::plugin_mounts(resolved)),
        ..Container::default()
    }
}

/// Absent rather than empty: an empty list would claim the field.
pub(super) fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}
