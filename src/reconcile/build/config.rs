//! The document in the annotation `patchbay.dev/config`.

use crate::family::{self, count};
use crate::plugin::observe::Settings;
use crate::plugin::resolve::Resolved;
use patchbay_api::plugin as api;
use patchbay_protocol::pod_config::{
    CONTRACT, Checksum, Health, Jobs, OnFailure, PluginName, PodConfig, Restart, Shutdown,
};

/// Everything that a sidecar has to know.
pub fn pod_config(resolved: &Resolved, settings: &Settings) -> PodConfig {
    let Resolved {
        id, spec, family, ..
    } = resolved;
    PodConfig {
        contract: CONTRACT,
        revision: u64::try_from(id.generation).unwrap_or_default(),
        installation: settings.installation.clone(),
        plugin: PluginName {
            namespace: id.namespace.clone(),
            name: id.name.to_string(),
            uid: id.uid.clone(),
        },
        protocol: family::of(family).config(),
        checksums: spec.checksums.iter().map(checksum).collect(),
        health: Health {
            period_seconds: count(spec.health.period_seconds),
            timeout_seconds: count(spec.health.timeout_seconds),
            failure_threshold: count(spec.health.failure_threshold),
            on_failure: match spec.health.on_failure {
                api::OnFailure::Restart => OnFailure::Restart,
                api::OnFailure::Report => OnFailure::Report,
            },
        },
        restart: Restart {
            initial_seconds: count(spec.restart.initial_seconds),
            max_seconds: count(spec.restart.max_seconds),
        },
        shutdown: Shutdown {
            drain_seconds: count(spec.shutdown.drain_seconds),
            rpc_seconds: count(spec.shutdown.rpc_seconds),
            exit_seconds: count(spec.shutdown.exit_seconds),
            term_seconds: count(spec.shutdown.term_seconds),
        },
        jobs: Jobs {
            per_pod: count(spec.jobs.max_running_per_pod),
            recover_seconds: count(spec.jobs.recover_seconds),
        },
    }
}

fn checksum(spec: &api::Checksum) -> Checksum {
    Checksum {
        path: spec.path.clone(),
        sha256: spec.sha256.clone(),
    }
}

/// What the plugin gets between SIGTERM and SIGKILL of its pod: every phase of a stop, and room
/// for the sidecar to say goodbye.
pub fn grace_seconds(shutdown: &Shutdown) -> u32 {
    const MARGIN: u32 = 10;
    shutdown.drain_seconds
        + shutdown.rpc_seconds
        + shutdown.exit_seconds
        + shutdown.term_seconds
        + MARGIN
}
