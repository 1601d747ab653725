//! Plugins as the cluster holds them.

use crate::connect::Connection;
use crate::trouble::{ReadError, explain};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Plugin;
use patchbay_reconcile::suggest::{did_you_mean, similar};

/// The Plugin `name` of the namespace; when there is none, the error names what may be meant.
pub(crate) async fn one(connection: &Connection, name: &str) -> Result<Plugin, ReadError> {
    let what = format!(
        "reading Plugin {name} in namespace {}",
        connection.namespace
    );
    let api: Api<Plugin> = Api::namespaced(connection.client.clone(), &connection.namespace);
    match api.get_opt(name).await {
        Ok(Some(plugin)) => return Ok(plugin),
        Ok(None) => {}
        Err(error) => return Err(explain(connection, what, error)),
    }
    let here = api
        .list(&ListParams::default())
        .await
        .map_err(|error| explain(connection, what.clone(), error))?;
    let names: Vec<String> = here.iter().map(ResourceExt::name_any).collect();
    let close = similar(name, names.iter().map(String::as_str));
    let hint = if close.is_empty() {
        elsewhere(connection, name).await
    } else {
        did_you_mean(&close)
    };
    Err(ReadError::NoObject { what, hint })
}

/// All Plugins of the namespace.
pub(crate) async fn all(connection: &Connection) -> Result<Vec<Plugin>, ReadError> {
    let api = Api::namespaced(connection.client.clone(), &connection.namespace);
    list(
        connection,
        api,
        format!("reading the Plugins of namespace {}", connection.namespace),
    )
    .await
}

/// All Plugins of the cluster.
pub(crate) async fn everywhere(connection: &Connection) -> Result<Vec<Plugin>, ReadError> {
    list(
        connection,
        Api::all(connection.client.clone()),
        "reading the Plugins of all namespaces".to_owned(),
    )
    .await
}

async fn list(
    connection: &Connection,
    api: Api<Plugin>,
    what: String,
) -> Result<Vec<Plugin>, ReadError> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) => Err(explain(connection, what, error)),
    }
}

/// A Plugin of that name in another namespace, when those may be looked at.
async fn elsewhere(connection: &Connection, name: &str) -> String {
    let found = everywhere(connection).await.unwrap_or_default();
    let namespaces: Vec<String> = found
        .iter()
        .filter(|plugin| plugin.name_any() == name)
        .filter_map(ResourceExt::namespace)
        .collect();
    match namespaces.as_slice() {
        [] => String::new(),
        [one] => format!("; there is one in namespace {one} (-n {one})"),
        several => format!("; there are such in the namespaces {}", several.join(", ")),
    }
}
