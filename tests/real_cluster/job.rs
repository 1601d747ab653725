//! Jobs as users write them, and a PCP controller plugin that does what each job says.

use crate::plugin::Plugin;
use crate::sandbox::{Sandbox, condition, pretty};
use crate::world::{Outcome, PATIENCE, fail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

/// Name of the ConfigMap with the plugin's code.
const CODE: &str = "actor";

/// A kind of ours, without our own types: a story sees what `kubectl` sees.
fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("patchbay.dev", "v1alpha1", kind))
}

/// A Job to create.
#[derive(Clone)]
pub struct Job {
    pub name: String,
    pub spec: Value,
}

impl Job {
    /// Lets plugin `actor` run a script.
    pub fn act(name: &str, script: &str) -> Job {
        let inputs = json!([{"name": "script", "value": script}]);
        Job::command(name, json!({"name": "act", "inputs": inputs}))
    }

    /// Lets plugin `actor` give back a text.
    pub fn echo(name: &str, text: &str) -> Job {
        let inputs = json!([{"name": "text", "value": text}]);
        Job::command(name, json!({"name": "echo", "inputs": inputs}))
    }

    /// Any command of plugin `actor`.
    pub fn command(name: &str, command: Value) -> Job {
        Job {
            name: name.to_owned(),
            spec: json!({"pluginRef": {"name": "actor"}, "command": command}),
        }
    }

    /// Sets a field of the spec by its path, such as `/target/client`.
    pub fn with(mut self, path: &str, value: Value) -> Job {
        let mut at = &mut self.spec;
        for key in path.trim_start_matches('/').split('/') {
            if at.is_null() {
                *at = json!({});
            }
            at = &mut at[key];
        }
        *at = value;
        self
    }

    pub fn object(&self) -> Outcome<DynamicObject> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "patchbay.dev/v1alpha1",
            "kind": "Job",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }))?)
    }
}

/// A time from now, as a Job writes it. Negative seconds lie in the past.
pub fn from_now(seconds: i64) -> Value {
    let time = k8s_openapi::jiff::Timestamp::now();
    let time = time + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
    json!(format!("{:.6}", time))
}

impl Sandbox {
    /// The Jobs of this namespace.
    pub fn jobs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.world.client.clone(), &self.name, &resource("Job"))
    }

    /// Pieces of output of this namespace.
    pub fn outputs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.world.client.clone(),
            &self.name,
            &resource("JobOutput"),
        )
    }

    /// A PCP controller plugin that does what each job says, its code in a ConfigMap.
    pub async fn actor(&self) -> Outcome<Plugin> {
        self.code(CODE, "actor.py", include_str!("../plugins/python/actor.py"))
            .await?;
        Ok(pcp_plugin("actor", CODE, "Actor"))
    }

    /// Applies the actor and waits until it is Ready.
    pub async fn with_actor(&self) -> Outcome {
        let actor = self.actor().await?;
        self.apply(&actor).await?;
        self.ready("actor").await?;
        Ok(())
    }

    /// A ConfigMap with one file of code.
    pub async fn code(&self, name: &str, file: &str, text: &str) -> Outcome {
        let code = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some([(file.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        self.api::<ConfigMap>()
            .create(&PostParams::default(), &code)
            .await?;
        Ok(())
    }

    /// Creates a Job.
    pub async fn submit(&self, job: &Job) -> Outcome {
        self.jobs()
            .create(&PostParams::default(), &job.object()?)
            .await?;
        Ok(())
    }

    /// What the API server says against a Job; the story fails when it takes it.
    pub async fn submit_refused(&self, job: &Job) -> Outcome<String> {
        match self
            .jobs()
            .create(&PostParams::default(), &job.object()?)
            .await
        {
            Ok(_) => fail!("the API server took {}", pretty(&job.spec)),
            Err(kube::Error::Api(status)) => Ok(status.message.clone()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a Job's status satisfies `wanted`; says what it was when patience ends.
    pub async fn job_until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Outcome<Value> {
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut changes = Box::pin(watcher(self.jobs(), only));
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(event) = changes.next().await {
                if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event
                {
                    last = object.data["status"].clone();
                    if wanted(&last) {
                        return true;
                    }
                }
            }
            false
        })
        .await;
        match found {
            Ok(true) => Ok(last),
            _ => fail!(
                "Job {name}: {what}: not within {PATIENCE:?}; status is {}",
                pretty(&last)
            ),
        }
    }

    /// Waits for a phase; an end that is another one fails at once.
    pub async fn job_phase(&self, name: &str, phase: &str) -> Outcome<Value> {
        let ends = ["Succeeded", "Failed", "Invalid"];
        let status = self
            .job_until(name, &format!("phase {phase}"), |status| {
                status["phase"] == phase || ends.iter().any(|end| status["phase"] == *end)
            })
            .await?;
        if status["phase"] != phase {
            fail!(
                "Job {name} should be {phase}; status is {}",
                pretty(&status)
            );
        }
        Ok(status)
    }

    /// Waits until a Job has failed for `reason`.
    pub async fn job_failed(&self, name: &str, reason: &str) -> Outcome<Value> {
        let status = self.job_phase(name, "Failed").await?;
        if condition(&status, "Failed")["reason"] != reason || status["reason"] != reason {
            fail!(
                "Job {name} should fail for {reason}; status is {}",
                pretty(&status)
            );
        }
        Ok(status)
    }

    /// What `kubectl patchbay output JOB` prints.
    pub async fn output(&self, name: &str) -> Outcome<Vec<u8>> {
        let output = tokio::process::Command::new(self.world.programs.join("kubectl-patchbay"))
            .args(["output", "-n", &self.name, name])
            .kill_on_drop(true)
            .output()
            .await?;
        if output.status.code() == Some(2) {
            fail!(
                "reading the output of {name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output.stdout)
    }

    /// Runs Python in a pod's plugin container.
    pub async fn python(&self, pod: &str, code: &str) -> Outcome {
        let command = ["exec", pod, "-c", "plugin", "--", "python3", "-c", code];
        let printed = self.world.kubectl(&self.name, &command).await?;
        if !printed.success {
            fail!("python in {pod}: {}", printed.err);
        }
        Ok(())
    }

    /// Changes a Job as `kubectl patch` would.
    pub async fn change_job(&self, name: &str, change: Value) -> Outcome {
        self.jobs()
            .patch(name, &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        Ok(())
    }
}

/// A PCP controller plugin over the Python runtime image, its code in a ConfigMap.
pub fn pcp_plugin(name: &str, code: &str, class: &str) -> Plugin {
    Plugin {
        name: name.to_owned(),
        spec: json!({
            "image": "patchbay.dev/patchbay-python:v1",
            "command": ["python3", "-m", "src.run"],
            "protocol": {"pcpController": {"port": 10000, "className": class}},
            "env": [],
            "pod": {"volumes": [{"name": "code", "configMap": {"name": code}}]},
            "volumeMounts": [{"name": "code", "mountPath": "/plugins", "readOnly": true}],
            "shutdown": {"drainSeconds": 0},
        }),
    }
}
