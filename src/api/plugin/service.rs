//! How client programs reach a plugin.

use super::rules;
use crate::schema::{SMALL, bounded};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// The Service of a plugin and who may use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::service()))]
pub struct ServiceOptions {
    /// type determines how the Service is exposed. Defaults to ClusterIP.
    #[serde(rename = "type")]
    #[schemars(transform = crate::schema::explain_values)]
    pub type_: ServiceType,
    /// The port that will be exposed by this service. The port of the pods does not depend on it.
    /// Defaults to 7444. Must be between 1 and 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// externalTrafficPolicy describes how nodes distribute service traffic they receive on one of the
    /// Service's "externally-facing" addresses (NodePorts, ExternalIPs, and LoadBalancer IPs). Only
    /// allowed with type NodePort or LoadBalancer. If not specified, it is Local with pcpController and
    /// Cluster with goPlugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = crate::schema::explain_values)]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// List of clients that may connect to the plugin, enforced by a NetworkPolicy. If empty, no client
    /// may connect. At most 64 entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub clients: Vec<Client>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            type_: ServiceType::ClusterIP,
            port: 7444,
            external_traffic_policy: None,
            clients: Vec::new(),
        }
    }
}

/// Type of the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// The Service is reachable on a cluster-internal IP address.
    ClusterIP,
    /// Like ClusterIP, and reachable on the same port of every node.
    NodePort,
    /// Like NodePort, and reachable through an external load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The word of the Service's field.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
    }
}

/// How nodes distribute external traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Traffic is routed to all pods; the source address of the client may be lost.
    Cluster,
    /// Traffic is routed to pods of the same node only; the source address of the client is kept.
    Local,
}

impl TrafficPolicy {
    /// The word of the Service's field.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        }
    }
}

/// A client that may connect to the plugin. Exactly one of its keys must be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::client()))]
pub struct Client {
    /// Pods that may connect. A pod must match both selectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodPeers>,
    /// ipBlock defines policy on a particular IPBlock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Pods that match both selectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::pod_peers()))]
pub struct PodPeers {
    /// podSelector is a label selector which selects pods. If unset or `{}`, it selects all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub pod_selector: Option<LabelSelector>,
    /// namespaceSelector selects namespaces using cluster-scoped labels. If `{}`, it selects all
    /// namespaces. If unset, it selects the namespace of the Plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub namespace_selector: Option<LabelSelector>,
}

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::ip_block()))]
pub struct IpBlock {
    /// cidr is a string representing the IPBlock. Valid examples are "192.168.1.0/24" or "2001:db8::/64".
    #[schemars(length(min = 1, max = 64))]
    pub cidr: String,
    /// except is a slice of CIDRs that should not be included within an IPBlock. Each must be within
    /// `cidr`. At most 32 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub except: Vec<String>,
}

fn selector(generator: &mut SchemaGenerator) -> Schema {
    bounded::<LabelSelector>(generator, SMALL)
}
