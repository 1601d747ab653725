//! The two Services of a Plugin.

use super::{child_meta, labels};
use crate::family::ClientPort;
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use patchbay_api::plugin::{ServiceOptions, TrafficPolicy};

/// The Service that client programs call.
pub fn service(resolved: &Resolved) -> Service {
    // Every field by its name: one that is added and not used here does not compile.
    let ServiceOptions {
        type_,
        port: number,
        // In `traffic_policy`.
        external_traffic_policy: _,
        // In the NetworkPolicy.
        clients: _,
    } = &resolved.spec.service;
    Service {
        metadata: child_meta(&resolved.id, resolved.id.name.service()),
        spec: Some(ServiceSpec {
            type_: Some(type_.as_str().to_owned()),
            external_traffic_policy: traffic_policy(resolved)
                .map(|policy| policy.as_str().to_owned()),
            selector: Some(labels(&resolved.id)),
            ports: Some(vec![port(resolved.family().client_port(), *number)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The headless Service: one address per pod, ready or not.
pub fn headless(resolved: &Resolved) -> Service {
    let client_port = resolved.family().client_port();
    Service {
        metadata: child_meta(&resolved.id, resolved.id.name.headless_service()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels(&resolved.id)),
            ports: Some(vec![port(client_port, i32::from(client_port.number))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// What a node does with traffic from outside: the author's wish, or what is usual for the family.
fn traffic_policy(resolved: &Resolved) -> Option<TrafficPolicy> {
    let options = &resolved.spec.service;
    let usual = || resolved.family().traffic_policy(options.type_);
    options.external_traffic_policy.or_else(usual)
}

fn port(client_port: ClientPort, number: i32) -> ServicePort {
    ServicePort {
        name: Some(client_port.service_port.to_owned()),
        protocol: Some("TCP".to_owned()),
        app_protocol: client_port.app_protocol.map(str::to_owned),
        port: number,
        target_port: Some(IntOrString::Int(i32::from(client_port.number))),
        ..ServicePort::default()
    }
}
