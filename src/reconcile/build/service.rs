//! The two Services of a Plugin.

use super::{child_meta, labels};
use crate::plugin::resolve::{FamilySettings, Resolved};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use patchbay_api::plugin::{ServiceOptions, ServiceType, TrafficPolicy};

/// What makes meshes and gateways speak HTTP/2 without TLS to the port.
const APP_PROTOCOL: &str = "kubernetes.io/h2c";

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
        metadata: child_meta(&resolved.who, resolved.who.name.service()),
        spec: Some(ServiceSpec {
            type_: Some(type_.as_str().to_owned()),
            external_traffic_policy: traffic_policy(resolved)
                .map(|policy| policy.as_str().to_owned()),
            selector: Some(labels(&resolved.who)),
            ports: Some(vec![port(&resolved.family, *number)]),
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
            ports: Some(vec![port(
                &resolved.family,
                i32::from(resolved.family.client_port()),
            )]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// What a node does with traffic from outside. The address of a worker says whose jobs it gets, so
/// it stays visible unless the author wants otherwise.
fn traffic_policy(resolved: &Resolved) -> Option<TrafficPolicy> {
    let options = &resolved.spec.service;
    let from_outside = options.type_ != ServiceType::ClusterIP;
    let usual = match resolved.family {
        FamilySettings::GoPlugin(_) => None,
        FamilySettings::PcpController(_) => from_outside.then_some(TrafficPolicy::Local),
    };
    options.external_traffic_policy.or(usual)
}

fn port(family: &FamilySettings, number: i32) -> ServicePort {
    let (name, app_protocol) = match family {
        FamilySettings::GoPlugin(_) => ("grpc", Some(APP_PROTOCOL)),
        // What workers and a PCP controller plugin say to each other is their own business.
        FamilySettings::PcpController(_) => ("workers", None),
    };
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        app_protocol: app_protocol.map(str::to_owned),
        port: number,
        target_port: Some(IntOrString::Int(i32::from(family.client_port()))),
        ..ServicePort::default()
    }
}
