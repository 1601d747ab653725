//! `retry`: the same work again, as a new Job that names the old one.

use super::{JobError, ended, jobs, one, verdict, when::when};
use crate::args;
use crate::connect::Connection;
use crate::output;
use crate::trouble::explain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use patchbay_api::Job;
use patchbay_api::names::RETRY_OF_LABEL;

/// Longest name of a Job.
const LONGEST: usize = 48;
/// So many retries of one Job have a number.
const MOST: u32 = 999;

/// Makes the new Job.
pub(crate) async fn run(connection: &Connection, arguments: &args::Retry) -> Result<(), JobError> {
    let old = one(connection, &arguments.job).await?;
    if !ended(&old) {
        return Err(JobError::Refused(format!(
            "retrying Job {}: it has not ended ({}); cancel it first, or wait",
            arguments.job,
            verdict(&old)
        )));
    }
    let expire = match &arguments.expire {
        Some(text) => Some(when(text, Timestamp::now()).map_err(JobError::Refused)?),
        None => None,
    };
    for number in 1..=MOST {
        let new = again(&old, number, expire, Timestamp::now()).map_err(JobError::Refused)?;
        let name = new.name_any();
        match jobs(connection).create(&PostParams::default(), &new).await {
            Ok(_) => {
                output::line(&format!("job.patchbay.dev/{name} created"))?;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(error) => {
                return Err(explain(connection, format!("making Job {name}"), error).into());
            }
        }
    }
    Err(JobError::Refused(format!(
        "retrying Job {}: it has {MOST} retries already",
        arguments.job
    )))
}

/// The `number`th retry of `old`. A start that has passed is left out; an expiry that has passed
/// needs a new one.
pub(super) fn again(
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
                "retrying Job {}: its expireTime {} has passed; name another by --expire, such as --expire +1h",
                old.name_any(),
                passed.0
            ));
        }
        (None, _) => {}
    }
    spec.suspend = false;
    // A retry of a retry still names the first.
    let first = old
        .labels()
        .get(RETRY_OF_LABEL)
        .cloned()
        .unwrap_or_else(|| old.name_any());
    let ending = format!("-r{number}");
    let stem: String = first.chars().take(LONGEST - ending.len()).collect();
    let mut labels = old.labels().clone();
    labels.insert(RETRY_OF_LABEL.to_owned(), first);
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(format!("{}{ending}", stem.trim_end_matches('-'))),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}
