//! `describe job`: everything that happened to one Job, in order, and what it waits for now.
//!
//! This file reads the objects, `history` and `waiting` derive the answer from them, `text` prints
//! it.

mod history;
mod rows;
#[cfg(test)]
mod tests;
mod text;
mod waiting;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patchbay_api::job_status::Phase;
use patchbay_api::names::{JOB_LABEL, RETRY_OF_LABEL};
use patchbay_api::{Job, JobOutput, Plugin};
use serde::Serialize;

use super::{JobCommandError, get_job, jobs, phase};
use crate::api_error::ApiError;
use crate::args::{DescribeJobArgs, OutputFormat};
use crate::color::Color;
use crate::connect::ClusterClient;
use crate::stdio;
use history::HistoryEntry;
use waiting::CurrentWait;

/// Everything that is read from the cluster.
#[derive(Default)]
struct JobObjects {
    plugin: PluginLookup,
    /// Metadata only: the content may be large.
    outputs: Vec<ObjectMeta>,
    events: Vec<Event>,
    /// Jobs with the label `patchbay.dev/retry-of` of this Job.
    retries: Vec<Job>,
    /// What could not be read, and why.
    errors: Vec<String>,
}

#[derive(Default)]
enum PluginLookup {
    /// It could not be read.
    #[default]
    Unknown,
    Missing,
    Found(Box<Plugin>),
}

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobDescription {
    namespace: String,
    name: String,
    plugin: String,
    /// The command, or service/method.
    command: String,
    /// Empty for any client.
    client: String,
    phase: Option<Phase>,
    reason: String,
    attempt: i32,
    /// 1 if the Job is not repeated after a loss or an error.
    max_attempts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    retries: Vec<RetrySummary>,
    history: Vec<HistoryEntry>,
    /// Absent if nothing can follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<CurrentWait>,
    errors: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetrySummary {
    name: String,
    phase: Option<Phase>,
    reason: String,
}

/// Prints the description. Returns false if the Job has failed.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &DescribeJobArgs,
) -> Result<bool, JobCommandError> {
    let job = get_job(cluster, &arguments.job).await?;
    let objects = read(cluster, &job).await;
    let now = Timestamp::now();
    let description = describe(&job, objects, now);
    match arguments.output {
        OutputFormat::Json => stdio::line(
            &serde_json::to_string_pretty(&description).map_err(JobCommandError::Json)?,
        )?,
        OutputFormat::Text => {
            stdio::text(&text::print(&description, now, Color::of_stdout()))?;
        }
    }
    Ok(!matches!(phase(&job), Some(Phase::Failed | Phase::Invalid)))
}

/// Reads what belongs to the Job. The description is useful without some of it, so that a missing
/// right is a remark.
async fn read(cluster: &ClusterClient, job: &Job) -> JobObjects {
    let mut objects = JobObjects::default();
    let name = job.name_any();
    let namespace = &cluster.namespace;
    let plugins: Api<Plugin> = Api::namespaced(cluster.client.clone(), namespace);
    let outputs: Api<JobOutput> = Api::namespaced(cluster.client.clone(), namespace);
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let of_job = ListParams::default().labels(&format!("{JOB_LABEL}={name}"));
    let of_retries = ListParams::default().labels(&format!("{RETRY_OF_LABEL}={name}"));
    let about_job =
        ListParams::default().fields(&format!("regarding.kind=Job,regarding.name={name}"));
    let jobs = jobs(cluster);
    let (plugin, outputs, events, retries) = futures::join!(
        plugins.get_opt(&job.spec.plugin_ref.name),
        outputs.list_metadata(&of_job),
        events.list(&about_job),
        jobs.list(&of_retries),
    );
    let errors = &mut objects.errors;
    let mut failed = |what: &str, error| {
        let error = ApiError::from_kube(cluster, what, error).to_string();
        errors.extend(error.lines().next().map(str::to_owned));
    };
    match plugin {
        Ok(Some(plugin)) => objects.plugin = PluginLookup::Found(Box::new(plugin)),
        Ok(None) => objects.plugin = PluginLookup::Missing,
        Err(error) => failed("reading the Plugin", error),
    }
    match outputs {
        Ok(found) => objects.outputs = found.items.into_iter().map(|o| o.metadata).collect(),
        Err(error) => failed("reading JobOutputs", error),
    }
    match events {
        Ok(found) => {
            objects.events = found.items;
            objects.events.retain(|event| is_about(event, job));
        }
        Err(error) => failed("reading events", error),
    }
    match retries {
        Ok(found) => objects.retries = found.items,
        Err(error) => failed("reading retries", error),
    }
    objects
}

fn is_about(event: &Event, job: &Job) -> bool {
    event.regarding.as_ref().is_some_and(|regarding| {
        regarding.kind.as_deref() == Some("Job")
            && regarding.name == job.metadata.name
            // Another Job may have had the same name.
            && (regarding.uid.is_none() || regarding.uid == job.metadata.uid)
    })
}

fn describe(job: &Job, objects: JobObjects, now: Timestamp) -> JobDescription {
    let status = job.status.clone().unwrap_or_default();
    let retry_of = job.labels().get(RETRY_OF_LABEL).cloned();
    let mut retries: Vec<RetrySummary> = objects
        .retries
        .iter()
        .map(|retry| {
            let status = retry.status.clone().unwrap_or_default();
            RetrySummary {
                name: retry.name_any(),
                phase: status.phase,
                reason: status.reason,
            }
        })
        .collect();
    retries.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    JobDescription {
        namespace: job.namespace().unwrap_or_default(),
        name: job.name_any(),
        plugin: job.spec.plugin_ref.name.clone(),
        command: command(job),
        client: client(job).to_owned(),
        phase: status.phase,
        reason: status.reason,
        attempt: status.attempt,
        max_attempts: max_attempts(job),
        retry_of,
        retries,
        history: history::history(job, &objects),
        waiting: waiting::waiting(job, &objects.plugin, now),
        errors: objects.errors,
    }
}

fn command(job: &Job) -> String {
    match (&job.spec.command, &job.spec.call) {
        (Some(command), _) => command.name.clone(),
        (None, Some(call)) => format!("{}/{}", call.service, call.method),
        (None, None) => String::new(),
    }
}

fn client(job: &Job) -> &str {
    &job.spec.target.client
}

fn max_attempts(job: &Job) -> i32 {
    match job.spec.delivery_policy {
        patchbay_api::job::DeliveryPolicy::AtMostOnce => 1,
        patchbay_api::job::DeliveryPolicy::AtLeastOnce => job.spec.backoff_limit.saturating_add(1),
    }
}
