//! `queue`: open Jobs by plugin and client, and why they are not running.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use serde::Serialize;

use super::JobCommandError;
use crate::age;
use crate::api_error::ApiError;
use crate::args::{self, OutputFormat};
use crate::connect::ClusterClient;
use crate::stdio;

/// Jobs per list request.
const PAGE: u32 = 500;
const OPEN: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Invalid";

/// The open Jobs of one plugin for one client.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueRow {
    pub(super) namespace: String,
    pub(super) plugin: String,
    /// Empty for jobs of any client.
    pub(super) client: String,
    pub(super) waiting: usize,
    pub(super) ready: usize,
    pub(super) suspended: usize,
    /// Claimed or Running.
    pub(super) running: usize,
    /// Seconds since the start time, or else the creation, of the oldest Job that is not running.
    pub(super) oldest_seconds: Option<i64>,
    /// Why the others are not running: reason and count, most frequent first.
    pub(super) reasons: Vec<(String, usize)>,
}

/// Shows the queue.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::QueueArgs,
) -> Result<(), JobCommandError> {
    let api: Api<Job> = match arguments.all_namespaces {
        true => Api::all(cluster.client.clone()),
        false => super::jobs(cluster),
    };
    let mut rows = QueueRows::default();
    let now = Timestamp::now();
    let mut fields = OPEN.to_owned();
    if let Some(plugin) = &arguments.plugin {
        fields.push_str(&format!(",spec.pluginRef.name={plugin}"));
    }
    let mut params = ListParams::default().fields(&fields).limit(PAGE);
    loop {
        let page = api
            .list(&params)
            .await
            .map_err(|error| ApiError::from_kube(cluster, "reading Jobs", error))?;
        for job in &page.items {
            rows.add(job, now);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => break,
        }
    }
    let rows = rows.sorted();
    match arguments.output {
        OutputFormat::Json => {
            stdio::line(&serde_json::to_string_pretty(&rows).map_err(JobCommandError::Json)?)?;
        }
        OutputFormat::Text if rows.is_empty() => stdio::note("There are no open Jobs."),
        OutputFormat::Text => stdio::text(&table(&rows, arguments.all_namespaces))?,
    }
    Ok(())
}

/// Namespace, plugin and client.
type QueueKey = (String, String, String);
type ReasonCounts = BTreeMap<String, usize>;

#[derive(Default)]
pub(super) struct QueueRows(BTreeMap<QueueKey, (QueueRow, ReasonCounts)>);

impl QueueRows {
    pub(super) fn add(&mut self, job: &Job, now: Timestamp) {
        let key = (
            job.namespace().unwrap_or_default(),
            job.spec.plugin_ref.name.clone(),
            job.spec.target.client.clone(),
        );
        let (row, reasons) = self.0.entry(key.clone()).or_insert_with(|| {
            let (namespace, plugin, client) = key;
            let row = QueueRow {
                namespace,
                plugin,
                client,
                ..QueueRow::default()
            };
            (row, ReasonCounts::new())
        });
        let status = job.status.clone().unwrap_or_default();
        match status.phase {
            Some(phase) if phase.is_held() => {
                row.running += 1;
                return;
            }
            Some(Phase::Ready) => row.ready += 1,
            Some(Phase::Suspended) => row.suspended += 1,
            _ => row.waiting += 1,
        }
        let reason = match status.reason.as_str() {
            "" => "Pending".to_owned(),
            reason => reason.to_owned(),
        };
        *reasons.entry(reason).or_default() += 1;
        let since = job.spec.start_time.as_ref().map(|start| start.0);
        let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if let Some(since) = since.max(created).filter(|since| *since <= now) {
            let seconds = now.as_second() - since.as_second();
            row.oldest_seconds = row.oldest_seconds.max(Some(seconds));
        }
    }

    pub(super) fn sorted(self) -> Vec<QueueRow> {
        self.0
            .into_values()
            .map(|(mut row, reasons)| {
                row.reasons = reasons.into_iter().collect();
                row.reasons
                    .sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                row
            })
            .collect()
    }
}

pub(super) fn table(rows: &[QueueRow], namespaces: bool) -> String {
    let mut cells = vec![
        [
            "NAMESPACE",
            "PLUGIN",
            "CLIENT",
            "READY",
            "WAITING",
            "SUSPENDED",
            "RUNNING",
            "OLDEST",
            "REASONS",
        ]
        .map(str::to_owned),
    ];
    for row in rows {
        let reasons: Vec<String> = row
            .reasons
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        cells.push([
            row.namespace.clone(),
            row.plugin.clone(),
            match row.client.as_str() {
                "" => "any".to_owned(),
                client => stdio::escape_control(client),
            },
            row.ready.to_string(),
            row.waiting.to_string(),
            row.suspended.to_string(),
            row.running.to_string(),
            row.oldest_seconds
                .map_or("-".to_owned(), age::format_seconds),
            reasons.join(", "),
        ]);
    }
    let first = usize::from(!namespaces);
    let widths: Vec<usize> = (0..9)
        .map(|column| {
            cells
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    cells
        .iter()
        .map(|row| {
            let cells: Vec<String> = (first..9)
                .map(|column| format!("{:width$}", row[column], width = widths[column]))
                .collect();
            format!("{}\n", cells.join("   ").trim_end())
        })
        .collect()
}
