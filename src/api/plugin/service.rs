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
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(rename = "type")]
    pub type_: ServiceType,
    /// Port of the Service; the pods listen on 7444 always.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Only with NodePort and LoadBalancer: whether a node passes traffic on to other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Who may call the plugin. Nobody when empty.
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
    /// Reachable within the cluster.
    ClusterIP,
    /// Also on a port of every node.
    NodePort,
    /// Also through a load balancer of the cloud.
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

/// What a node does with traffic from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Passes it on to any pod.
    Cluster,
    /// Only to pods of its own; the client's address stays visible.
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

/// Somebody who may call the plugin. Exactly one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::client()))]
pub struct Client {
    /// Pods, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodPeers>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Pods that match both selectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::pod_peers()))]
pub struct PodPeers {
    /// Labels of the pods. `{}` means every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub pod_selector: Option<LabelSelector>,
    /// Labels of their namespaces. `{}` means every namespace; absent means the Plugin's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub namespace_selector: Option<LabelSelector>,
}

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::ip_block()))]
pub struct IpBlock {
    /// The range, such as 10.0.0.0/8.
    #[schemars(length(min = 1, max = 64))]
    pub cidr: String,
    /// Ranges within it that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub except: Vec<String>,
}

fn selector(generator: &mut SchemaGenerator) -> Schema {
    bounded::<LabelSelector>(generator, SMALL)
}
