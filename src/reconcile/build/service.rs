//! The two Services of a Plugin.

use super::{child_meta, labels};
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use patchbay_api::names::PROXY_PORT;

/// What makes meshes and gateways speak HTTP/2 without TLS to the port.
const APP_PROTOCOL: &str = "kubernetes.io/h2c";

/// The Service that client programs call.
pub fn service(resolved: &Resolved) -> Service {
    let options = &resolved.spec.service;
    Service {
        metadata: child_meta(&resolved.who, resolved.who.name.service()),
        spec: Some(ServiceSpec {
            type_: Some(options.type_.as_str().to_owned()),
            external_traffic_policy: options
                .external_traffic_policy
                .map(|policy| policy.as_str().to_owned()),
            selector: Some(labels(&resolved.who)),
            ports: Some(vec![port(options.port)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The headless Service: one address per pod, ready or not.
pub fn headless(resolved: &Resolved) -> Service {
    Service {
        metadata: child_meta(&resolved.who, resolved.who.name.headless_service()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels(&resolved.who)),
            ports: Some(vec![port(i32::from(PROXY_PORT))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(number: i32) -> ServicePort {
    ServicePort {
        name: Some("grpc".to_owned()),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(APP_PROTOCOL.to_owned()),
        port: number,
        target_port: Some(IntOrString::Int(i32::from(PROXY_PORT))),
        ..ServicePort::default()
    }
}
