//! Violence: processes of the embedded cluster's containers, ended by their recorded ids.

use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::Api;

/// One of the containers of a plugin's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The launcher's only child: the plugin process.
    Plugin,
    Sidecar,
}

impl Sandbox {
    /// Ends the plugin process of a pod by SIGKILL. Its launcher lives on.
    pub async fn kill_plugin(&self, pod: &str) -> Outcome {
        self.world.send(&self.name, pod, Part::Plugin, "KILL").await
    }

    /// Ends the sidecar of a pod by SIGKILL.
    pub async fn kill_sidecar(&self, pod: &str) -> Outcome {
        self.world
            .send(&self.name, pod, Part::Sidecar, "KILL")
            .await
    }

    /// Stops the sidecar of a pod by SIGSTOP: it lives and does nothing, until it is killed.
    pub async fn pause_sidecar(&self, pod: &str) -> Outcome {
        self.world
            .send(&self.name, pod, Part::Sidecar, "STOP")
            .await
    }
}

impl World {
    /// Sends a signal to a process of a pod.
    async fn send(&self, namespace: &str, pod: &str, part: Part, name: &str) -> Outcome {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let status = pods.get(pod).await?.status.unwrap_or_default();
        let containers = match part {
            Part::Plugin => status.container_statuses,
            Part::Sidecar => status.init_container_statuses,
        };
        let id = container_id(containers);
        let Some(id) = id else {
            fail!("pod {pod} has no container for {part:?}")
        };
        let pids = self.pids(&id).await?;
        // The launcher is the first process of its container and the plugin its first child.
        let place = match part {
            Part::Plugin => 1,
            Part::Sidecar => 0,
        };
        let Some(pid) = pids.get(place) else {
            fail!("no process of {part:?} in {id}: {pids:?}")
        };
        signal(*pid, name).await
    }

    /// Ends the first process of every container of the pods that `selector` finds.
    pub async fn kill_all(&self, namespace: &str, selector: &str) -> Outcome {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = kube::api::ListParams::default().labels(selector);
        for pod in pods.list(&found).await?.items {
            let status = pod.status.unwrap_or_default();
            if let Some(id) = container_id(status.container_statuses)
                && let Some(pid) = self.pids(&id).await?.first()
            {
                signal(*pid, "KILL").await?;
            }
        }
        Ok(())
    }

    /// Process ids of a container, lowest first.
    async fn pids(&self, container: &str) -> Outcome<Vec<i32>> {
        let text = self.cluster(&["ctr", "tasks", "ps", container]).await?;
        let mut pids: Vec<i32> = text
            .lines()
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }
}

fn container_id(containers: Option<Vec<ContainerStatus>>) -> Option<String> {
    let container = containers.unwrap_or_default().into_iter().next()?;
    let id = container.container_id?;
    Some(id.trim_start_matches("containerd://").to_owned())
}

async fn signal(pid: i32, name: &str) -> Outcome {
    let sent = tokio::process::Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .await?;
    if !sent.success() {
        fail!("cannot send SIG{name} to process {pid}");
    }
    Ok(())
}
