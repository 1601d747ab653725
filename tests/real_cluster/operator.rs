//! The operator under test: its numbers, and operators that a story starts and ends itself.

use crate::world::{Outcome, Why, World, fail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::{Child, Command};

/// Namespace of the installation under test.
pub const NAMESPACE: &str = "patchbay-system";
/// Name of its Deployment.
const DEPLOYMENT: &str = "patchbay";
/// Name of its Lease.
const LEASE: &str = "patchbay-operator";

/// Totals of the operator since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Passes over Plugins.
    pub passes: u64,
    /// Writes to the API server, the Lease excepted.
    pub writes: u64,
}

/// Reads the operator's totals.
pub async fn numbers(world: &World) -> Outcome<Numbers> {
    let text = metrics(world).await?;
    Ok(Numbers {
        passes: sum(&text, "patchbay_reconciles_total", ""),
        writes: sum(&text, "patchbay_api_writes_total", "kind=\"leases\""),
    })
}

/// Reads from the API server since the operator's start, the Lease excepted.
pub async fn reads(world: &World) -> Outcome<u64> {
    let text = metrics(world).await?;
    Ok(sum(&text, "patchbay_api_reads_total", "kind=\"leases\""))
}

/// The operator's metrics, through the API server's proxy.
async fn metrics(world: &World) -> Outcome<String> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=patchbay");
    let Some(pod) = pods.list(&selector).await?.items.into_iter().next() else {
        fail!("no operator pod in {NAMESPACE}");
    };
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/metrics",
        pod.name_any()
    );
    let text = world
        .client
        .request_text(http::Request::get(path).body(Vec::new())?)
        .await?;
    Ok(text)
}

/// Adds up the samples of one metric, without those whose labels contain `but`.
fn sum(text: &str, metric: &str, but: &str) -> u64 {
    text.lines()
        .filter(|line| line.starts_with(metric) && (but.is_empty() || !line.contains(but)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// The installed operator, scaled to nothing until restored.
pub struct Scaled {
    world: Arc<World>,
    replicas: i32,
}

impl Scaled {
    /// Stops the installed operator and waits until its pods are gone.
    pub async fn to_zero(world: &Arc<World>) -> Outcome<Scaled> {
        let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), NAMESPACE);
        let replicas = deployments
            .get(DEPLOYMENT)
            .await?
            .spec
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let scaled = Scaled {
            world: Arc::clone(world),
            replicas,
        };
        scaled.set(0).await?;
        Ok(scaled)
    }

    /// Starts it again and waits until it is available.
    pub async fn restore(self) -> Outcome {
        self.set(self.replicas).await
    }

    async fn set(&self, replicas: i32) -> Outcome {
        let deployments: Api<Deployment> = Api::namespaced(self.world.client.clone(), NAMESPACE);
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments
            .patch_scale(DEPLOYMENT, &PatchParams::default(), &scale)
            .await?;
        let settled = kube::runtime::wait::await_condition(
            deployments,
            DEPLOYMENT,
            move |found: Option<&Deployment>| {
                let status = found.and_then(|deployment| deployment.status.as_ref());
                status.is_some_and(|status| {
                    status.available_replicas.unwrap_or(0) == replicas
                        && status.replicas.unwrap_or(0) == replicas
                })
            },
        );
        tokio::time::timeout(crate::sandbox::PATIENCE, settled)
            .await
            .map_err(|_| {
                Why(format!(
                    "the operator's Deployment does not reach {replicas} replicas"
                ))
            })??;
        Ok(())
    }
}

/// An operator that a story runs beside the cluster, inside the node's network namespace.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts an operator with further arguments.
    pub async fn start(world: &World, arguments: &[&str]) -> Outcome<Process> {
        let Some(cluster) = &world.embedded else {
            fail!("this story needs the embedded cluster");
        };
        let kubeconfig = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let mut command = Command::new(cluster);
        command
            .args(["node-exec", "--"])
            .arg(world.programs.join("patchbay-operator"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command.args(["--namespace", NAMESPACE, "--lease", LEASE]);
        command.args(["--metrics-address", "127.0.0.1:0"]);
        command.envs(settings(world).await?);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Process { child })
    }

    /// Waits until the process ended by itself.
    pub async fn ended(&mut self) -> Outcome {
        self.child.wait().await?;
        Ok(())
    }

    /// Gives back the Lease of an operator that died, so that the story need not wait for its end.
    pub async fn bury(&mut self, world: &World) -> Outcome {
        self.stop().await?;
        let released =
            Patch::Merge(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
        leases(world)
            .patch(LEASE, &PatchParams::default(), &released)
            .await?;
        Ok(())
    }

    /// Ends it the hard way, if it still runs.
    async fn stop(&mut self) -> Outcome {
        if self.child.try_wait()?.is_none() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// Who leads; empty when nobody does.
pub async fn leader(world: &World) -> Outcome<String> {
    let spec = leases(world).get(LEASE).await?.spec.unwrap_or_default();
    Ok(spec.holder_identity.unwrap_or_default())
}

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

/// What the chart tells the installed operator, so that another one builds the same objects.
async fn settings(world: &World) -> Outcome<Vec<(String, String)>> {
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), NAMESPACE);
    let pod = deployments
        .get(DEPLOYMENT)
        .await?
        .spec
        .and_then(|spec| spec.template.spec)
        .unwrap_or_default();
    let variables = pod
        .containers
        .into_iter()
        .flat_map(|container| container.env.unwrap_or_default());
    let settings: Vec<_> = variables
        .filter_map(|variable| Some((variable.name, variable.value?)))
        .collect();
    if settings.is_empty() {
        fail!("the operator's Deployment sets nothing");
    }
    Ok(settings)
}
