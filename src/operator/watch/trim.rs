//! What is dropped from an object before it is stored: memory is the price of every field.

use k8s_openapi::api::core::v1::{Pod, PodSpec, Service, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use patchbay_api::job_status::Output;
use patchbay_api::{Job, JobStatus, Plugin};

/// Managed fields; they are often half of an object.
fn metadata<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// A Service with what we set, and without what the API server and others fill in: nothing of
/// that is compared.
pub fn service(service: &mut Service) {
    metadata(service);
    service.metadata.annotations = None;
    service.status = None;
    if let Some(spec) = service.spec.take() {
        service.spec = Some(ServiceSpec {
            type_: spec.type_,
            selector: spec.selector,
            ports: spec.ports,
            external_traffic_policy: spec.external_traffic_policy,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            ..ServiceSpec::default()
        });
    }
}

/// A policy without annotations.
pub fn policy(policy: &mut NetworkPolicy) {
    metadata(policy);
    policy.metadata.annotations = None;
}

/// A Plugin without what `kubectl apply` remembers.
pub fn plugin(plugin: &mut Plugin) {
    metadata(plugin);
    if let Some(annotations) = plugin.metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// A Job without what `kubectl apply` remembers. Of one that has ended only what its deletion, a
/// sidecar that still speaks of it, and the sums over output need; nothing is ever written from
/// such a copy.
pub fn job(job: &mut Job) {
    metadata(job);
    if let Some(annotations) = job.metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let Some(status) = job.status.as_mut().filter(|s| has_ended(s)) else {
        return;
    };
    job.metadata.annotations = None;
    job.metadata.labels = None;
    job.metadata.owner_references = None;
    job.spec.command = None;
    job.spec.call = None;
    job.spec.target.optional.clear();
    status.command.clear();
    status.attempts.clear();
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    status.output = status.output.take().map(|output| Output {
        bytes: output.bytes,
        row_count: output.row_count,
        chunks: output.chunks,
        late_count: output.late_count,
        truncated: output.truncated,
        ..Output::default()
    });
}

/// Whether nothing can follow.
pub fn has_ended(status: &JobStatus) -> bool {
    status.phase.is_some_and(|phase| phase.is_terminal())
}

/// A pod without its specification, but for images and node: what was built stands in an
/// annotation, and live fields are never compared.
pub fn pod(pod: &mut Pod) {
    metadata(pod);
    if let Some(spec) = pod.spec.take() {
        let containers = spec.containers.into_iter().map(bare).collect();
        let init = spec
            .init_containers
            .map(|all| all.into_iter().map(bare).collect());
        pod.spec = Some(PodSpec {
            containers,
            init_containers: init,
            node_name: spec.node_name,
            termination_grace_period_seconds: spec.termination_grace_period_seconds,
            ..PodSpec::default()
        });
    }
    if let Some(status) = pod.status.as_mut() {
        status.host_ip = None;
        status.host_ips = None;
        status.resize = None;
        status.resource_claim_statuses = None;
        for container in status
            .container_statuses
            .iter_mut()
            .chain(status.init_container_statuses.iter_mut())
            .flatten()
        {
            container.allocated_resources = None;
            container.allocated_resources_status = None;
            container.resources = None;
            container.volume_mounts = None;
            container.user = None;
        }
    }
}

fn bare(container: k8s_openapi::api::core::v1::Container) -> k8s_openapi::api::core::v1::Container {
    k8s_openapi::api::core::v1::Container {
        name: container.name,
        image: container.image,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, EnvVar};

    #[test]
    fn a_job_that_has_ended_is_small_and_one_that_has_not_is_whole() {
        let written: Job = serde_json::from_value(serde_json::json!({
            "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job",
            "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {"pluginRef": {"name": "kv"}, "ttlSecondsAfterFinished": 5,
                     "command": {"name": "echo"}, "target": {"optional": {"k": "v"}}},
            "status": {"phase": "Running", "attempt": 1, "output": {
                "bytes": 3, "chunks": 0, "preview": "abc", "rowCount": 1,
                "rows": [{"row": 1, "bytes": 3, "encoding": "Text", "content": "abc"}]}},
        }))
        .unwrap();
        let mut stored = written.clone();
        job(&mut stored);
        assert_eq!(stored, written);
        let status = stored.status.as_mut().unwrap();
        status.phase = Some(patchbay_api::job_status::Phase::Succeeded);
        job(&mut stored);
        assert_eq!(stored.spec.ttl_seconds_after_finished, Some(5));
        assert_eq!(stored.spec.command, None);
        let output = stored.status.unwrap().output.unwrap();
        assert_eq!((output.bytes, output.row_count), (3, 1));
        assert!(output.rows.is_empty() && output.preview.is_empty());
    }

    #[test]
    fn a_stored_pod_keeps_its_images_and_nothing_else_of_its_containers() {
        let mut full = Pod {
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "plugin".into(),
                    image: Some("kv:1".into()),
                    env: Some(vec![EnvVar::default()]),
                    ..Container::default()
                }],
                node_name: Some("n".into()),
                service_account_name: Some("s".into()),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        pod(&mut full);
        let spec = full.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n"));
        assert_eq!(spec.service_account_name, None);
        assert_eq!(spec.containers[0].image.as_deref(), Some("kv:1"));
        assert_eq!(spec.containers[0].env, None);
    }
}
