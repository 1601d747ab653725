//! A Plugin, an installation, and a small world in which plans come true: the API server's part of
//! applying actions, and the kubelet's part of starting containers.

use super::action::{Action, Applied, Child, ChildKind, Outcome, PatchFormat, Plan};
use super::desire::desire;
use super::observe::*;
use super::report::{Report, report};
use super::resolve::{Resolution, Resolved, resolve};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use patchbay_api::names::{CONFIG_ANNOTATION, FINALIZER};
use patchbay_api::{Plugin, PluginSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const UID: &str = "0a1b2c3d-0000-4000-8000-000000000001";

pub(crate) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn plugin() -> Plugin {
    serde_json::from_value(json!({
        "apiVersion": "patchbay.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {
            "name": "kv", "namespace": "demo", "uid": UID, "generation": 1,
            "finalizers": [FINALIZER]
        },
        "spec": {
            "image": "registry.example/kv:1.4.0",
            "command": ["/kv", "serve"],
            "args": ["--greeting=$(GREETING)"],
            "env": [{"name": "GREETING", "value": "hello"}],
            "protocol": {"goPlugin": {
                "cookie": {"key": "BASIC_PLUGIN", "value": "hello"},
                "versions": [4, 3]
            }}
        }
    }))
    .unwrap()
}

/// Makes the sample a PCP controller plugin.
pub(crate) fn controller(spec: &mut PluginSpec) {
    spec.command = vec!["patchbay-run".to_owned(), "/plugin".to_owned()];
    spec.protocol = serde_json::from_value(json!({
        "pcpController": {"port": 10000, "stage": "QA", "className": "SamplePlugin"}
    }))
    .unwrap();
}

/// What a sidecar says of a PCP controller plugin: nothing is agreed upon, commands are announced.
pub(crate) fn commanding(phase: Phase) -> Instance {
    let announced = matches!(phase, Phase::Ready | Phase::Unhealthy);
    Instance {
        handshake: None,
        services: Vec::new(),
        commands: announced
            .then(|| {
                serde_json::from_value(json!({
                    "name": "wget", "tooltip": "fetches a page", "output": true,
                    "inputs": [{"name": "address", "type": "textbox", "tooltip": "of the page"}]
                }))
                .unwrap()
            })
            .into_iter()
            .collect(),
        ..instance(phase)
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        sidecar_image: "patchbay.dev/sidecar:v1".to_owned(),
        sidecar_pull_policy: "IfNotPresent".to_owned(),
        sidecar_resources: default_sidecar_resources(),
        operator_namespace: "patchbay-system".to_owned(),
        operator_labels: BTreeMap::from([(
            "app.kubernetes.io/name".to_owned(),
            "patchbay".to_owned(),
        )]),
        installation: "11111111-2222-4333-8444-555555555555".to_owned(),
        label_prefixes: vec!["team.example/".to_owned()],
    }
}

pub(crate) fn observed() -> Observed {
    Observed {
        plugin: plugin(),
        pods: Vec::new(),
        services: Vec::new(),
        network_policies: Vec::new(),
        identity: Identity::InPlace,
        pod_events: Vec::new(),
        sessions: BTreeMap::new(),
        settings: settings(),
        now: now(),
    }
}

pub(crate) fn wanted(observed: &Observed) -> Resolved {
    match resolve(observed) {
        Resolution::Wanted(resolved) => *resolved,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn instance(phase: Phase) -> Instance {
    let handshaken = matches!(phase, Phase::Ready | Phase::Unhealthy);
    Instance {
        phase,
        reason: String::new(),
        message: String::new(),
        start_id: "00000000000000a1".to_owned(),
        started_at: Some(now()),
        restarts: 0,
        last_exit: None,
        handshake: handshaken.then(|| Handshake {
            core_version: 1,
            app_version: 4,
            offered: vec![3, 4],
            transport: "unix".to_owned(),
            tls: "None".to_owned(),
            seconds: 0.012_345,
        }),
        services: vec!["proto.KV".to_owned(), "grpc.health.v1.Health".to_owned()],
        services_omitted: 0,
        services_note: String::new(),
        commands: Vec::new(),
        commands_omitted: 0,
        revision: 1,
        next_start: None,
        warnings: Vec::new(),
    }
}

pub(crate) fn failing(reason: &str, message: &str) -> Instance {
    Instance {
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..instance(Phase::BackingOff)
    }
}

/// A world with one Plugin in it.
pub(crate) struct World {
    pub(crate) observed: Observed,
    /// Answers of the API server that differ from "done", by kind of the first action they meet.
    pub(crate) answer: Option<(ChildKind, Outcome)>,
    counter: u64,
}

impl World {
    pub(crate) fn new(change: impl FnOnce(&mut PluginSpec)) -> Self {
        let mut observed = observed();
        change(&mut observed.plugin.spec);
        Self {
            observed,
            answer: None,
            counter: 0,
        }
    }

    /// A world in which everything runs.
    pub(crate) fn running(change: impl FnOnce(&mut PluginSpec)) -> Self {
        let mut world = Self::new(change);
        world.settle();
        world
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut PluginSpec)) {
        change(&mut self.observed.plugin.spec);
        let meta = &mut self.observed.plugin.metadata;
        meta.generation = meta.generation.map(|g| g + 1);
    }

    pub(crate) fn later(&mut self, seconds: i64) {
        self.observed.now += SignedDuration::from_secs(seconds);
    }

    /// One reconcile; what it decided and said.
    pub(crate) fn pass(&mut self) -> (Plan, Report) {
        let resolution = resolve(&self.observed);
        let plan = desire(&self.observed, &resolution);
        let observed = self.observed.clone();
        let applied = self.apply(&plan);
        let report = report(&observed, &resolution, &plan, &applied);
        self.observed.plugin.status = Some(report.status.clone());
        (plan, report)
    }

    /// Passes and the kubelet's work by turns, until nothing is left to do. The last report.
    pub(crate) fn settle(&mut self) -> Report {
        for _ in 0..50 {
            let (plan, _) = self.pass();
            self.kubelet();
            if plan.actions.is_empty() {
                // Once more for the status of what the kubelet did last.
                let (plan, report) = self.pass();
                if plan.actions.is_empty() {
                    return report;
                }
                self.kubelet();
            }
        }
        panic!("no end: {:?}", self.pass().0.actions);
    }

    fn apply<'a>(&mut self, plan: &'a Plan) -> Applied<'a> {
        let mut applied = Applied::default();
        for action in &plan.actions {
            let outcome = self.outcome(action);
            let done = outcome == Outcome::Done;
            if done {
                self.carry_out(action);
            }
            applied.0.push((action, outcome));
            if !done {
                break;
            }
        }
        applied
    }

    fn outcome(&self, action: &Action) -> Outcome {
        let kind = match action {
            Action::Create(child) => child.kind(),
            Action::EnsureIdentity { .. } => ChildKind::Secret,
            _ => return Outcome::Done,
        };
        match &self.answer {
            Some((meant, outcome)) if *meant == kind => outcome.clone(),
            _ => Outcome::Done,
        }
    }

    fn carry_out(&mut self, action: &Action) {
        self.counter += 1;
        let version = Some(self.counter.to_string());
        let uid = Some(format!("uid-{}", self.counter));
        match action {
            Action::AddFinalizer => {
                self.observed.plugin.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            }
            Action::RemoveFinalizer => self.observed.plugin.metadata.finalizers = None,
            Action::EnsureIdentity { .. } => self.observed.identity = Identity::InPlace,
            Action::Create(Child::Pod(pod)) => {
                let mut pod = (**pod).clone();
                pod.metadata.uid = uid;
                pod.metadata.resource_version = version;
                pod.metadata.creation_timestamp = Some(
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.observed.now),
                );
                self.observed.pods.push(pod);
            }
            Action::Create(Child::Service(service)) => {
                let mut service = (**service).clone();
                service.metadata.uid = uid;
                service.metadata.resource_version = version;
                // What a real API server fills in.
                let spec = service.spec.get_or_insert_default();
                spec.session_affinity = Some("None".to_owned());
                spec.cluster_ip.get_or_insert("10.96.1.2".to_owned());
                self.observed.services.push(service);
            }
            Action::Create(Child::NetworkPolicy(policy)) => {
                let mut policy = (**policy).clone();
                policy.metadata.uid = uid;
                policy.metadata.resource_version = version;
                self.observed.network_policies.push(policy);
            }
            Action::DeletePod(delete) => {
                let now = self.observed.now;
                let pod = self.pod_mut(&delete.name);
                pod.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            }
            Action::Patch(patch) => {
                let body = patch.body.clone();
                match patch.kind {
                    ChildKind::Pod => {
                        assert_eq!(patch.format, PatchFormat::Strategic);
                        change(self.pod_mut(&patch.name), &body, version);
                    }
                    ChildKind::Service => {
                        let found = self.observed.services.iter_mut();
                        let found = found
                            .into_iter()
                            .find(|s| s.metadata.name.as_ref() == Some(&patch.name));
                        change(found.unwrap(), &body, version);
                    }
                    ChildKind::NetworkPolicy => {
                        change(&mut self.observed.network_policies[0], &body, version);
                    }
                    ChildKind::Secret => panic!("nobody patches Secrets"),
                }
            }
        }
    }

    pub(crate) fn pod_mut(&mut self, name: &str) -> &mut Pod {
        let pods = self.observed.pods.iter_mut();
        pods.into_iter()
            .find(|pod| pod.metadata.name.as_deref() == Some(name))
            .unwrap_or_else(|| panic!("no pod {name}"))
    }

    pub(crate) fn pod_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .observed
            .pods
            .iter()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn session(&mut self, pod: &str) -> &mut Session {
        let uid = self.pod_mut(pod).metadata.uid.clone().unwrap();
        self.observed.sessions.entry(uid).or_default()
    }

    /// What a sidecar says from now on.
    pub(crate) fn speak(&mut self, pod: &str, said: Instance) {
        *self.session(pod) = Session {
            attached: true,
            trouble: None,
            instance: Some(said),
        };
    }

    /// A pod's status, as the kubelet writes it.
    pub(crate) fn status(&mut self, pod: &str, status: Value) {
        self.pod_mut(pod).status = Some(serde_json::from_value(status).unwrap());
    }

    /// Starts what is not started, restarts what got another image, ends what was told to go. The
    /// sidecars speak.
    pub(crate) fn kubelet(&mut self) {
        self.observed
            .pods
            .retain(|pod| pod.metadata.deletion_timestamp.is_none());
        for pod in self.observed.pods.clone() {
            let name = pod.metadata.name.clone().unwrap();
            let finished = pod
                .status
                .as_ref()
                .is_some_and(|s| matches!(s.phase.as_deref(), Some("Failed")));
            if finished {
                continue;
            }
            let spec = pod.spec.as_ref().unwrap();
            let status = serde_json::to_value(&pod.status).unwrap();
            let container = |list: &str, image: &Option<String>, name: &str| {
                let before = &status[list][0];
                let same = before["image"].as_str() == image.as_deref();
                let count = before["restartCount"].as_i64().unwrap_or(-1);
                json!([{
                    "name": name, "image": image, "imageID": "", "ready": true,
                    "restartCount": if same { count } else { count + 1 },
                    "state": {"running": {}},
                }])
            };
            let init = &spec.init_containers.as_ref().unwrap()[0];
            let main = &spec.containers[0];
            self.status(&name, json!({
                "phase": "Running",
                "podIP": "10.244.0.7",
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": container("initContainerStatuses", &init.image, "sidecar"),
                "containerStatuses": container("containerStatuses", &main.image, "plugin"),
            }));
            let config: Value = serde_json::from_str(
                &pod.metadata.annotations.as_ref().unwrap()[CONFIG_ANNOTATION],
            )
            .unwrap();
            self.speak(
                &name,
                Instance {
                    revision: config["revision"].as_u64().unwrap(),
                    ..instance(Phase::Ready)
                },
            );
        }
    }
}

/// A patch as an API server reads it: objects merge, null removes, containers go by name.
fn change<K: serde::Serialize + serde::de::DeserializeOwned>(
    object: &mut K,
    body: &Value,
    version: Option<String>,
) {
    let mut value = serde_json::to_value(&*object).unwrap();
    for field in ["uid", "resourceVersion"] {
        assert_eq!(
            value["metadata"][field], body["metadata"][field],
            "precondition"
        );
    }
    merge(&mut value, body);
    value["metadata"]["resourceVersion"] = version.into();
    *object = serde_json::from_value(value).unwrap();
}

fn merge(into: &mut Value, from: &Value) {
    let (Some(object), Some(changes)) = (into.as_object_mut(), from.as_object()) else {
        *into = from.clone();
        return;
    };
    for (key, change) in changes {
        match (key.as_str(), change) {
            (_, Value::Null) => {
                object.remove(key);
            }
            ("initContainers" | "containers", Value::Array(list)) => {
                for item in list {
                    let known = object[key].as_array_mut().unwrap();
                    let same = known.iter_mut().find(|c| c["name"] == item["name"]);
                    merge(same.unwrap(), item);
                }
            }
            _ => merge(object.entry(key).or_insert(json!({})), change),
        }
    }
}
