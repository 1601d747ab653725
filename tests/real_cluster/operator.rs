//! The operator under test: its numbers, and operators that a story starts and ends itself.

use crate::world::{Outcome, Why, World, fail, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs::OpenOptions;
use std::process::Stdio;
use std::sync::Arc;
use tempfile::NamedTempFile;
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
    let Some(pod) = pods(world).await?.into_iter().next() else {
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

/// The cluster without its installed operator: the place of those that a story starts itself.
pub struct Stage {
    world: Arc<World>,
    /// Operators of the installation.
    replicas: i32,
    /// What the operators of this stage say.
    log: NamedTempFile,
}

impl Stage {
    /// Stops the installed operator and waits until it is gone.
    pub async fn clear(world: &Arc<World>) -> Outcome<Stage> {
        let installed = deployments(world).get(DEPLOYMENT).await?;
        let stage = Stage {
            world: Arc::clone(world),
            replicas: installed.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            log: NamedTempFile::new()?,
        };
        stage.scale(0, "the installed operator is gone").await?;
        release(world).await?;
        Ok(stage)
    }

    /// Starts an operator with further arguments beside the cluster, inside the node's network
    /// namespace.
    pub async fn operator(&self, arguments: &[&str]) -> Outcome<Process> {
        let Some(cluster) = &self.world.embedded else {
            fail!("this story needs the embedded cluster");
        };
        let kubeconfig = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let mut command = Command::new(cluster);
        command
            .args(["node-exec", "--"])
            .arg(self.world.programs.join("patchbay-operator"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command.args(["--namespace", NAMESPACE, "--lease", LEASE]);
        command.args(["--metrics-address", "127.0.0.1:0"]);
        command.envs(settings(&self.world).await?);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().append(true).open(&self.log)?)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Process { child })
    }

    /// Brings the installed operator back, however the story ended. One that failed is told with
    /// the last words of its operators.
    pub async fn close(self, story: Outcome) -> Outcome {
        release(&self.world).await?;
        self.scale(self.replicas, "the installed operator is back")
            .await?;
        let Err(Why(why)) = story else {
            return Ok(());
        };
        let said = std::fs::read_to_string(&self.log)?;
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        fail!("{why}\nthe last words of its operators:\n{last}")
    }

    /// Waits for pods too: a Deployment does not count those that are ending.
    async fn scale(&self, replicas: i32, what: &str) -> Outcome {
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments(&self.world)
            .patch_scale(DEPLOYMENT, &PatchParams::default(), &scale)
            .await?;
        until(what, || async {
            let pods = pods(&self.world).await?;
            let status = deployments(&self.world).get(DEPLOYMENT).await?.status;
            let available = status.and_then(|status| status.available_replicas);
            let settled =
                available.unwrap_or(0) == replicas && i32::try_from(pods.len())? == replicas;
            Ok(settled.then_some(()))
        })
        .await
    }
}

/// An operator that a story runs.
pub struct Process {
    child: Child,
}

impl Process {
    /// Sends it SIGUSR1.
    pub fn signal(&self) -> Outcome {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        let Some(pid) = pid else {
            fail!("the operator ended before its signal");
        };
        Ok(kill_process(pid, Signal::USR1)?)
    }

    /// Waits until it ended by itself.
    pub async fn ended(&mut self) -> Outcome {
        self.child.wait().await?;
        Ok(())
    }

    /// Ends it the hard way, if it still runs, and gives back its Lease, so that the story need
    /// not wait for its end.
    pub async fn bury(mut self, world: &World) -> Outcome {
        self.child.kill().await?;
        release(world).await
    }
}

/// Makes the Lease free. Only for times when nobody can hold it.
async fn release(world: &World) -> Outcome {
    let released = Patch::Merge(json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
    leases(world)
        .patch(LEASE, &PatchParams::default(), &released)
        .await?;
    Ok(())
}

/// Who leads; empty when nobody does.
pub async fn leader(world: &World) -> Outcome<String> {
    let spec = leases(world).get(LEASE).await?.spec.unwrap_or_default();
    Ok(spec.holder_identity.unwrap_or_default())
}

fn deployments(world: &World) -> Api<Deployment> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

/// The installed operator's pods, also those that are ending.
pub async fn pods(world: &World) -> Outcome<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=patchbay");
    Ok(pods.list(&selector).await?.items)
}

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

/// What the chart tells the installed operator, so that another one builds the same objects.
async fn settings(world: &World) -> Outcome<Vec<(String, String)>> {
    let pod = deployments(world)
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
