//! `status`: plugins as a tree for people or as JSON for programs.
//!
//! Reads Plugins and events; `view` makes of them what is to be known, `tree` draws it.

pub(crate) mod age;
mod paint;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use crate::args::{self, Output};
use crate::connect::Connection;
use crate::output::{self, OutputError};
use crate::plugins;
use crate::trouble::{ReadError, explain};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use paint::Paint;
use serde::Serialize;
use view::PluginView;

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("writing the status as JSON: {0}")]
    Json(serde_json::Error),
}

/// The answer for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    /// Whether every Plugin below is Ready.
    ready: bool,
    /// Why there are no events, when they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_note: Option<&'a str>,
    plugins: &'a [PluginView],
}

/// Shows what is asked for. Whether all of it is Ready.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::Status,
) -> Result<bool, StatusError> {
    let (mut found, events) = match &arguments.plugin {
        Some(name) => (
            vec![plugins::one(connection, name).await?],
            namespaced(connection),
        ),
        None if arguments.all_namespaces => (
            plugins::everywhere(connection).await?,
            Api::all(connection.client.clone()),
        ),
        None => (plugins::all(connection).await?, namespaced(connection)),
    };
    found.sort_by(|a, b| {
        (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
    });
    // Events are an extra: without them there is still an answer.
    let (events, note) = match events.list(&ListParams::default()).await {
        Ok(list) => (list.items, None),
        Err(error) => (
            Vec::new(),
            Some(explain(connection, "reading events", error).to_string()),
        ),
    };
    let views: Vec<PluginView> = found
        .iter()
        .map(|plugin| view::view(plugin, &events))
        .collect();
    let ready = views.iter().all(|view| view.ready);

    match arguments.output {
        Output::Json => {
            let answer = Answer {
                ready,
                events_note: note.as_deref(),
                plugins: &views,
            };
            output::line(&serde_json::to_string_pretty(&answer).map_err(StatusError::Json)?)?;
        }
        Output::Tree => {
            let paint = Paint::of_stdout();
            let trees: Vec<String> = views
                .iter()
                .map(|view| tree::draw(view, Timestamp::now(), paint))
                .collect();
            output::text(&trees.join("\n"))?;
            if views.is_empty() {
                let place = match arguments.all_namespaces {
                    true => "any namespace".to_owned(),
                    false => format!("namespace {}; -A looks at all", connection.namespace),
                };
                output::note(&format!("There is no Plugin in {place}."));
            }
            if let Some(note) = note {
                output::note(&format!("Events are missing: {note}"));
            }
        }
    }
    Ok(ready)
}

fn namespaced(connection: &Connection) -> Api<Event> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}
