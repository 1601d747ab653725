//! `queue`: what waits, for whom, why, and for how long.

use super::JobError;
use crate::args::{self, Output};
use crate::connect::Connection;
use crate::output;
use crate::status::age;
use crate::trouble::explain;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::Job;
use patchbay_api::job_status::Phase;
use serde::Serialize;
use std::collections::BTreeMap;

/// Jobs per page.
const PAGE: u32 = 500;
/// What has ended does not wait.
const OPEN: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Invalid";

/// Open Jobs of one plugin for one client.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// Only when several namespaces are shown.
    pub(super) namespace: String,
    pub(super) plugin: String,
    /// Empty for jobs of any client.
    pub(super) client: String,
    pub(super) waiting: usize,
    pub(super) ready: usize,
    pub(super) suspended: usize,
    pub(super) held: usize,
    /// Seconds since the oldest of those that nobody has became eligible, or was created.
    pub(super) oldest_seconds: Option<i64>,
    /// Why those that nobody has are not done: reason and number, most frequent first.
    pub(super) why: Vec<(String, usize)>,
}

/// Shows the queue.
pub(crate) async fn run(connection: &Connection, arguments: &args::Queue) -> Result<(), JobError> {
    let api: Api<Job> = match arguments.all_namespaces {
        true => Api::all(connection.client.clone()),
        false => super::jobs(connection),
    };
    let mut lines = Lines::default();
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
            .map_err(|error| explain(connection, "reading Jobs", error))?;
        for job in &page.items {
            lines.add(job, now);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => break,
        }
    }
    let lines = lines.sorted();
    match arguments.output {
        Output::Json => {
            output::line(&serde_json::to_string_pretty(&lines).map_err(JobError::Json)?)?;
        }
        Output::Tree if lines.is_empty() => output::note("Nothing waits."),
        Output::Tree => output::text(&table(&lines, arguments.all_namespaces))?,
    }
    Ok(())
}

/// Namespace, plugin and client.
type Place = (String, String, String);
/// How often each reason stands there.
type Reasons = BTreeMap<String, usize>;

#[derive(Default)]
pub(super) struct Lines(BTreeMap<Place, (Line, Reasons)>);

impl Lines {
    pub(super) fn add(&mut self, job: &Job, now: Timestamp) {
        let key = (
            job.namespace().unwrap_or_default(),
            job.spec.plugin_ref.name.clone(),
            job.spec.target.location.clone(),
        );
        let (line, why) = self.0.entry(key.clone()).or_insert_with(|| {
            let (namespace, plugin, client) = key;
            let line = Line {
                namespace,
                plugin,
                client,
                ..Line::default()
            };
            (line, Reasons::new())
        });
        let status = job.status.clone().unwrap_or_default();
        match status.phase {
            Some(phase) if phase.is_held() => {
                line.held += 1;
                return;
            }
            Some(Phase::Ready) => line.ready += 1,
            Some(Phase::Suspended) => line.suspended += 1,
            _ => line.waiting += 1,
        }
        let reason = match status.reason.as_str() {
            "" => "Pending".to_owned(),
            reason => reason.to_owned(),
        };
        *why.entry(reason).or_default() += 1;
        let since = job.spec.start_time.as_ref().map(|start| start.0);
        let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if let Some(since) = since.max(created).filter(|since| *since <= now) {
            let seconds = now.as_second() - since.as_second();
            line.oldest_seconds = line.oldest_seconds.max(Some(seconds));
        }
    }

    pub(super) fn sorted(self) -> Vec<Line> {
        self.0
            .into_values()
            .map(|(mut line, why)| {
                line.why = why.into_iter().collect();
                line.why.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                line
            })
            .collect()
    }
}

/// Columns as wide as they need to be.
pub(super) fn table(lines: &[Line], namespaces: bool) -> String {
    let mut rows = vec![
        [
            "NAMESPACE",
            "PLUGIN",
            "CLIENT",
            "READY",
            "WAITING",
            "SUSPENDED",
            "HELD",
            "OLDEST",
            "WHY",
        ]
        .map(str::to_owned),
    ];
    for line in lines {
        let why: Vec<String> = line
            .why
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        rows.push([
            line.namespace.clone(),
            line.plugin.clone(),
            match line.client.as_str() {
                "" => "any".to_owned(),
                client => output::clean(client),
            },
            line.ready.to_string(),
            line.waiting.to_string(),
            line.suspended.to_string(),
            line.held.to_string(),
            line.oldest_seconds.map_or("-".to_owned(), age::seconds),
            why.join(", "),
        ]);
    }
    let first = usize::from(!namespaces);
    let widths: Vec<usize> = (0..9)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = (first..9)
                .map(|column| format!("{:width$}", row[column], width = widths[column]))
                .collect();
            format!("{}\n", cells.join("   ").trim_end())
        })
        .collect()
}
