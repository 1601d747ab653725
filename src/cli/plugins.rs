//! Reads Plugins.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Plugin;
use patchbay_reconcile::suggest::{did_you_mean, similar};

use crate::api_error::ApiError;
use crate::connect::ClusterClient;

/// Gets the Plugin `name`; if it does not exist, the error suggests where or what it may be.
pub(crate) async fn get(cluster: &ClusterClient, name: &str) -> Result<Plugin, ApiError> {
    let what = format!("reading Plugin {name} in namespace {}", cluster.namespace);
    let api: Api<Plugin> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match api.get_opt(name).await {
        Ok(Some(plugin)) => return Ok(plugin),
        Ok(None) => {}
        Err(error) => return Err(ApiError::from_kube(cluster, what, error)),
    }
    let here = api
        .list(&ListParams::default())
        .await
        .map_err(|error| ApiError::from_kube(cluster, what.clone(), error))?;
    let names: Vec<String> = here.iter().map(ResourceExt::name_any).collect();
    let close = similar(name, names.iter().map(String::as_str));
    let hint = if close.is_empty() {
        elsewhere(cluster, name).await
    } else {
        did_you_mean(&close)
    };
    Err(ApiError::NoObject { what, hint })
}

/// All Plugins of the namespace.
pub(crate) async fn all(cluster: &ClusterClient) -> Result<Vec<Plugin>, ApiError> {
    let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    list(
        cluster,
        api,
        format!("reading the Plugins of namespace {}", cluster.namespace),
    )
    .await
}

/// All Plugins of the cluster.
pub(crate) async fn everywhere(cluster: &ClusterClient) -> Result<Vec<Plugin>, ApiError> {
    list(
        cluster,
        Api::all(cluster.client.clone()),
        "reading the Plugins of all namespaces".to_owned(),
    )
    .await
}

async fn list(
    cluster: &ClusterClient,
    api: Api<Plugin>,
    what: String,
) -> Result<Vec<Plugin>, ApiError> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) => Err(ApiError::from_kube(cluster, what, error)),
    }
}

/// A Plugin of that name in another namespace, if the user may list those.
async fn elsewhere(cluster: &ClusterClient, name: &str) -> String {
    let found = everywhere(cluster).await.unwrap_or_default();
    let namespaces: Vec<String> = found
        .iter()
        .filter(|plugin| plugin.name_any() == name)
        .filter_map(ResourceExt::namespace)
        .collect();
    match namespaces.as_slice() {
        [] => String::new(),
        [one] => format!("; there is one in namespace {one} (-n {one})"),
        several => format!(
            "; there is one in each of the namespaces {}",
            several.join(", ")
        ),
    }
}
