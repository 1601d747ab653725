//! A Job and a way through its life.

use super::transition::{Choice, RowOutcome, StoredRow, accept, claim};
use crate::job::output::digest;
use jiff::{SignedDuration, Timestamp};
use patchbay_api::job_status::Phase;
use patchbay_api::{ConditionType, Job, JobStatus};
use serde_json::{Value, json};

pub(crate) const UID: &str = "0a1b2c3d-0000-4000-8000-0000000000f1";
pub(crate) const CLAIM: &str = "00112233445566778899aabbccddeeff";

pub(crate) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    now()
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap()
}

/// A new Job, created a minute ago, with these fields in its spec.
pub(crate) fn job(more: Value) -> Job {
    let mut value = json!({
        "apiVersion": "patchbay.dev/v1alpha1",
        "kind": "Job",
        "metadata": {
            "name": "fetch", "namespace": "demo", "uid": UID, "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-11-22T11:59:00Z"
        },
        "spec": {
            "pluginRef": {"name": "scraper"},
            "command": {"name": "wget", "inputs": [{"name": "Target", "value": "10.1.2.3"}]}
        }
    });
    for (key, field) in more.as_object().into_iter().flatten() {
        value["spec"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// The Job with this status.
pub(crate) fn with(mut job: Job, status: JobStatus) -> Job {
    job.status = Some(status);
    job
}

pub(crate) fn accepted(more: Value) -> Job {
    let job = job(more);
    let status = accept(&job, now()).unwrap();
    with(job, status)
}

pub(crate) fn choice(claim_id: &str) -> Choice {
    Choice {
        sequence: 1,
        observed_resource_version: "7".to_owned(),
        claim_id: claim_id.to_owned(),
        pod: "scraper-0-1".to_owned(),
        pod_uid: "pod-uid".to_owned(),
        ledger_epoch: "epoch".to_owned(),
        client_location: None,
    }
}

pub(crate) fn claimed(more: Value) -> Job {
    let job = accepted(more);
    let status = claim(&job, &choice(CLAIM), now()).unwrap();
    with(job, status)
}

/// A small row of text, the only one so far.
pub(crate) fn row(number: u32, text: &str, outcome: RowOutcome) -> StoredRow {
    StoredRow {
        row: number,
        bytes: text.len() as u64,
        text: true,
        inline: Some(text.as_bytes().to_vec()),
        chunks: 0,
        sha256_of_all: digest(text.as_bytes()),
        total_bytes: text.len() as u64,
        preview: String::new(),
        outcome,
        truncated: false,
    }
}

pub(crate) fn phase(status: &JobStatus) -> Phase {
    status.phase.unwrap()
}

/// Status and reason of a condition.
pub(crate) fn said(status: &JobStatus, type_: ConditionType) -> (&str, &str) {
    super::conditions::find(status, type_).map_or(("absent", ""), |condition| {
        (condition.status.as_str(), condition.reason.as_str())
    })
}
