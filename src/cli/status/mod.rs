//! `status`: plugins as a tree for people or as JSON for programs.
//!
//! Reads Plugins and events; `summary` joins them, `tree` draws the summary.

mod summary;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use summary::event_time;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use crate::api_error::ApiError;
use crate::args::{self, OutputFormat};
use crate::color::Color;
use crate::connect::ClusterClient;
use crate::plugins;
use crate::stdio::{self, StdoutError};
use summary::PluginSummary;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusCommandError {
    #[error(transparent)]
    Read(#[from] ApiError),
    #[error(transparent)]
    Output(#[from] StdoutError),
    #[error("writing JSON: {0}")]
    Json(serde_json::Error),
}

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDocument<'a> {
    /// Whether all of `plugins` are Ready.
    ready: bool,
    /// Why the events could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_note: Option<&'a str>,
    plugins: &'a [PluginSummary],
}

/// Prints the status. Returns whether all Plugins shown are Ready.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::StatusArgs,
) -> Result<bool, StatusCommandError> {
    let (mut found, events) = match &arguments.plugin {
        Some(name) => (
            vec![plugins::get(cluster, name).await?],
            namespaced(cluster),
        ),
        None if arguments.all_namespaces => (
            plugins::everywhere(cluster).await?,
            Api::all(cluster.client.clone()),
        ),
        None => (plugins::all(cluster).await?, namespaced(cluster)),
    };
    found.sort_by(|a, b| {
        (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
    });
    // The status is useful without events, too.
    let (events, note) = match events.list(&ListParams::default()).await {
        Ok(list) => (list.items, None),
        Err(error) => (
            Vec::new(),
            Some(ApiError::from_kube(cluster, "reading events", error).to_string()),
        ),
    };
    let summaries: Vec<PluginSummary> = found
        .iter()
        .map(|plugin| summary::summarize(plugin, &events))
        .collect();
    let ready = summaries.iter().all(|summary| summary.ready);

    match arguments.output {
        OutputFormat::Json => {
            let document = StatusDocument {
                ready,
                events_note: note.as_deref(),
                plugins: &summaries,
            };
            stdio::line(
                &serde_json::to_string_pretty(&document).map_err(StatusCommandError::Json)?,
            )?;
        }
        OutputFormat::Text => {
            let color = Color::of_stdout();
            let trees: Vec<String> = summaries
                .iter()
                .map(|summary| tree::draw(summary, Timestamp::now(), color))
                .collect();
            stdio::text(&trees.join("\n"))?;
            if summaries.is_empty() {
                let place = match arguments.all_namespaces {
                    true => "any namespace".to_owned(),
                    false => format!("namespace {}; use -A for all namespaces", cluster.namespace),
                };
                stdio::note(&format!("No Plugin found in {place}."));
            }
            if let Some(note) = note {
                stdio::note(&format!("No events shown: {note}"));
            }
        }
    }
    Ok(ready)
}

fn namespaced(cluster: &ClusterClient) -> Api<Event> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}
