//! The document in the annotation `patchbay.dev/config`.

use crate::plugin::observe::Settings;
use crate::plugin::resolve::{FamilySettings, Resolved};
use patchbay_api::plugin::{self as api, TlsMode};
use patchbay_protocol::pod_config::{
    CONTRACT, Checksum, GoPlugin, Health, Jobs, OnFailure, PcpController, PluginName, PodConfig,
    Protocol, Restart, Shutdown, Tls,
};

/// Everything that a sidecar has to know.
pub fn pod_config(resolved: &Resolved, settings: &Settings) -> PodConfig {
    let Resolved {
        who, spec, family, ..
    } = resolved;
    PodConfig {
        contract: CONTRACT,
        revision: u64::try_from(who.generation).unwrap_or_default(),
        installation: settings.installation.clone(),
        plugin: PluginName {
            namespace: who.namespace.clone(),
            name: who.name.to_string(),
            uid: who.uid.clone(),
        },
        protocol: match family {
            FamilySettings::GoPlugin(settings) => Protocol::GoPlugin(go_plugin(settings)),
            FamilySettings::PcpController(settings) => {
                Protocol::PcpController(controller(settings))
            }
        },
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

fn go_plugin(spec: &api::GoPlugin) -> GoPlugin {
    let mut versions: Vec<u32> = spec.versions.iter().copied().map(count).collect();
    versions.sort_unstable();
    GoPlugin {
        cookie_key: spec.cookie.key.clone(),
        cookie_value: spec.cookie.value.clone(),
        versions,
        tls: match spec.tls.mode {
            TlsMode::None => Tls::None,
            TlsMode::AutoMTLS => Tls::AutoMTLS,
            TlsMode::Explicit => Tls::Explicit {
                server_name: spec.tls.server_name.clone().unwrap_or_default(),
            },
        },
        min_port: port(spec.ports.min),
        max_port: port(spec.ports.max),
        handshake_timeout_seconds: count(spec.handshake.timeout_seconds),
        skip_lines: u16::try_from(spec.handshake.skip_lines).unwrap_or_default(),
        env: Default::default(),
    }
}

fn controller(spec: &api::PcpController) -> PcpController {
    PcpController {
        port: port(spec.port),
        stage: spec.stage.as_str().to_owned(),
        class_name: spec.class_name.clone(),
        start_timeout_seconds: count(spec.start_timeout_seconds),
    }
}

fn checksum(spec: &api::Checksum) -> Checksum {
    Checksum {
        path: spec.path.clone(),
        sha256: spec.sha256.clone(),
    }
}

/// The schema lets no negative number in.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
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
