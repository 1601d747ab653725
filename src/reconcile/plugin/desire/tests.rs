//! Stories: what is done, in which order, and that it ends.

use crate::plugin::action::{Action, Applied, Child, ChildKind, Plan};
use crate::plugin::change::{Built, Change, Container};
use crate::plugin::observe::{Identity, Phase};
use crate::plugin::samples::{World, instance};
use crate::plugin::{desire, report, resolve};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use patchbay_api::Reason;
use patchbay_api::names::BUILT_ANNOTATION;
use patchbay_api::plugin::{Replacement, SidecarUpdate, Strategy};
use proptest::prop_oneof;
use serde_json::json;

fn names(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|action| match action {
            Action::AddFinalizer => "add finalizer".to_owned(),
            Action::RemoveFinalizer => "remove finalizer".to_owned(),
            Action::EnsureIdentity { secret } => format!("identity {secret}"),
            Action::Create(child) => format!("create {} {}", child.kind().as_str(), child.name()),
            Action::Patch(patch) => format!(
                "patch {} {} {}",
                patch.kind.as_str(),
                patch.name,
                patch.why.reason
            ),
            Action::DeletePod(delete) => format!("delete {}", delete.name),
        })
        .collect()
}

fn built(world: &mut World, pod: &str) -> Built {
    let annotations = world.pod_mut(pod).metadata.annotations.clone().unwrap();
    Built::read(annotations.get(BUILT_ANNOTATION).map(String::as_str)).unwrap()
}

fn not_ready(world: &mut World, pod: &str) {
    let mut status = serde_json::to_value(&world.pod_mut(pod).status).unwrap();
    status["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    world.status(pod, status);
    world.speak(pod, instance(Phase::Starting));
}

#[test]
fn network_policy_is_created_before_the_pods() {
    let mut world = World::new(|s| s.replicas = 2);
    world.observed.plugin.metadata.finalizers = None;
    world.observed.identity = Identity::Unknown;
    assert_eq!(names(&world.pass().0), ["add finalizer"]);
    assert_eq!(
        names(&world.pass().0),
        [
            "create NetworkPolicy pb-net-kv",
            "create Service kv",
            "create Service kv-pods",
            "identity pb-id-kv",
            "create Pod kv-0-1",
            "create Pod kv-1-1",
        ]
    );
}

#[test]
fn reconcile_of_a_settled_plugin_does_nothing() {
    let mut world = World::running(|s| s.replicas = 3);
    let status = world.observed.plugin.status.clone();
    world.later(3600);
    for _ in 0..2 {
        let (plan, report) = world.pass();
        assert_eq!(names(&plan), Vec::<String>::new());
        assert_eq!(Some(report.status), status);
        assert!(report.events.is_empty(), "{:?}", report.events);
        assert_eq!(report.wake_at, None);
    }
}

#[test]
fn fields_that_are_set_by_others_are_kept() {
    let mut world = World::running(|_| {});
    let pod = world.pod_mut("kv-0-1");
    let spec = pod.spec.as_mut().unwrap();
    spec.containers[0].image = Some("mirror.example/kv:1.4.0".into());
    spec.containers.push(spec.containers[0].clone());
    spec.priority = Some(7);
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
}

#[test]
fn changed_network_policy_is_restored() {
    let mut world = World::running(|_| {});
    let spec = world.observed.network_policies[0].spec.as_mut().unwrap();
    spec.ingress = None;
    let labels = spec
        .pod_selector
        .as_mut()
        .unwrap()
        .match_labels
        .as_mut()
        .unwrap();
    labels.insert("nobody".into(), "has this".into());
    assert_eq!(
        names(&world.pass().0),
        ["patch NetworkPolicy pb-net-kv Updating"]
    );
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
}

#[test]
fn changed_service_port_replaces_the_old_port() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.service.port = 80);
    assert_eq!(names(&world.pass().0), ["patch Service kv Updating"]);
    let ports = world.observed.services[0]
        .spec
        .clone()
        .unwrap()
        .ports
        .unwrap();
    assert_eq!(ports.iter().map(|p| p.port).collect::<Vec<_>>(), [80]);
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
}

#[test]
fn scale_down_deletes_the_highest_ordinals() {
    let mut world = World::running(|s| s.replicas = 3);
    world.edit(|s| s.replicas = 1);
    assert_eq!(names(&world.pass().0), ["delete kv-1-1", "delete kv-2-1"]);
    world.settle();
    assert_eq!(world.pod_names(), ["kv-0-1"]);
}

#[test]
fn a_failed_pod_is_replaced_and_its_name_is_never_used_again() {
    let mut world = World::running(|_| {});
    world.later(60);
    world.status(
        "kv-0-1",
        json!({"phase": "Failed", "reason": "Evicted", "message": "out of disk"}),
    );
    assert_eq!(
        names(&world.pass().0),
        ["delete kv-0-1", "create Pod kv-0-2"]
    );
    world.kubelet();
    world.settle();
    world.later(60);
    world.observed.pods.clear();
    assert_eq!(names(&world.pass().0), ["create Pod kv-0-3"]);
}

#[test]
fn pod_that_fails_at_once_is_replaced_after_a_delay() {
    let mut world = World::running(|_| {});
    world.later(5);
    world.status(
        "kv-0-1",
        json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}),
    );
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), Vec::<String>::new());
    let wake = report.wake_at.unwrap();
    assert!(wake > world.observed.now);
    world.observed.now = wake;
    assert_eq!(
        names(&world.pass().0),
        ["delete kv-0-1", "create Pod kv-0-2"]
    );
}

#[test]
fn when_gone_creates_the_new_pod_after_the_old_one_is_gone() {
    let mut world = World::running(|s| s.update.replacement = Replacement::WhenGone);
    world.edit(|s| s.command.push("-v".into()));
    assert_eq!(names(&world.pass().0), ["delete kv-0-1"]);
    assert_eq!(
        names(&world.pass().0),
        Vec::<String>::new(),
        "it still runs out its grace"
    );
    world.kubelet();
    assert_eq!(names(&world.pass().0), ["create Pod kv-0-2"]);
}

#[test]
fn when_terminating_creates_the_new_pod_at_once() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.command.push("-v".into()));
    assert_eq!(names(&world.pass().0), ["delete kv-0-1"]);
    assert_eq!(names(&world.pass().0), ["create Pod kv-0-2"]);
}

#[test]
fn replicas_are_replaced_one_at_a_time() {
    let mut world = World::running(|s| s.replicas = 3);
    world.edit(|s| s.command.push("-v".into()));
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), ["delete kv-0-1"]);
    let update = report.status.update.unwrap();
    assert_eq!((update.change.as_str(), update.swapped), ("ReplacePod", 0));
    assert_eq!(
        (update.from.as_str(), update.to.as_str()),
        ("generation 1", "generation 2")
    );
    assert_eq!(names(&world.pass().0), ["create Pod kv-0-2"]);
    assert_eq!(
        names(&world.pass().0),
        Vec::<String>::new(),
        "the successor is not ready"
    );
    world.kubelet();
    assert_eq!(names(&world.pass().0), ["delete kv-1-1"]);
    let report = world.settle();
    assert_eq!(world.pod_names(), ["kv-0-2", "kv-1-2", "kv-2-2"]);
    let update = report.status.update.unwrap();
    assert_eq!(update.swapped, 3);
    assert!(update.finished_at.is_some());
}

#[test]
fn replica_that_is_not_ready_is_updated_without_waiting() {
    let mut world = World::running(|s| s.replicas = 2);
    not_ready(&mut world, "kv-1-1");
    world.edit(|s| s.command.push("-v".into()));
    assert_eq!(names(&world.pass().0), ["delete kv-1-1"]);
}

#[test]
fn live_settings_reach_every_pod_at_once() {
    let mut world = World::running(|s| s.replicas = 2);
    world.edit(|s| s.health.period_seconds = 1);
    let (plan, report) = world.pass();
    assert_eq!(
        names(&plan),
        ["patch Pod kv-0-1 Updating", "patch Pod kv-1-1 Updating"]
    );
    assert_eq!(report.status.update.unwrap().change, "Live");
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
}

#[test]
fn plugin_restart_waits_until_the_previous_replica_is_ready() {
    let mut world = World::running(|s| s.replicas = 2);
    world.edit(|s| s.protocol.go_plugin.as_mut().unwrap().versions = vec![5]);
    assert_eq!(names(&world.pass().0), ["patch Pod kv-0-1 Updating"]);
    // The kubelet still calls it ready and its sidecar has not taken the configuration over.
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
    world.kubelet();
    assert_eq!(names(&world.pass().0), ["patch Pod kv-1-1 Updating"]);
    world.settle();
}

#[test]
fn session_gets_the_configuration_after_the_annotation_is_written() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.health.period_seconds = 1);
    let (plan, _) = world.pass();
    assert_eq!(
        (
            plan.session_targets[0].revision,
            plan.session_targets[0].allow_start
        ),
        (1, true)
    );
    let (plan, _) = world.pass();
    assert_eq!(plan.session_targets[0].revision, 2);
    assert!(
        plan.session_targets[0]
            .config
            .contains("\"periodSeconds\":1")
    );
}

#[test]
fn new_image_is_patched_on_the_running_pod() {
    let mut world = World::running(|_| {});
    world.edit(|s| {
        s.image = "registry.example/kv:2".into();
        s.protocol.go_plugin.as_mut().unwrap().versions = vec![5];
    });
    let (plan, report) = world.pass();
    let Action::Patch(patch) = &plan.actions[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(patch.kind, ChildKind::Pod);
    assert_eq!(
        patch.body["spec"],
        json!({"containers": [{"name": "plugin", "image": "registry.example/kv:2"}]})
    );
    assert_eq!(report.status.update.unwrap().to, "registry.example/kv:2");
    world.settle();
    let built = built(&mut world, "kv-0-1");
    assert_eq!(
        (built.plugin.as_str(), built.swap, built.failed),
        ("registry.example/kv:2", None, None)
    );
    assert_eq!(world.pod_names(), ["kv-0-1"]);
}

#[test]
fn new_image_is_rolled_back_once_when_it_does_not_become_ready() {
    let mut world = World::running(|s| s.replicas = 2);
    world.edit(|s| s.image = "registry.example/kv:bad".into());
    assert_eq!(names(&world.pass().0), ["patch Pod kv-0-1 Swapped"]);
    not_ready(&mut world, "kv-0-1");
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), Vec::<String>::new());
    world.observed.now = report.wake_at.unwrap();
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), ["patch Pod kv-0-1 SwapFailed"]);
    assert!(
        report
            .events
            .iter()
            .any(|e| e.warning && e.reason == Reason::SwapFailed)
    );
    world.kubelet();
    let report = world.settle();
    let first = built(&mut world, "kv-0-1");
    assert_eq!(first.plugin, "registry.example/kv:1.4.0");
    assert_eq!(first.failed.map(|f| f.container), Some(Container::Plugin));
    assert_eq!(
        built(&mut world, "kv-1-1").plugin,
        "registry.example/kv:1.4.0"
    );
    let degraded = report
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == "Degraded")
        .unwrap();
    assert_eq!(degraded.reason, "SwapFailed");
    assert_eq!(report.status.update.unwrap().failed, 1);

    world.edit(|s| s.image = "registry.example/kv:good".into());
    let report = world.settle();
    assert_eq!(
        built(&mut world, "kv-1-1").plugin,
        "registry.example/kv:good"
    );
    assert!(
        report
            .status
            .conditions
            .iter()
            .all(|c| c.type_ != "Degraded")
    );
    assert_eq!(report.status.updated_replicas, 2);
}

#[test]
fn next_image_is_applied_before_the_deadline_of_a_bad_one() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.image = "registry.example/kv:bad".into());
    world.pass();
    not_ready(&mut world, "kv-0-1");
    world.edit(|s| s.image = "registry.example/kv:good".into());
    assert_eq!(names(&world.pass().0), ["patch Pod kv-0-1 Swapped"]);
    world.kubelet();
    world.settle();
    assert_eq!(
        built(&mut world, "kv-0-1").plugin,
        "registry.example/kv:good"
    );
}

#[test]
fn replace_strategy_replaces_the_pod_for_a_new_image() {
    let mut world = World::running(|s| s.update.strategy = Strategy::Replace);
    world.edit(|s| s.image = "registry.example/kv:2".into());
    world.settle();
    assert_eq!(world.pod_names(), ["kv-0-2"]);
}

#[test]
fn sidecars_are_swapped_one_at_a_time() {
    let mut world = World::running(|s| s.replicas = 3);
    world.observed.settings.sidecar_image = "patchbay.dev/sidecar:v2".into();
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), ["patch Pod kv-0-1 Swapped"]);
    let Action::Patch(patch) = &plan.actions[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        patch.body["spec"],
        json!({"initContainers": [{"name": "sidecar", "image": "patchbay.dev/sidecar:v2"}]})
    );
    assert_eq!(
        report.status.update.unwrap().change,
        Change::SidecarSwap.as_str()
    );
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
    let report = world.settle();
    assert_eq!(report.status.updated_replicas, 3);
    let current = report
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == "SidecarCurrent")
        .unwrap();
    assert_eq!(current.status, "True");
}

#[test]
fn sidecar_swap_is_kept_when_the_plugin_was_not_ready_before() {
    let mut world = World::running(|_| {});
    not_ready(&mut world, "kv-0-1");
    world.observed.settings.sidecar_image = "patchbay.dev/sidecar:v2".into();
    assert_eq!(names(&world.pass().0), ["patch Pod kv-0-1 Swapped"]);
    world.kubelet();
    not_ready(&mut world, "kv-0-1");
    world.later(10_000);
    assert_eq!(names(&world.pass().0), ["patch Pod kv-0-1 Swapped"]);
    let built = built(&mut world, "kv-0-1");
    assert_eq!(
        (built.sidecar.as_str(), built.failed),
        ("patchbay.dev/sidecar:v2", None)
    );
}

#[test]
fn manual_sidecar_update_keeps_the_sidecar_and_reports_it() {
    let mut world = World::running(|s| s.update.sidecar = SidecarUpdate::Manual);
    world.observed.settings.sidecar_image = "patchbay.dev/sidecar:v2".into();
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), Vec::<String>::new());
    let current = report
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == "SidecarCurrent")
        .unwrap();
    assert_eq!(
        (current.status.as_str(), current.reason.as_str()),
        ("False", "SidecarOutdated")
    );
}

#[test]
fn deletion_removes_the_finalizer_after_the_pods_are_gone() {
    let mut world = World::running(|s| s.replicas = 2);
    world.observed.plugin.metadata.deletion_timestamp = Some(Time(world.observed.now));
    let (plan, report) = world.pass();
    assert_eq!(names(&plan), ["delete kv-0-1", "delete kv-1-1"]);
    assert!(!plan.session_targets.is_empty());
    let ready = report
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .unwrap();
    assert_eq!(ready.reason, "Deleting");
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
    world.kubelet();
    assert_eq!(names(&world.pass().0), ["remove finalizer"]);
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
}

#[test]
fn deletion_uses_the_grace_period_of_the_current_settings() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.shutdown.term_seconds = 100);
    world.settle();
    world.edit(|s| s.replicas = 0);
    let (plan, _) = world.pass();
    let Action::DeletePod(delete) = &plan.actions[0] else {
        panic!("{plan:?}")
    };
    assert_eq!(delete.grace_seconds, Some(5 + 5 + 2 + 100 + 10));
}

#[test]
fn pods_of_other_owners_are_never_changed() {
    let mut world = World::running(|_| {});
    let mut foreign = world.pod_mut("kv-0-1").clone();
    foreign.metadata.name = Some("somebody".into());
    foreign.metadata.uid = Some("theirs".into());
    foreign.metadata.owner_references = None;
    world.observed.pods.push(foreign);
    assert_eq!(names(&world.pass().0), Vec::<String>::new());
    world.observed.plugin.metadata.deletion_timestamp = Some(Time(world.observed.now));
    assert_eq!(names(&world.pass().0), ["delete kv-0-1"]);
}

#[test]
fn reconcile_continues_after_a_crash_between_any_two_writes() {
    // Every prefix of the first plan, carried out and forgotten.
    for done in 0..6 {
        let mut world = World::new(|_| {});
        let (plan, _) = {
            let mut other = World::new(|_| {});
            other.pass()
        };
        for action in plan.actions.iter().take(done) {
            let Action::Create(child) = action else {
                continue;
            };
            match child {
                Child::NetworkPolicy(p) => world.observed.network_policies.push((**p).clone()),
                Child::Service(s) => world.observed.services.push((**s).clone()),
                Child::Pod(p) => {
                    let mut pod = (**p).clone();
                    pod.metadata.uid = Some("uid-of-before".into());
                    world.observed.pods.push(pod);
                }
            }
        }
        let report = world.settle();
        assert_eq!(world.pod_names(), ["kv-0-1"], "after {done} writes");
        assert_eq!(report.status.ready.as_deref(), Some("1/1"));
    }
}

/// Decides and reports without carrying anything out.
fn decide(world: &World) {
    let observed = &world.observed;
    let resolution = resolve(observed);
    let plan = desire(observed, &resolution);
    report(observed, &resolution, &plan, &Applied::default());
}

/// Seconds of every time that the API server accepts, the first and the last ones often.
fn any_second() -> impl proptest::strategy::Strategy<Value = i64> {
    const FIRST: i64 = -377_705_023_201;
    const LAST: i64 = 253_402_207_200;
    prop_oneof![FIRST..=LAST, FIRST..=FIRST + 100, LAST - 100..=LAST]
}

proptest::proptest! {
    /// Everybody who may patch pods of one namespace writes this annotation; a panic would stop the operator
    /// for all of them.
    #[test]
    fn plan_is_made_whatever_the_built_annotation_of_a_pod_says(
        seconds in any_second(),
        created in any_second(),
        restarts: i32,
        worked: bool,
        ready: bool,
        container in proptest::sample::select(vec!["sidecar", "plugin"]),
        image in proptest::sample::select(vec!["registry.example/kv:1.4.0", "other"]),
        deadline in 5..=86_400_i32,
    ) {
        let mut world = World::running(|s| s.update.progress_deadline_seconds = deadline);
        if !ready {
            not_ready(&mut world, "kv-0-1");
        }
        let built = serde_json::to_value(built(&mut world, "kv-0-1")).unwrap();
        let at = jiff::Timestamp::from_second(seconds).unwrap();
        let mut changed = built;
        changed["plugin"] = json!(image);
        changed["swap"] = json!({
            "container": container, "from": "x", "at": at, "restarts": restarts, "worked": worked,
        });
        let pod = world.pod_mut("kv-0-1");
        let created = jiff::Timestamp::from_second(created).unwrap();
        pod.metadata.creation_timestamp = Some(Time(created));
        let annotations = pod.metadata.annotations.as_mut().unwrap();
        annotations.insert(BUILT_ANNOTATION.to_owned(), changed.to_string());
        decide(&world);
    }

    #[test]
    fn plan_is_made_whatever_stands_in_the_annotations_of_a_pod(built: String, config: String) {
        let mut world = World::running(|_| {});
        let annotations = world.pod_mut("kv-0-1").metadata.annotations.as_mut().unwrap();
        annotations.insert(BUILT_ANNOTATION.to_owned(), built);
        annotations.insert(patchbay_api::names::CONFIG_ANNOTATION.to_owned(), config);
        decide(&world);
    }
}
