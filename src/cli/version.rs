//! `version`: this program, the operator and the kinds.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::api_error::ApiError;
use crate::args::{ClusterArgs, OutputFormat, VersionArgs};
use crate::connect::{self, ClusterClient};
use crate::stdio::{self, StdoutError};

/// Labels of the operator's Deployment in the chart.
const OPERATOR_SELECTOR: &str =
    "app.kubernetes.io/name=patchbay,app.kubernetes.io/component=operator";

#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Output(#[from] StdoutError),
    #[error("writing JSON: {0}")]
    Json(serde_json::Error),
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    /// `namespace/name image` of each installation.
    operators: Vec<String>,
    /// Versions of the API group that the cluster serves.
    api_versions: Vec<String>,
    /// What could not be read, and why.
    errors: Vec<String>,
}

/// Returns false if the cluster could not be asked for everything.
pub(crate) async fn run(
    cluster: &ClusterArgs,
    arguments: &VersionArgs,
) -> Result<bool, VersionError> {
    let mut versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        ..Versions::default()
    };
    if !arguments.client {
        versions.read(&connect::connect(cluster).await?).await;
    }
    match arguments.output {
        OutputFormat::Json => {
            stdio::line(&serde_json::to_string_pretty(&versions).map_err(VersionError::Json)?)?
        }
        OutputFormat::Text => stdio::text(&versions.text(arguments.client))?,
    }
    Ok(versions.errors.is_empty())
}

impl Versions {
    async fn read(&mut self, cluster: &ClusterClient) {
        match cluster.client.list_api_groups().await {
            Ok(groups) => {
                let group = groups
                    .groups
                    .into_iter()
                    .find(|group| group.name == patchbay_api::names::GROUP);
                let versions = group.map(|group| group.versions).unwrap_or_default();
                self.api_versions = versions.into_iter().map(|v| v.group_version).collect();
            }
            Err(error) => self.failed(cluster, "reading the API groups", error),
        }
        let deployments: Api<Deployment> = Api::all(cluster.client.clone());
        let selector = ListParams::default().labels(OPERATOR_SELECTOR);
        match deployments.list(&selector).await {
            Ok(found) => self.operators = found.iter().map(operator).collect(),
            Err(error) => self.failed(cluster, "reading the operator's Deployment", error),
        }
    }

    fn failed(&mut self, cluster: &ClusterClient, what: &str, error: kube::Error) {
        let error = ApiError::from_kube(cluster, what, error).to_string();
        self.errors.extend(error.lines().next().map(str::to_owned));
    }

    fn text(&self, only_client: bool) -> String {
        let mut text = format!("client    {}\n", self.client);
        if only_client {
            return text;
        }
        let or_none = |found: &[String]| match found {
            [] => "not found".to_owned(),
            found => found.join(", "),
        };
        text.push_str(&format!("operator  {}\n", or_none(&self.operators)));
        text.push_str(&format!("kinds     {}\n", or_none(&self.api_versions)));
        for error in &self.errors {
            text.push_str(&format!("error     {error}\n"));
        }
        text
    }
}

fn operator(deployment: &Deployment) -> String {
    let images: Vec<String> = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref())
        .map(|pod| {
            pod.containers
                .iter()
                .filter_map(|c| c.image.clone())
                .collect()
        })
        .unwrap_or_default();
    format!(
        "{}/{} {}",
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
        stdio::one_line(&images.join(" "))
    )
}
