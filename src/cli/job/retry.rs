//! `retry`: a new Job with the spec of one that has ended.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use patchbay_api::Job;
use patchbay_api::names::RETRY_OF_LABEL;

use super::{JobCommandError, get_job, has_ended, jobs, outcome};
use crate::api_error::ApiError;
use crate::args;
use crate::connect::ClusterClient;
use crate::stdio;
use crate::time_arg;

/// Maximum length of a Job's name.
const MAX_NAME: usize = 48;
/// Maximum number of retries of one Job.
const MAX_RETRIES: u32 = 999;

/// Creates the new Job.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::RetryArgs,
) -> Result<(), JobCommandError> {
    let old = get_job(cluster, &arguments.job).await?;
    if !has_ended(&old) {
        return Err(JobCommandError::Refused(format!(
            "retrying Job {}: it has not ended ({}); cancel it first, or wait",
            arguments.job,
            outcome(&old)
        )));
    }
    let expire = match &arguments.expire {
        Some(text) => {
            Some(time_arg::time(text, Timestamp::now()).map_err(JobCommandError::Refused)?)
        }
        None => None,
    };
    for number in 1..=MAX_RETRIES {
        let new =
            retry_job(&old, number, expire, Timestamp::now()).map_err(JobCommandError::Refused)?;
        let name = new.name_any();
        match jobs(cluster).create(&PostParams::default(), &new).await {
            Ok(_) => {
                stdio::line(&format!("job.patchbay.dev/{name} created"))?;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => {
                return Err(
                    ApiError::from_kube(cluster, format!("creating Job {name}"), error).into(),
                );
            }
        }
    }
    Err(JobCommandError::Refused(format!(
        "retrying Job {}: it already has {MAX_RETRIES} retries",
        arguments.job
    )))
}

/// The `number`th retry of `old`. A start time that has passed is left out; an expire time that has
/// passed has to be replaced.
pub(super) fn retry_job(
    old: &Job,
    number: u32,
    expire: Option<Timestamp>,
    now: Timestamp,
) -> Result<Job, String> {
    let mut spec = old.spec.clone();
    if spec.start_time.as_ref().is_some_and(|start| start.0 <= now) {
        spec.start_time = None;
    }
    match (expire, &spec.expire_time) {
        (Some(expire), _) => spec.expire_time = Some(MicroTime(expire)),
        (None, Some(passed)) if passed.0 <= now => {
            return Err(format!(
                "retrying Job {}: its expireTime {} has passed; set another with --expire, for example --expire +1h",
                old.name_any(),
                passed.0
            ));
        }
        (None, _) => {}
    }
    spec.suspend = false;
    // A retry of a retry is labelled with the first Job.
    let first = old
        .labels()
        .get(RETRY_OF_LABEL)
        .cloned()
        .unwrap_or_else(|| old.name_any());
    let suffix = format!("-r{number}");
    let prefix: String = first.chars().take(MAX_NAME - suffix.len()).collect();
    let mut labels = old.labels().clone();
    labels.insert(RETRY_OF_LABEL.to_owned(), first);
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(format!("{}{suffix}", prefix.trim_end_matches('-'))),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}
