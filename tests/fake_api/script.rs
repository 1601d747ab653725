//! What the operator relies on at the API server, as a table of requests and answers. It runs against
//! the server in memory in a unit test, and against a real one in the cluster tier.

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::future::Future;

/// The Job of the script.
pub const JOB: &str = "scripted";

/// One request, and what its answer has to say.
struct Step {
    what: &'static str,
    method: Method,
    /// Below the namespace.
    path: &'static str,
    /// `$uid` stands for the uid of the Job, `$version` for its newest resource version that was
    /// answered, `$older` for the one before.
    body: Value,
    code: u16,
    /// Fields of the answer by their JSON pointers; null where there must be none.
    fields: Vec<(&'static str, Value)>,
}

/// Runs the script in a namespace where the Job does not exist. `settled` is awaited after the Job was
/// created, until no controller has anything to write into it any more.
///
/// # Errors
/// The first answer that is another than in the table.
pub async fn run<F>(
    client: &Client,
    namespace: &str,
    settled: impl FnOnce() -> F,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    let mut known = Known::default();
    let mut settled = Some(settled);
    for step in steps() {
        let answer = send(client, namespace, &step, &known).await;
        let (code, body) = answer.map_err(|error| format!("{}: {error}", step.what))?;
        if code != step.code {
            return Err(format!("{}: {code}, not {}: {body}", step.what, step.code));
        }
        for (pointer, wanted) in &step.fields {
            let wanted = known.fill(wanted);
            let is = body.pointer(pointer).unwrap_or(&Value::Null);
            if *is != wanted {
                return Err(format!("{}: {pointer} is {is}, not {wanted}", step.what));
            }
        }
        known.learn(&body);
        if code == 201
            && let Some(settled) = settled.take()
        {
            settled().await?;
        }
    }
    Ok(())
}

async fn send(
    client: &Client,
    namespace: &str,
    step: &Step,
    known: &Known,
) -> Result<(u16, Value), Box<dyn std::error::Error + Send + Sync>> {
    let kind = match step.method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = match &step.body {
        Value::Null => Vec::new(),
        body => serde_json::to_vec(&known.fill(body))?,
    };
    let path = step.path;
    let request = Request::builder()
        .method(step.method.clone())
        .uri(format!(
            "/apis/patchbay.dev/v1alpha1/namespaces/{namespace}/{path}"
        ))
        .header("content-type", kind)
        .body(Body::from(body))?;
    let response = client.send(request).await?;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((code, serde_json::from_slice(&body)?))
}

/// What answers have said of the Job.
#[derive(Default)]
struct Known {
    uid: String,
    version: String,
    older: String,
}

impl Known {
    fn learn(&mut self, answer: &Value) {
        let metadata = &answer["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        if metadata["name"] == JOB && text("resourceVersion") != self.version {
            self.uid = text("uid");
            self.older = std::mem::replace(&mut self.version, text("resourceVersion"));
        }
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match text.as_str() {
                "$uid" => self.uid.clone().into(),
                "$version" => self.version.clone().into(),
                "$older" => self.older.clone().into(),
                _ => value.clone(),
            },
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), self.fill(value)))
                .collect(),
            _ => value.clone(),
        }
    }
}

/// The Job with these metadata beside its name, and this status.
fn job(metadata: Value, status: Value) -> Value {
    let mut object = json!({
        "apiVersion": "patchbay.dev/v1alpha1", "kind": "Job", "metadata": metadata,
        "spec": {"pluginRef": {"name": "no-such-plugin"}, "command": {"name": "echo"}},
        "status": status,
    });
    object["metadata"]["name"] = JOB.into();
    object
}

fn refusal(reason: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("/kind", "Status".into()),
        ("/status", "Failure".into()),
        ("/reason", reason.into()),
    ]
}

/// Nothing leaves this phase, and no controller writes into it.
fn ended(reason: &str) -> Value {
    json!({"phase": "Failed", "reason": reason, "attempt": 0})
}

fn steps() -> Vec<Step> {
    let step = |what, method, path, body, code, fields| Step {
        what,
        method,
        path,
        body,
        code,
        fields,
    };
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let (patch, delete) = (Method::PATCH, Method::DELETE);
    let same = json!({"uid": "$uid", "resourceVersion": "$version"});
    let (one, status) = ("jobs/scripted", "jobs/scripted/status");
    vec![
        step(
            "a Job that does not exist",
            get.clone(),
            one,
            Value::Null,
            404,
            refusal("NotFound"),
        ),
        step(
            "a status of a Job that does not exist",
            put.clone(),
            status,
            job(json!({"resourceVersion": "1"}), ended("PluginError")),
            404,
            refusal("NotFound"),
        ),
        step(
            "a creation drops the status",
            post.clone(),
            "jobs",
            job(json!({}), ended("PluginError")),
            201,
            vec![
                ("/metadata/name", JOB.into()),
                ("/metadata/generation", 1.into()),
                ("/status/phase", Value::Null),
            ],
        ),
        step(
            "a second creation",
            post.clone(),
            "jobs",
            job(json!({}), Value::Null),
            409,
            refusal("AlreadyExists"),
        ),
        step(
            "the Job is read",
            get.clone(),
            one,
            Value::Null,
            200,
            vec![("/metadata/uid", "$uid".into())],
        ),
        step(
            "a replace without a version",
            put.clone(),
            status,
            job(json!({"uid": "$uid"}), ended("PluginError")),
            422,
            refusal("Invalid"),
        ),
        step(
            "a replace with another uid",
            put.clone(),
            status,
            job(
                json!({"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "$version"}),
                ended("PluginError"),
            ),
            409,
            refusal("Conflict"),
        ),
        step(
            "a replace of the status leaves the spec and the generation",
            put.clone(),
            status,
            {
                let mut object = job(same.clone(), ended("PluginError"));
                object["spec"]["priority"] = 7.into();
                object
            },
            200,
            vec![
                ("/metadata/uid", "$uid".into()),
                ("/metadata/generation", 1.into()),
                ("/status/reason", "PluginError".into()),
                ("/spec/pluginRef/name", "no-such-plugin".into()),
            ],
        ),
        step(
            "a replace by an older version",
            put.clone(),
            status,
            job(
                json!({"uid": "$uid", "resourceVersion": "$older"}),
                ended("PluginLost"),
            ),
            409,
            refusal("Conflict"),
        ),
        step(
            "a replace that changes nothing is no write",
            put,
            status,
            job(same.clone(), ended("PluginError")),
            200,
            vec![("/metadata/resourceVersion", "$version".into())],
        ),
        step(
            "a patch by an older version",
            patch.clone(),
            status,
            json!({"metadata": {"resourceVersion": "$older"}, "status": {"reason": "PluginLost"}}),
            409,
            refusal("Conflict"),
        ),
        step(
            "a patch of the status",
            patch.clone(),
            status,
            json!({"status": {"reason": "PluginLost"}}),
            200,
            vec![
                ("/status/phase", "Failed".into()),
                ("/status/reason", "PluginLost".into()),
                ("/metadata/generation", 1.into()),
            ],
        ),
        step(
            "a patch of the object leaves the status",
            patch.clone(),
            one,
            json!({"metadata": {"annotations": {"a": "b"}}, "status": {"reason": "PluginError"}}),
            200,
            vec![
                ("/metadata/annotations/a", "b".into()),
                ("/metadata/generation", 1.into()),
                ("/status/reason", "PluginLost".into()),
            ],
        ),
        step(
            "a patch of the spec counts its generation",
            patch,
            one,
            json!({"spec": {"priority": 3}}),
            200,
            vec![
                ("/spec/priority", 3.into()),
                ("/metadata/generation", 2.into()),
            ],
        ),
        step(
            "the Jobs are listed",
            get.clone(),
            "jobs",
            Value::Null,
            200,
            vec![
                ("/items/0/metadata/name", JOB.into()),
                ("/items/1", Value::Null),
            ],
        ),
        step(
            "a deletion of another uid",
            delete.clone(),
            one,
            json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}),
            409,
            refusal("Conflict"),
        ),
        step(
            "a deletion by an older version",
            delete.clone(),
            one,
            json!({"preconditions": {"uid": "$uid", "resourceVersion": "$older"}}),
            409,
            refusal("Conflict"),
        ),
        step(
            "a deletion",
            delete.clone(),
            one,
            json!({"preconditions": same}),
            200,
            vec![("/status", "Success".into())],
        ),
        step(
            "a second deletion",
            delete,
            one,
            Value::Null,
            404,
            refusal("NotFound"),
        ),
        step(
            "the Job is gone",
            get,
            one,
            Value::Null,
            404,
            refusal("NotFound"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FakeApi;

    #[tokio::test]
    async fn the_server_in_memory_answers_as_the_script_says() {
        let client = FakeApi::default().client();
        let settled = || std::future::ready(Ok(()));
        assert_eq!(run(&client, "ns", settled).await, Ok(()));
    }
}
