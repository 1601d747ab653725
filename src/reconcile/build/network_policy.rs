//! The NetworkPolicy of a Plugin: nothing goes out, and in come only the operator and the named
//! clients. It is there before the first pod.

use super::{child_meta, labels};
use crate::plugin::observe::Settings;
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use patchbay_api::names::SESSION_PORT;
use patchbay_api::plugin::Client;
use std::collections::BTreeMap;

/// Label that every namespace carries by itself.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub fn network_policy(resolved: &Resolved, settings: &Settings) -> NetworkPolicy {
    let mut ingress = vec![rule(SESSION_PORT, vec![operator(settings)])];
    // An empty `from` would let everybody in, so without clients there is no rule at all.
    let clients: Vec<_> = resolved
        .spec
        .service
        .clients
        .iter()
        .filter_map(peer)
        .collect();
    if !clients.is_empty() {
        ingress.push(rule(resolved.family().client_port().number, clients));
    }
    NetworkPolicy {
        metadata: child_meta(&resolved.id, resolved.id.name.network_policy()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(labels(&resolved.id))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            // Named as a type and without a rule: nothing goes out.
            egress: None,
        }),
    }
}

fn operator(settings: &Settings) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(matching(BTreeMap::from([(
            NAMESPACE_NAME.to_owned(),
            settings.operator_namespace.clone(),
        )]))),
        pod_selector: Some(matching(settings.operator_labels.clone())),
        ip_block: None,
    }
}

/// A client as a peer. A client without any key would be a peer that matches everybody; the
/// schema refuses it and so does this.
fn peer(client: &Client) -> Option<NetworkPolicyPeer> {
    if let Some(block) = &client.ip_block {
        return Some(NetworkPolicyPeer {
            ip_block: Some(IPBlock {
                cidr: block.cidr.clone(),
                except: super::containers::some(&block.except),
            }),
            ..NetworkPolicyPeer::default()
        });
    }
    let pods = client.pods.as_ref()?;
    if pods.pod_selector.is_none() && pods.namespace_selector.is_none() {
        return None;
    }
    Some(NetworkPolicyPeer {
        pod_selector: pods.pod_selector.clone(),
        namespace_selector: pods.namespace_selector.clone(),
        ip_block: None,
    })
}

fn rule(port: u16, from: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![NetworkPolicyPort {
            protocol: Some("TCP".to_owned()),
            port: Some(IntOrString::Int(i32::from(port))),
            end_port: None,
        }]),
    }
}

fn matching(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}
