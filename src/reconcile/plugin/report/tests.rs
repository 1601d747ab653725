//! Stories: what a user reads for each kind of trouble.

use crate::plugin::action::{ChildKind, Outcome};
use crate::plugin::observe::{Exit, ExitHow, Identity, Phase, PodEvent, Session};
use crate::plugin::report::Report;
use crate::plugin::samples::{World, commanding, controller, failing, instance};
use k8s_openapi::api::core::v1::Service;
use patchbay_api::plugin_status::{InstanceState, MAX_MESSAGE};
use patchbay_api::{PluginStatus, Reason};
use serde_json::{Value, json};

fn find<'a>(status: &'a PluginStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|c| c.type_ == type_);
    let c = found.unwrap_or_else(|| panic!("no condition {type_}: {:?}", status.conditions));
    (&c.status, &c.reason, &c.message)
}

fn warnings(report: &Report) -> Vec<&str> {
    let events = report.events.iter().filter(|e| e.warning);
    events.map(|e| e.reason.as_str()).collect()
}

/// The first pod exists and the kubelet says this of it.
fn pod_says(status: Value) -> (World, Report) {
    let mut world = World::new(|_| {});
    world.pass();
    world.status("kv-0-1", status);
    let (_, report) = world.pass();
    (world, report)
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({
        "phase": "Pending",
        "initContainerStatuses": [{
            "name": "sidecar", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"running": {}}
        }],
        "containerStatuses": [{
            "name": "plugin", "image": "", "imageID": "", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 127, "reason": "Error"}}
        }]
    })
}

#[test]
fn status_of_a_healthy_plugin_matches_the_snapshot() {
    let report = {
        let mut world = World::running(|s| s.replicas = 2);
        world.pass().1
    };
    insta::assert_yaml_snapshot!(report.status);
}

#[test]
fn conditions_are_unknown_before_the_first_observation() {
    let mut world = World::new(|_| {});
    let (_, report) = world.pass();
    for type_ in ["Handshaken", "SidecarCurrent", "Ready"] {
        let (status, reason, _) = find(&report.status, type_);
        assert_eq!((status, reason), ("Unknown", "Pending"), "{type_}");
    }
    assert_eq!(find(&report.status, "Accepted").0, "True");
    assert!(
        report
            .status
            .conditions
            .iter()
            .all(|c| c.type_ != "Degraded")
    );
}

#[test]
fn rejected_cookie_is_reported_with_the_next_move() {
    let mut world = World::running(|_| {});
    world.speak(
        "kv-0-1",
        failing(
            "CookieRejected",
            "the cookie BASIC_PLUGIN is missing or has another value",
        ),
    );
    let (_, report) = world.pass();
    let (status, reason, message) = find(&report.status, "Ready");
    assert_eq!((status, reason), ("False", "CookieRejected"));
    assert!(
        message.contains("pod kv-0-1: the cookie BASIC_PLUGIN"),
        "{message}"
    );
    assert!(
        message.ends_with("Next move: the author of this Plugin."),
        "{message}"
    );
    assert_eq!(find(&report.status, "Handshaken").0, "False");
    assert_eq!(report.status.ready.as_deref(), Some("0/1"));
    assert_eq!(warnings(&report), ["CookieRejected"]);
    let (_, again) = world.pass();
    assert!(again.events.is_empty(), "said once: {:?}", again.events);
}

#[test]
fn every_reason_of_a_sidecar_reaches_the_condition() {
    for word in patchbay_protocol::reason::Reason::ALL {
        let mut world = World::running(|_| {});
        world.speak("kv-0-1", failing(word.as_str(), "as it was found"));
        let (_, report) = world.pass();
        let (status, reason, message) = find(&report.status, "Ready");
        assert_eq!((status, reason), ("False", word.as_str()));
        assert!(message.contains("as it was found"), "{message}");
    }
}

#[test]
fn unknown_reason_of_a_newer_sidecar_is_kept_in_the_message() {
    let mut world = World::running(|_| {});
    world.speak("kv-0-1", failing("FluxCapacitorEmpty", "refuel"));
    let (_, report) = world.pass();
    let (_, reason, message) = find(&report.status, "Ready");
    assert_eq!(reason, "UnknownReason");
    assert!(message.contains("FluxCapacitorEmpty: refuel"), "{message}");
}

#[test]
fn failed_image_pull_is_reported() {
    let words = "Back-off pulling image \"registry.example/kv:1.4.0\": ErrImagePull: not found";
    let (mut world, report) = pod_says(waiting("ImagePullBackOff", words));
    let (_, reason, message) = find(&report.status, "Ready");
    assert_eq!(reason, "ImagePullFailed");
    assert!(
        message.contains("registry.example/kv:1.4.0 cannot be pulled: not found"),
        "{message}"
    );
    assert_eq!(warnings(&report), ["ImagePullFailed"]);
    // The kubelet's other wording of the same.
    world.status("kv-0-1", waiting("ErrImagePull", "not found"));
    assert_eq!(world.pass().1.status, report.status);
    // The sidecar beside it is up and can only say that it waits.
    world.speak("kv-0-1", instance(Phase::WaitingForLauncher));
    assert_eq!(find(&world.pass().1.status, "Ready").1, "ImagePullFailed");
}

#[test]
fn missing_identity_is_reported_as_waiting_without_a_warning() {
    let words = "secret \"pb-id-kv\" not found";
    let (_, report) = pod_says(waiting("CreateContainerConfigError", words));
    assert_eq!(find(&report.status, "Ready").1, "WaitingForIdentity");
    assert_eq!(find(&report.status, "ResolvedRefs").0, "True");
    assert!(warnings(&report).is_empty());
}

#[test]
fn messages_of_the_kubelet_become_reasons() {
    let table = [
        (
            waiting("CreateContainerConfigError", "secret \"token\" not found"),
            "SecretMissing",
            "the Secret token",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "configmap \"settings\" not found",
            ),
            "ConfigMapMissing",
            "the ConfigMap settings",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "couldn't find key a in Secret demo/token",
            ),
            "KeyMissing",
            "lacks a key",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root",
            ),
            "ContainerConfigError",
            "runAsNonRoot",
        ),
        (
            waiting("CreateContainerError", "no such runtime"),
            "ContainerStartFailed",
            "no such runtime",
        ),
        (
            waiting("CrashLoopBackOff", "back-off"),
            "ContainerCrashed",
            "ended 4 times, at last with exit code 127",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/1 nodes are available"}]}),
            "Unschedulable",
            "0/1 nodes are available",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "disk\npressure"}),
            "PodFailed",
            "it is Failed (Evicted): disk\\npressure",
        ),
    ];
    for (status, expected, words) in table {
        let (_, report) = pod_says(status);
        let line = &report.status.instances[0];
        assert_eq!(line.reason, expected);
        assert!(line.message.contains(words), "{}", line.message);
    }
}

#[test]
fn missing_secret_is_reported_in_resolved_refs() {
    let (_, report) = pod_says(waiting(
        "CreateContainerConfigError",
        "secret \"token\" not found",
    ));
    let (status, reason, message) = find(&report.status, "ResolvedRefs");
    assert_eq!((status, reason), ("False", "SecretMissing"));
    assert!(message.contains("token"), "{message}");
}

#[test]
fn failed_mount_is_read_from_pod_events() {
    let mut world = World::new(|_| {});
    world.pass();
    let pod_uid = world.pod_mut("kv-0-1").metadata.uid.clone().unwrap();
    world.observed.pod_events.push(PodEvent {
        pod_uid,
        reason: "FailedMount".into(),
        message:
            "MountVolume.SetUp failed for volume \"settings\" : configmap \"settings\" not found"
                .into(),
    });
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "ResolvedRefs").1, "ConfigMapMissing");
    assert_eq!(find(&report.status, "Ready").1, "ConfigMapMissing");
}

#[test]
fn object_of_another_owner_is_never_changed() {
    let mut world = World::new(|_| {});
    let mut foreign = Service::default();
    foreign.metadata.name = Some("kv".into());
    foreign.metadata.uid = Some("theirs".into());
    world.observed.services.push(foreign);
    let (plan, report) = world.pass();
    assert!(plan.actions.is_empty());
    let (status, reason, message) = find(&report.status, "Accepted");
    assert_eq!((status, reason), ("False", "NameTaken"));
    assert!(message.contains("a Service kv exists"), "{message}");
    assert_eq!(find(&report.status, "Ready").1, "NameTaken");
    assert_eq!(warnings(&report), ["NameTaken"]);
}

#[test]
fn name_taken_is_reported_when_only_the_api_server_knows() {
    for (kind, words) in [
        (ChildKind::Service, "a Service kv exists"),
        (ChildKind::NetworkPolicy, "a NetworkPolicy pb-net-kv exists"),
        (ChildKind::Secret, "a Secret pb-id-kv exists"),
        (ChildKind::Pod, "a Pod kv-0-1 exists"),
    ] {
        let mut world = World::new(|_| {});
        world.observed.identity = Identity::Unknown;
        world.answer = Some((kind, Outcome::Taken));
        let (_, report) = world.pass();
        let (_, reason, message) = find(&report.status, "Accepted");
        assert_eq!(reason, "NameTaken");
        assert!(message.contains(words), "{message}");
        let (_, again) = world.pass();
        assert_eq!(again.status, report.status);
        assert_eq!(warnings(&again), Vec::<&str>::new());
    }
}

#[test]
fn refused_pod_is_reported_with_the_message_of_the_api_server() {
    let mut world = World::new(|_| {});
    let message = "pods \"kv-0-1\" is forbidden: exceeded quota\n".to_owned();
    world.answer = Some((ChildKind::Pod, Outcome::Refused { message }));
    let (_, report) = world.pass();
    let (status, reason, message) = find(&report.status, "Ready");
    assert_eq!((status, reason), ("False", "PodRefused"));
    assert!(message.contains("exceeded quota\\n"), "{message}");
}

#[test]
fn temporary_failure_does_not_change_the_status() {
    let mut world = World::running(|_| {});
    let before = world.observed.plugin.status.clone();
    world.edit(|s| s.service.port = 80);
    world.answer = Some((
        ChildKind::Service,
        Outcome::Failed {
            message: "timeout".into(),
        },
    ));
    world.observed.services.clear();
    let (_, report) = world.pass();
    let words = |status: &PluginStatus| -> Vec<_> {
        status
            .conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone()))
            .collect()
    };
    assert_eq!(words(&report.status), words(&before.unwrap()));
}

#[test]
fn label_that_is_not_allowed_is_reported() {
    let mut world = World::new(|s| {
        s.pod.labels.insert("other.example/a".into(), "b".into());
    });
    let (_, report) = world.pass();
    let (_, reason, message) = find(&report.status, "Accepted");
    assert_eq!(reason, "LabelNotAllowed");
    assert!(
        message.contains("other.example/a") && message.contains("team.example/"),
        "{message}"
    );
}

#[test]
fn status_is_kept_when_the_operator_has_restarted() {
    let mut world = World::running(|_| {});
    let before = world.observed.plugin.status.clone().unwrap();
    world.observed.sessions.clear();
    let (_, report) = world.pass();
    assert_eq!(report.status, before);
    assert!(report.events.is_empty());
}

#[test]
fn lost_session_of_a_ready_replica_is_reported_as_degraded() {
    let mut world = World::running(|_| {});
    *world.session("kv-0-1") = Session {
        attached: false,
        trouble: Some("connection refused".into()),
        instance: Some(instance(Phase::Ready)),
    };
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Ready").0, "True");
    let (_, reason, message) = find(&report.status, "Degraded");
    assert_eq!(reason, "SessionLost");
    assert!(message.contains("connection refused"), "{message}");
    world.speak("kv-0-1", instance(Phase::Ready));
    let (_, report) = world.pass();
    assert!(
        report
            .status
            .conditions
            .iter()
            .all(|c| c.type_ != "Degraded")
    );
}

#[test]
fn ready_needs_both_the_sidecar_and_the_kubelet() {
    let mut world = World::running(|_| {});
    world.speak("kv-0-1", instance(Phase::Unhealthy));
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Ready").1, "Unhealthy");
    assert_eq!(find(&report.status, "Handshaken").0, "True");
    let mut status = serde_json::to_value(&world.pod_mut("kv-0-1").status).unwrap();
    status["conditions"] = json!([]);
    world.status("kv-0-1", status);
    world.speak("kv-0-1", instance(Phase::Ready));
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Ready").1, "Starting");
    assert_eq!(find(&report.status, "Handshaken").0, "True");
}

#[test]
fn crash_loop_is_reported_as_degraded_from_the_third_restart() {
    let mut world = World::running(|_| {});
    let mut crashed = failing("Crashed", "the plugin ended with signal 11");
    crashed.last_exit = Some(Exit {
        how: ExitHow::Signal(11),
        ended_by: "Itself".into(),
    });
    crashed.restarts = 2;
    world.speak("kv-0-1", crashed.clone());
    assert!(
        world
            .pass()
            .1
            .status
            .conditions
            .iter()
            .all(|c| c.type_ != "Degraded")
    );
    crashed.restarts = 3;
    world.speak("kv-0-1", crashed);
    let (_, report) = world.pass();
    let (_, reason, message) = find(&report.status, "Degraded");
    assert_eq!(reason, "CrashLoop");
    assert!(message.contains("started 4 times"), "{message}");
    assert_eq!(
        report.status.instances[0].last_exit.as_deref(),
        Some("signal 11")
    );
}

#[test]
fn restart_of_the_process_causes_one_event() {
    let mut world = World::running(|_| {});
    let mut again = instance(Phase::Ready);
    again.start_id = "00000000000000a2".into();
    again.restarts = 1;
    again.last_exit = Some(Exit {
        how: ExitHow::Code(3),
        ended_by: "Itself".into(),
    });
    world.speak("kv-0-1", again);
    let (_, report) = world.pass();
    let told: Vec<_> = report.events.iter().map(|e| e.reason).collect();
    assert_eq!(told, [Reason::Restarted]);
    assert!(
        report.events[0].message.contains("exit 3"),
        "{:?}",
        report.events
    );
    assert!(world.pass().1.events.is_empty());
}

#[test]
fn transition_time_changes_only_with_the_condition_status() {
    let mut world = World::running(|_| {});
    let at = |report: &Report, type_: &str| {
        let found = report
            .status
            .conditions
            .iter()
            .find(|c| c.type_ == type_)
            .cloned();
        found.unwrap().last_transition_time
    };
    let (_, first) = world.pass();
    world.later(100);
    world.speak("kv-0-1", failing("Crashed", "a"));
    let (_, second) = world.pass();
    assert_ne!(at(&first, "Ready"), at(&second, "Ready"));
    assert_eq!(at(&first, "Accepted"), at(&second, "Accepted"));
    world.later(100);
    world.speak("kv-0-1", failing("Unhealthy", "b"));
    let (_, third) = world.pass();
    assert_eq!(at(&second, "Ready"), at(&third, "Ready"));
}

#[test]
fn the_worst_instance_comes_first_and_the_list_is_bounded() {
    let mut world = World::running(|s| {
        s.replicas = 200;
        s.update.max_unavailable = 200;
    });
    world.speak("kv-150-1", failing("Crashed", "it ended"));
    let (_, report) = world.pass();
    assert_eq!(report.status.instances[0].pod, "kv-150-1");
    assert_eq!(report.status.instances[0].state, InstanceState::BackingOff);
    assert_eq!(report.status.instances.len(), 200);
    assert_eq!(find(&report.status, "Degraded").1, "PartlyReady");
    // Old pods on their way out beside all of their successors.
    world.edit(|s| s.command.push("-v".into()));
    world.pass();
    world.pass();
    let (_, report) = world.pass();
    assert_eq!(report.status.instances.len(), 200);
    assert_eq!(report.status.instances_omitted, 200);
}

#[test]
fn messages_never_exceed_their_limits() {
    let mut world = World::running(|_| {});
    world.speak("kv-0-1", failing("Crashed", &"ä".repeat(5000)));
    let (_, report) = world.pass();
    for condition in &report.status.conditions {
        assert!(
            condition.message.len() <= MAX_MESSAGE,
            "{}",
            condition.type_
        );
    }
    for event in &report.events {
        assert!(event.message.len() <= MAX_MESSAGE);
    }
    assert!(report.status.instances[0].message.len() <= MAX_MESSAGE);
}

#[test]
fn zero_replicas_are_reported_as_scaled_to_zero() {
    let mut world = World::running(|_| {});
    world.edit(|s| s.replicas = 0);
    let report = world.settle();
    assert_eq!(find(&report.status, "Ready").1, "ScaledToZero");
    assert_eq!(report.status.ready.as_deref(), Some("0/0"));
    assert_eq!(report.status.handshake, None);
}

fn controller_world() -> World {
    let mut world = World::running(controller);
    world.speak("kv-0-1", commanding(Phase::Ready));
    world
}

#[test]
fn status_of_a_pcp_controller_shows_commands_and_no_handshake() {
    let (_, report) = controller_world().pass();
    insta::assert_yaml_snapshot!(report.status);
}

#[test]
fn commands_of_a_pcp_controller_are_kept_while_its_sidecar_is_unreachable() {
    let mut world = controller_world();
    world.pass();
    *world.session("kv-0-1") = Session::default();
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Handshaken").0, "True");
    let commands = report.status.provides.unwrap().commands;
    assert_eq!(commands[0].name, "wget");
}

#[test]
fn start_timeout_of_a_pcp_controller_is_reported() {
    let mut world = World::running(controller);
    world.speak("kv-0-1", commanding(Phase::Starting));
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Handshaken").0, "Unknown");
    assert_eq!(find(&report.status, "Handshaken").1, "Starting");
    let late = crate::plugin::observe::Instance {
        reason: "StartTimeout".to_owned(),
        message: String::new(),
        ..commanding(Phase::BackingOff)
    };
    world.speak("kv-0-1", late);
    let (_, report) = world.pass();
    let (status, reason, message) = find(&report.status, "Ready");
    assert_eq!((status, reason), ("False", "StartTimeout"));
    assert!(
        message.contains("0 of 1 replicas take jobs")
            && message.contains("did not announce itself"),
        "{message}"
    );
}

#[test]
fn placeholder_command_is_degraded_and_missing_health_service_is_not() {
    let mut warned = commanding(Phase::Ready);
    warned.warnings = vec!["the plugin advertises \"Functionality Error\"".to_owned()];
    let mut world = controller_world();
    world.speak("kv-0-1", warned.clone());
    let (_, report) = world.pass();
    assert_eq!(find(&report.status, "Ready").0, "True");
    let (status, reason, message) = find(&report.status, "Degraded");
    assert_eq!((status, reason), ("True", "Warned"));
    assert!(message.contains("Functionality Error"), "{message}");
    assert_eq!(warnings(&report), ["Warned"]);

    let mut world = World::running(|_| {});
    let mut quiet = instance(Phase::Ready);
    quiet.warnings = warned.warnings;
    world.speak("kv-0-1", quiet);
    let (_, report) = world.pass();
    let conditions = &report.status.conditions;
    assert!(conditions.iter().all(|c| c.type_ != "Degraded"));
}
