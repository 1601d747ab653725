//! The objects that a Plugin consists of. Plain functions: the same input gives the same bytes.

pub mod config;
pub mod containers;
pub mod network_policy;
pub mod pod;
pub mod probes;
pub mod security;
pub mod service;
pub mod volumes;

#[cfg(test)]
mod tests;

use crate::plugin::resolve::PluginId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use patchbay_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL};
use std::collections::BTreeMap;

/// Labels of every child; they also select the pods.
pub fn labels(id: &PluginId) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (PLUGIN_LABEL.to_owned(), id.name.to_string()),
    ])
}

/// Name, labels and owner of a child.
pub fn child_meta(id: &PluginId, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(id.namespace.clone()),
        labels: Some(labels(id)),
        owner_references: Some(vec![id.owner()]),
        ..ObjectMeta::default()
    }
}
