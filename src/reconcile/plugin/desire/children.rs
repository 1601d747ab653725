//! NetworkPolicy and Services: created once, then brought back to what they shall be. Only fields
//! that we set are compared; what the API server fills in is its own.

use super::preconditions;
use crate::build;
use crate::plugin::action::{Action, Child, ChildKind, ChildPatch, PatchFormat, Why};
use crate::plugin::observe::Observed;
use crate::plugin::resolve::Resolved;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use patchbay_api::Reason;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The fence. Whole specs are compared: the API server adds nothing to a policy as we write it.
pub(super) fn network_policy(observed: &Observed, resolved: &Resolved, actions: &mut Vec<Action>) {
    let wanted = build::network_policy::network_policy(resolved, &observed.settings);
    let found = observed
        .network_policies
        .iter()
        .find(|policy| policy.metadata.name == wanted.metadata.name);
    let Some(found) = found else {
        actions.push(Action::Create(Child::NetworkPolicy(Box::new(wanted))));
        return;
    };
    if found.spec == wanted.spec && has_labels(&found.metadata, &wanted.metadata) {
        return;
    }
    let spec = wanted.spec.unwrap_or_default();
    let body = json!({
        "podSelector": {
            "matchLabels": whole_map(
                found
                    .spec
                    .as_ref()
                    .and_then(|s| s.pod_selector.as_ref())
                    .and_then(|s| s.match_labels.as_ref()),
                spec.pod_selector.as_ref().and_then(|s| s.match_labels.as_ref()),
            ),
            "matchExpressions": null,
        },
        "policyTypes": spec.policy_types,
        "ingress": spec.ingress,
        "egress": null,
    });
    actions.push(patch(
        ChildKind::NetworkPolicy,
        &found.metadata,
        &wanted.metadata,
        body,
    ));
}

/// The Service of client programs and the headless one.
pub(super) fn services(observed: &Observed, resolved: &Resolved, actions: &mut Vec<Action>) {
    for wanted in [
        build::service::service(resolved),
        build::service::headless(resolved),
    ] {
        let found = observed
            .services
            .iter()
            .find(|service| service.metadata.name == wanted.metadata.name);
        let Some(found) = found else {
            actions.push(Action::Create(Child::Service(Box::new(wanted))));
            continue;
        };
        if same_service(found, &wanted) {
            continue;
        }
        let spec = wanted.spec.unwrap_or_default();
        // A merge patch replaces the list of ports whole; applying would leave the old port in.
        let mut body = json!({
            "type": spec.type_,
            "selector": whole_map(
                found.spec.as_ref().and_then(|s| s.selector.as_ref()),
                spec.selector.as_ref(),
            ),
            "ports": spec.ports,
            "externalTrafficPolicy": spec.external_traffic_policy,
        });
        if let (Some(publish), Value::Object(body)) = (spec.publish_not_ready_addresses, &mut body)
        {
            body.insert("publishNotReadyAddresses".to_owned(), publish.into());
        }
        actions.push(patch(
            ChildKind::Service,
            &found.metadata,
            &wanted.metadata,
            body,
        ));
    }
}

fn same_service(found: &Service, wanted: &Service) -> bool {
    let empty = ServiceSpec::default();
    let (f, w) = (
        found.spec.as_ref().unwrap_or(&empty),
        wanted.spec.as_ref().unwrap_or(&empty),
    );
    let ports = |spec: &ServiceSpec| -> Vec<_> {
        spec.ports
            .iter()
            .flatten()
            .map(|p| {
                (
                    p.name.clone(),
                    p.port,
                    p.target_port.clone(),
                    p.protocol.clone(),
                    p.app_protocol.clone(),
                )
            })
            .collect()
    };
    // The API server fills in "Cluster" where none is wanted.
    let traffic = w.external_traffic_policy.is_none()
        && matches!(f.external_traffic_policy.as_deref(), None | Some("Cluster"))
        || w.external_traffic_policy == f.external_traffic_policy;
    let publish = |spec: &ServiceSpec| spec.publish_not_ready_addresses.unwrap_or(false);
    has_labels(&found.metadata, &wanted.metadata)
        && f.type_ == w.type_
        && f.selector == w.selector
        && ports(f) == ports(w)
        && publish(f) == publish(w)
        && traffic
}

fn has_labels(found: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let found = found.labels.as_ref();
    wanted
        .labels
        .iter()
        .flatten()
        .all(|(key, value)| found.and_then(|labels| labels.get(key)) == Some(value))
}

fn patch(kind: ChildKind, found: &ObjectMeta, wanted: &ObjectMeta, spec: Value) -> Action {
    let name = found.name.clone().unwrap_or_default();
    let mut metadata = preconditions(found);
    metadata.insert("labels".to_owned(), json!(wanted.labels));
    Action::Patch(ChildPatch {
        kind,
        format: PatchFormat::Merge,
        body: json!({ "metadata": metadata, "spec": spec }),
        why: Why {
            reason: Reason::Updating,
            message: format!(
                "{} {name} is brought to what the Plugin says",
                kind.as_str()
            ),
        },
        name,
    })
}

/// `wanted` as a merge: keys that somebody added are taken away.
fn whole_map(
    found: Option<&BTreeMap<String, String>>,
    wanted: Option<&BTreeMap<String, String>>,
) -> Value {
    let mut map: Map<String, Value> = found
        .into_iter()
        .flatten()
        .map(|(key, _)| (key.clone(), Value::Null))
        .collect();
    for (key, value) in wanted.into_iter().flatten() {
        map.insert(key.clone(), value.clone().into());
    }
    Value::Object(map)
}
