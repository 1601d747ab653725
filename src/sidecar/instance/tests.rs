use super::*;
use crate::family::Health;
use crate::family::ShutdownAnswer;
use crate::family::go_plugin::PARTIAL_LINE_MS;
use crate::ready::Readiness;
use patchbay_launcher::control;
use patchbay_launcher::control::{Hello, Line, LineEnd, Stream};
use patchbay_protocol::pod_config::{
    FamilyConfig, GoPluginConfig, OnFailure, PcpConfig, PluginName, Restart, Tls,
};
use patchbay_protocol::session::Phase;

/// A configuration of the given revision with short pauses.
pub(crate) fn config(revision: u64) -> PodConfig {
    PodConfig {
        contract: 1,
        revision,
        installation: "inst".into(),
        plugin: PluginName {
            namespace: "ns".into(),
            name: "kv".into(),
            uid: "uid".into(),
        },
        protocol: FamilyConfig::GoPlugin(GoPluginConfig {
            cookie_key: "COOKIE".into(),
            cookie_value: "v".into(),
            versions: vec![3, 5],
            tls: Tls::None,
            min_port: 10000,
            max_port: 25000,
            handshake_timeout_seconds: 60,
            skip_lines: 0,
        }),
        checksums: vec![],
        health: patchbay_protocol::pod_config::Health {
            period_seconds: 10,
            timeout_seconds: 2,
            failure_threshold: 3,
            on_failure: OnFailure::Restart,
        },
        restart: Restart {
            initial_seconds: 1,
            max_seconds: 300,
        },
        shutdown: Shutdown {
            drain_seconds: 5,
            rpc_seconds: 5,
            exit_seconds: 2,
            term_seconds: 5,
        },
        jobs: Default::default(),
    }
}

/// The same for the family pcpController.
pub(crate) fn pcp_config(revision: u64, port: u16) -> PodConfig {
    PodConfig {
        protocol: FamilyConfig::PcpController(PcpConfig {
            port,
            stage: "PROD".into(),
            class_name: None,
            start_timeout_seconds: 60,
        }),
        ..config(revision)
    }
}

/// The go-plugin settings of a configuration that has them.
pub(crate) fn go_plugin(config: &mut PodConfig) -> &mut GoPluginConfig {
    match &mut config.protocol {
        FamilyConfig::GoPlugin(family) => family,
        other => panic!("another family: {other:?}"),
    }
}

const GOOD: &[u8] = b"1|5|unix|/patchbay/run/1/plugin1|grpc|";

/// Drives a machine by hand; every step takes one millisecond unless told otherwise.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) mono: u64,
    ids: u64,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench {
            machine: Machine::new(false, None),
            mono: 1_000_000,
            ids: 0,
        }
    }

    pub(super) fn of(machine: Machine) -> Bench {
        Bench {
            machine,
            ..Bench::new()
        }
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Action> {
        self.mono += 1;
        self.ids += 1;
        let now = Now {
            mono: self.mono,
            wall: self.mono,
            fresh: StartId(self.ids),
        };
        self.machine.step(now, event)
    }

    pub(super) fn later(&mut self, millis: u64) -> Vec<Action> {
        self.mono += millis;
        self.tell(Event::Tick)
    }

    /// Lets time pass until the machine wants something done, at most ten minutes.
    pub(super) fn until_action(&mut self) -> Vec<Action> {
        let end = self.mono + 600_000;
        while let Some(at) = self.machine.wake_at() {
            assert!(at <= end, "nothing happens before {at}");
            self.mono = self.mono.max(at);
            let actions = self.tell(Event::Tick);
            if !actions.is_empty() {
                return actions;
            }
        }
        panic!("the machine waits for nothing");
    }

    pub(super) fn phase(&self) -> (Phase, String) {
        let picture = self.machine.snapshot();
        (picture.instance.phase(), picture.instance.reason)
    }

    /// Configured, connected and released: the plugin is ordered.
    pub(super) fn ordered(config: PodConfig) -> (Bench, StartId) {
        let mut bench = Bench::new();
        bench.tell(Event::Configured(Box::new(config)));
        bench.tell(Event::Connected(idle(7)));
        let start_id = started(&bench.tell(Event::Released));
        bench.started(start_id);
        (bench, start_id)
    }

    pub(super) fn started(&mut self, start_id: StartId) {
        let started_at_ms = self.mono;
        self.tell(Event::Launcher(control::Event::Started {
            start_id,
            pid: 9,
            started_at_ms,
        }));
    }

    pub(super) fn ready(config: PodConfig) -> (Bench, StartId) {
        let (mut bench, start_id) = Bench::ordered(config);
        bench.serve(start_id);
        (bench, start_id)
    }

    pub(super) fn serve(&mut self, start_id: StartId) {
        let actions = self.line(start_id, GOOD, LineEnd::Newline);
        assert!(
            matches!(actions[..], [Action::Dial(id, _)] if id == start_id),
            "{actions:?}"
        );
        let actions = self.tell(Event::Dialled(start_id, Ok(Dialled { tls: "None".into() })));
        assert_eq!(actions, [Action::CheckHealth(start_id, 2000)]);
        let actions = self.tell(Event::Health(start_id, Health::Serving));
        assert_eq!(
            actions,
            [Action::Admit(start_id), Action::ListServices(start_id)]
        );
        assert_eq!(self.phase().0, Phase::Ready);
    }

    pub(super) fn line(&mut self, start_id: StartId, bytes: &[u8], end: LineEnd) -> Vec<Action> {
        let line = Line {
            start_id,
            stream: Stream::Stdout,
            bytes: bytes.to_vec(),
            end,
        };
        self.tell(Event::Launcher(control::Event::Line(line)))
    }

    pub(super) fn says(&mut self, start_id: StartId, bytes: &[u8]) {
        let line = Line {
            start_id,
            stream: Stream::Stderr,
            bytes: bytes.to_vec(),
            end: LineEnd::Newline,
        };
        self.tell(Event::Launcher(control::Event::Line(line)));
    }

    pub(super) fn exits(&mut self, start_id: StartId, exit: Exit) -> Vec<Action> {
        let at_ms = self.mono;
        self.tell(Event::Launcher(control::Event::Exited {
            start_id,
            exit,
            at_ms,
        }))
    }
}

pub(super) fn idle(launcher_id: u64) -> Hello {
    Hello {
        oldest: 1,
        newest: 1,
        launcher_id,
        state: control::State::Idle,
        head: vec![],
        terminating: false,
    }
}

pub(super) fn running(launcher_id: u64, start_id: StartId) -> Hello {
    let state = control::State::Running {
        start_id,
        pid: 9,
        started_at_ms: 1,
    };
    Hello {
        state,
        ..idle(launcher_id)
    }
}

pub(super) fn started(actions: &[Action]) -> StartId {
    match actions {
        [.., Action::Start(start_id, _)] => *start_id,
        other => panic!("no start among {other:?}"),
    }
}

#[test]
fn plugin_starts_only_with_configuration_launcher_and_permission() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.phase(),
        (Phase::AwaitingPermission, "BadConfig".into())
    );
    assert_eq!(bench.tell(Event::Released), []);
    assert_eq!(bench.tell(Event::Configured(Box::new(config(1)))), []);
    assert_eq!(
        bench.phase(),
        (Phase::WaitingForLauncher, "WaitingForLauncher".into())
    );
    started(&bench.tell(Event::Connected(idle(7))));

    let mut bench = Bench::new();
    bench.tell(Event::Configured(Box::new(config(1))));
    assert_eq!(bench.tell(Event::Connected(idle(7))), []);
    assert_eq!(
        bench.phase(),
        (Phase::AwaitingPermission, "WaitingForRelease".into())
    );
    assert_eq!(bench.machine.wake_at(), None);
    started(&bench.tell(Event::Released));
}

#[test]
fn plugin_starts_without_operator_when_the_sandbox_has_permission() {
    let mut bench = Bench {
        machine: Machine::new(true, None),
        ..Bench::new()
    };
    bench.tell(Event::Configured(Box::new(config(1))));
    started(&bench.tell(Event::Connected(idle(7))));
}

#[test]
fn good_plugin_becomes_ready_and_reports_its_handshake() {
    let (bench, start_id) = Bench::ready(config(4));
    let picture = bench.machine.snapshot();
    assert_eq!(picture.readiness, Readiness::Ready);
    let instance = picture.instance;
    assert_eq!(
        (instance.revision, instance.start_id, instance.restarts),
        (4, start_id.to_string(), 0)
    );
    let handshake = instance.handshake.unwrap();
    assert_eq!(
        (
            handshake.app_version,
            handshake.offered,
            handshake.transport
        ),
        (5, vec![3, 5], "unix".to_owned())
    );
}

#[test]
fn early_exit_has_one_reason_whatever_the_order_of_events() {
    for _ in 0..100 {
        let (mut bench, start_id) = Bench::ordered(config(1));
        bench.says(start_id, b"This binary is a plugin.");
        assert_eq!(bench.line(start_id, b"", LineEnd::Eof), []);
        bench.exits(start_id, Exit::Code(1));
        assert_eq!(bench.phase(), (Phase::BackingOff, "CookieRejected".into()));
    }
    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.says(
        start_id,
        br#"{"@level":"error","@message":"plugin init error"}"#,
    );
    bench.exits(start_id, Exit::Code(0));
    assert_eq!(bench.phase(), (Phase::BackingOff, "ExitedEarly".into()));
    assert!(
        bench
            .machine
            .snapshot()
            .instance
            .message
            .contains("plugin init error")
    );
}

#[test]
fn a_valid_line_without_its_end_waits_for_the_exit_and_counts_when_the_process_stays() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    assert_eq!(bench.line(start_id, GOOD, LineEnd::Eof), []);
    bench.exits(start_id, Exit::Code(0));
    let instance = bench.machine.snapshot().instance;
    assert_eq!(instance.reason, "ExitedEarly");
    assert!(
        instance.message.contains("no line end"),
        "{}",
        instance.message
    );

    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.line(start_id, GOOD, LineEnd::Eof);
    assert!(matches!(
        bench.later(PARTIAL_LINE_MS)[..],
        [Action::Dial(..)]
    ));

    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.line(start_id, b"hello", LineEnd::Eof);
    bench.exits(start_id, Exit::Code(0));
    assert_eq!(bench.phase().1, "NotAHandshake");
}

#[test]
fn a_wrong_line_kills_at_once_and_its_reason_survives_the_kill() {
    for (line, reason) in [
        (&b"hello"[..], "NotAHandshake"),
        (b"2|5|unix|/x|grpc", "CoreVersionUnsupported"),
        (b"1|7|unix|/patchbay/run/x|grpc", "AppVersionUnsupported"),
        (b"1|5|udp|x|grpc", "BadAddress"),
        (b"1|5|unix|/patchbay/run/x|netrpc", "ProtocolUnsupported"),
    ] {
        let (mut bench, start_id) = Bench::ordered(config(1));
        assert_eq!(
            bench.line(start_id, line, LineEnd::Newline),
            [Action::Signal(start_id, 9)]
        );
        assert_eq!(
            bench.exits(start_id, Exit::Signal(9)),
            [Action::Forget(start_id, Gone::Ended(Exit::Signal(9)))]
        );
        assert_eq!(bench.phase(), (Phase::BackingOff, reason.into()));
    }
}

#[test]
fn a_line_too_long_is_no_handshake() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    let actions = bench.line(start_id, &vec![0; control::MAX_LINE], LineEnd::Cut);
    assert_eq!(actions, [Action::Signal(start_id, 9)]);
    bench.exits(start_id, Exit::Signal(9));
    assert_eq!(bench.phase().1, "NotAHandshake");
    assert!(bench.machine.snapshot().instance.message.len() <= 1024);
}

#[test]
fn as_many_foreign_lines_are_skipped_as_allowed_and_no_more() {
    let mut noisy = config(1);
    let family = go_plugin(&mut noisy);
    family.skip_lines = 1;
    let (mut bench, start_id) = Bench::ordered(noisy.clone());
    assert_eq!(bench.line(start_id, b"banner", LineEnd::Newline), []);
    bench.serve(start_id);

    let (mut bench, start_id) = Bench::ordered(noisy);
    bench.line(start_id, b"banner", LineEnd::Newline);
    assert_eq!(
        bench.line(start_id, b"banner", LineEnd::Newline),
        [Action::Signal(start_id, 9)]
    );
}

#[test]
fn silence_ends_with_the_start_timeout_and_a_kill() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    let before = bench.mono;
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 9)]);
    assert!((59_000..=60_010).contains(&(bench.mono - before)));
    bench.exits(start_id, Exit::Signal(9));
    assert_eq!(bench.phase(), (Phase::BackingOff, "StartTimeout".into()));
}

#[test]
fn crashes_are_counted_and_pauses_double_until_a_quiet_run() {
    let (mut bench, mut start_id) = Bench::ready(config(1));
    for pause in [1000, 2000, 4000] {
        bench.exits(start_id, Exit::Code(2));
        assert_eq!(bench.phase(), (Phase::BackingOff, "Crashed".into()));
        let since = bench.mono;
        start_id = started(&bench.until_action());
        assert_eq!(bench.mono - since, pause + 1);
        bench.started(start_id);
        bench.serve(start_id);
    }
    let picture = bench.machine.snapshot().instance;
    assert_eq!(
        (picture.restarts, picture.last_exit.unwrap().ended_by),
        (3, "Itself".to_owned())
    );
    bench.mono += 20_000;
    bench.exits(start_id, Exit::Code(2));
    let since = bench.mono;
    bench.until_action();
    assert_eq!(bench.mono - since, 1001);
}

#[test]
fn a_failing_plugin_keeps_its_reason_while_it_is_started_again() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.exits(start_id, Exit::Code(3));
    let start_id = started(&bench.until_action());
    assert_eq!(bench.phase(), (Phase::Starting, "ExitedEarly".into()));
    bench.started(start_id);
    bench.serve(start_id);
    assert_eq!(bench.phase(), (Phase::Ready, String::new()));
}

#[test]
fn launcher_refusal_has_its_reason_and_its_pause() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    let refusal = control::Refusal::Exec {
        path: b"/kv".to_vec(),
        errno: 2,
        missing_interpreter: None,
    };
    bench.tell(Event::Launcher(control::Event::Refused {
        start_id,
        refusal,
    }));
    assert_eq!(bench.phase(), (Phase::BackingOff, "ExecFailed".into()));
    started(&bench.until_action());

    let (mut bench, start_id) = Bench::ordered(config(1));
    let refusal = control::Refusal::Busy;
    let actions = bench.tell(Event::Launcher(control::Event::Refused {
        start_id,
        refusal,
    }));
    assert!(actions.contains(&Action::Reconnect));
}

#[test]
fn stop_takes_every_step_and_reports_which_one_ended_it() {
    let (mut bench, start_id) = Bench::ready(config(1));
    let terminating = || Event::Launcher(control::Event::Terminating);
    assert_eq!(bench.tell(terminating()), [Action::Drain(start_id, 5000)]);
    assert!(matches!(
        bench.machine.snapshot().readiness,
        Readiness::NotReady(_)
    ));
    assert_eq!(
        bench.tell(Event::Drained(start_id)),
        [Action::CallShutdown(start_id, 5000)]
    );
    assert_eq!(
        bench.tell(Event::ShutdownAnswered(start_id, ShutdownAnswer::Cut)),
        []
    );
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 15)]);
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 9)]);
    assert_eq!(
        bench.exits(start_id, Exit::Signal(9)),
        [Action::Forget(start_id, Gone::Ended(Exit::Signal(9)))]
    );
    assert_eq!(bench.phase().0, Phase::Stopping);
    assert_eq!(
        bench
            .machine
            .snapshot()
            .instance
            .last_exit
            .unwrap()
            .ended_by,
        "Kill"
    );
    assert_eq!(bench.machine.wake_at(), None);

    // A new container of the same pod: the plugin was swapped.
    let again = started(&bench.tell(Event::Connected(idle(8))));
    assert_eq!(bench.machine.restarts(), 0);
    bench.started(again);
    bench.serve(again);
}

#[test]
fn a_plugin_without_controller_is_sent_sigterm_at_once() {
    let (mut bench, start_id) = Bench::ready(config(1));
    bench.tell(Event::Launcher(control::Event::Terminating));
    bench.tell(Event::Drained(start_id));
    let actions = bench.tell(Event::ShutdownAnswered(
        start_id,
        ShutdownAnswer::Unsupported,
    ));
    assert_eq!(actions, [Action::Signal(start_id, 15)]);
    bench.exits(start_id, Exit::Signal(15));
    assert_eq!(
        bench
            .machine
            .snapshot()
            .instance
            .last_exit
            .unwrap()
            .ended_by,
        "Term"
    );
}

#[test]
fn phases_of_no_length_are_left_out() {
    let mut quick = config(1);
    quick.shutdown = Shutdown {
        drain_seconds: 0,
        rpc_seconds: 0,
        exit_seconds: 0,
        term_seconds: 0,
    };
    let (mut bench, start_id) = Bench::ready(quick);
    let actions = bench.tell(Event::Launcher(control::Event::Terminating));
    assert_eq!(
        actions,
        [Action::Signal(start_id, 15), Action::Signal(start_id, 9)]
    );
}

#[test]
fn a_changed_protocol_restarts_the_plugin_without_a_pause_and_other_changes_do_not() {
    let (mut bench, start_id) = Bench::ready(config(1));
    let mut live = config(2);
    live.health.period_seconds = 99;
    assert_eq!(bench.tell(Event::Configured(Box::new(live))), []);
    assert_eq!(bench.machine.snapshot().instance.revision, 2);
    let mut other = config(3);
    let family = go_plugin(&mut other);
    family.versions = vec![5];
    assert_eq!(
        bench.tell(Event::Configured(Box::new(other))),
        [Action::Drain(start_id, 5000)]
    );
    let actions = bench.exits(start_id, Exit::Code(0));
    assert!(
        matches!(&actions[..], [Action::Forget(..), Action::Start(_, config)] if config.revision == 3)
    );
}

#[test]
fn a_repaired_configuration_cuts_the_pause_short() {
    let mut slow = config(1);
    slow.restart.initial_seconds = 200;
    let (mut bench, start_id) = Bench::ordered(slow);
    bench.exits(start_id, Exit::Code(1));
    let mut repaired = config(2);
    let family = go_plugin(&mut repaired);
    family.cookie_value = "right".into();
    started(&bench.tell(Event::Configured(Box::new(repaired))));
}

#[test]
fn health_failures_in_a_row_restart_once_per_pause() {
    let (mut bench, start_id) = Bench::ready(config(1));
    for _ in 0..2 {
        assert_eq!(bench.until_action(), [Action::CheckHealth(start_id, 2000)]);
        assert_eq!(
            bench.tell(Event::Health(
                start_id,
                Health::NotServing("NOT_SERVING".into())
            )),
            []
        );
        assert_eq!(bench.phase().0, Phase::Ready);
    }
    bench.until_action();
    let actions = bench.tell(Event::Health(
        start_id,
        Health::Failed("no answer within 2 s".into()),
    ));
    assert_eq!(actions, [Action::CallShutdown(start_id, 5000)]);
    assert_eq!(bench.phase(), (Phase::Stopping, "Unhealthy".into()));
    bench.exits(start_id, Exit::Code(0));
    assert_eq!(bench.phase(), (Phase::BackingOff, "Unhealthy".into()));
    assert_eq!(
        bench
            .machine
            .snapshot()
            .instance
            .last_exit
            .unwrap()
            .ended_by,
        "Shutdown"
    );
    started(&bench.until_action());
}

#[test]
fn a_shorter_period_counts_at_once() {
    let (mut bench, start_id) = Bench::ready(config(1));
    let mut hasty = config(2);
    hasty.health.period_seconds = 1;
    bench.tell(Event::Configured(Box::new(hasty)));
    let before = bench.mono;
    assert_eq!(bench.until_action(), [Action::CheckHealth(start_id, 2000)]);
    assert!(bench.mono - before <= 1001);
}

#[test]
fn with_report_an_unhealthy_plugin_is_left_alone_and_may_recover() {
    let mut report = config(1);
    report.health.on_failure = OnFailure::Report;
    report.health.failure_threshold = 1;
    let (mut bench, start_id) = Bench::ready(report);
    bench.until_action();
    assert_eq!(
        bench.tell(Event::Health(start_id, Health::Failed("broken".into()))),
        []
    );
    assert_eq!(bench.phase(), (Phase::Unhealthy, "Unhealthy".into()));
    bench.until_action();
    bench.tell(Event::Health(start_id, Health::Serving));
    assert_eq!(bench.phase().0, Phase::Ready);
}

#[test]
fn a_plugin_that_announces_too_early_gets_a_few_seconds() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.line(start_id, GOOD, LineEnd::Newline);
    bench.tell(Event::Dialled(start_id, Ok(Dialled { tls: "None".into() })));
    let mut checks = 1;
    while bench.phase().0 == Phase::Starting {
        bench.tell(Event::Health(
            start_id,
            Health::NotServing("NOT_SERVING".into()),
        ));
        bench.until_action();
        checks += 1;
    }
    assert!(checks > 10, "{checks} checks");
    assert_eq!(bench.phase(), (Phase::Unhealthy, "Unhealthy".into()));
    let actions = bench.tell(Event::Health(start_id, Health::Unsupported));
    assert_eq!(
        actions,
        [Action::Admit(start_id), Action::ListServices(start_id)]
    );
    assert_eq!(bench.machine.snapshot().instance.warnings.len(), 1);
}

fn resumed(start_id: StartId, line: Option<&[u8]>) -> Resumed {
    Resumed {
        start_id,
        launcher_id: 7,
        config: Box::new(config(1)),
        announced: line.map(|line| (line.to_vec(), 42)),
        restarts: 2,
        backoff: 4000,
    }
}

#[test]
fn a_new_sidecar_takes_over_the_running_process() {
    let start_id = StartId(99);
    let mut bench = Bench {
        machine: Machine::new(true, Some(resumed(start_id, Some(GOOD)))),
        ..Bench::new()
    };
    bench.tell(Event::Configured(Box::new(config(1))));
    let actions = bench.tell(Event::Connected(running(7, start_id)));
    assert!(
        matches!(&actions[..], [Action::Dial(id, announced)] if *id == start_id && announced.millis == 42)
    );
    assert_eq!(bench.machine.reattachments(), 1);
    assert_eq!(bench.machine.snapshot().instance.started_at_ms, 1);
}

#[test]
fn a_new_sidecar_reads_the_handshake_that_nobody_read() {
    let start_id = StartId(99);
    let mut bench = Bench {
        machine: Machine::new(true, Some(resumed(start_id, None))),
        ..Bench::new()
    };
    bench.tell(Event::Configured(Box::new(config(1))));
    let line = Line {
        start_id,
        stream: Stream::Stdout,
        bytes: GOOD.to_vec(),
        end: LineEnd::Newline,
    };
    let hello = Hello {
        head: vec![line],
        ..running(7, start_id)
    };
    let actions = bench.tell(Event::Connected(hello));
    assert!(matches!(&actions[..], [Action::Dial(id, _)] if *id == start_id));
}

#[test]
fn a_new_sidecar_without_a_matching_record_restarts_what_runs() {
    for record in [None, Some(resumed(StartId(98), Some(GOOD)))] {
        let mut bench = Bench {
            machine: Machine::new(true, record),
            ..Bench::new()
        };
        bench.tell(Event::Configured(Box::new(config(1))));
        assert_eq!(
            bench.tell(Event::Connected(running(7, StartId(99)))),
            [Action::Signal(StartId(99), 15)]
        );
        let actions = bench.exits(StartId(99), Exit::Signal(15));
        started(&actions);
    }
}

#[test]
fn a_process_that_ended_between_two_sidecars_counts_as_crashed() {
    let start_id = StartId(99);
    let mut bench = Bench {
        machine: Machine::new(true, Some(resumed(start_id, Some(GOOD)))),
        ..Bench::new()
    };
    bench.tell(Event::Configured(Box::new(config(1))));
    let state = control::State::Exited {
        start_id,
        exit: Exit::Signal(11),
        at_ms: 5,
    };
    assert_eq!(
        bench.tell(Event::Connected(Hello { state, ..idle(7) })),
        [Action::Forget(start_id, Gone::Ended(Exit::Signal(11)))]
    );
    assert_eq!(bench.phase(), (Phase::BackingOff, "Crashed".into()));
    started(&bench.until_action());
    assert_eq!(bench.machine.restarts(), 3);
}

#[test]
fn a_broken_connection_to_the_same_launcher_changes_nothing() {
    let (mut bench, start_id) = Bench::ready(config(1));
    assert_eq!(bench.tell(Event::Disconnected), []);
    assert_eq!(bench.later(100), []);
    assert_eq!(bench.tell(Event::Connected(running(7, start_id))), []);
    assert_eq!(bench.phase().0, Phase::Ready);

    // Even a long silence is healed by the record.
    bench.tell(Event::Disconnected);
    assert_eq!(
        bench.until_action(),
        [Action::Forget(start_id, Gone::OutOfReach)]
    );
    assert_eq!(bench.phase().0, Phase::WaitingForLauncher);
    let actions = bench.tell(Event::Connected(running(7, start_id)));
    assert!(matches!(&actions[..], [Action::Dial(id, _)] if *id == start_id));
}

#[test]
fn dead_container_is_reported_as_a_crash_and_restarted_at_once() {
    let (mut bench, start_id) = Bench::ready(config(1));
    bench.tell(Event::Disconnected);
    bench.until_action();
    let actions = bench.tell(Event::Connected(idle(8)));
    let again = started(&actions);
    assert_eq!(bench.phase(), (Phase::Starting, "Crashed".into()));
    assert_ne!(again, start_id);
    bench.started(again);
    bench.serve(again);
}

#[test]
fn record_of_an_earlier_container_is_not_a_crash() {
    let record = resumed(StartId(99), Some(GOOD));
    let mut bench = Bench {
        machine: Machine::new(true, Some(record)),
        ..Bench::new()
    };
    bench.tell(Event::Configured(Box::new(config(1))));
    started(&bench.tell(Event::Connected(idle(8))));
    assert_eq!(bench.phase(), (Phase::Starting, "Starting".into()));
    assert_eq!(bench.machine.restarts(), 0);
}

#[test]
fn lost_command_to_the_launcher_is_sent_again() {
    let (mut bench, _) = Bench::ordered(config(1));
    bench.tell(Event::Disconnected);
    started(&bench.tell(Event::Connected(idle(7))));
}

#[test]
fn terminating_sidecar_starts_and_stops_nothing() {
    let (mut bench, start_id) = Bench::ready(config(1));
    assert_eq!(bench.tell(Event::Leaving), []);
    assert!(matches!(
        bench.machine.snapshot().readiness,
        Readiness::NotReady(_)
    ));
    let mut other = config(2);
    other.checksums = vec![patchbay_protocol::pod_config::Checksum {
        path: "/kv".into(),
        sha256: "00".repeat(32),
    }];
    assert_eq!(bench.tell(Event::Configured(Box::new(other))), []);
    assert_eq!(
        bench.exits(start_id, Exit::Code(0)),
        [Action::Forget(start_id, Gone::Ended(Exit::Code(0)))]
    );
    assert_eq!(bench.later(600_000), []);
}

#[test]
fn a_plugin_that_took_our_port_is_started_again() {
    let (mut bench, start_id) = Bench::ready(config(1));
    bench.tell(Event::PortTaken(Some(7443)));
    assert!(
        matches!(bench.machine.snapshot().readiness, Readiness::NotReady(why) if why.starts_with("PortTaken"))
    );
    let actions = bench.later(PORT_GRACE);
    assert!(
        actions.contains(&Action::Drain(start_id, 5000)),
        "{actions:?}"
    );
    bench.exits(start_id, Exit::Code(0));
    assert_eq!(bench.phase(), (Phase::BackingOff, "PortTaken".into()));
}

#[test]
fn an_unreadable_configuration_leaves_the_one_in_force() {
    let (mut bench, _) = Bench::ready(config(1));
    bench.tell(Event::ConfigurationUnreadable(
        "parse the annotation: no".into(),
    ));
    assert_eq!(bench.phase().0, Phase::Ready);
    assert!(bench.machine.snapshot().instance.warnings[0].contains("not in force"));
}

#[test]
fn events_of_an_earlier_start_are_ignored() {
    let (mut bench, start_id) = Bench::ready(config(1));
    let old = StartId(4242);
    assert_eq!(bench.exits(old, Exit::Code(0)), []);
    assert_eq!(bench.tell(Event::Drained(old)), []);
    assert_eq!(
        bench.tell(Event::Health(old, Health::Failed("x".into()))),
        []
    );
    bench.later(1);
    assert_eq!(
        bench.machine.snapshot().instance.start_id,
        start_id.to_string()
    );
    assert_eq!(bench.phase().0, Phase::Ready);
}

proptest::proptest! {
    /// Whatever a launcher and a plugin do, in any order: no panic, at most one living process, a
    /// bounded picture, and a plugin that is released in a serving container is never forgotten.
    #[test]
    fn any_order_of_events_keeps_the_invariants(script in proptest::collection::vec((0_u8..21, 0_u64..4, 0_u64..70_000), 1..120)) {
        let mut bench = Bench::new();
        let mut alive = std::collections::BTreeSet::new();
        let mut last = StartId(0);
        for (what, choice, pause) in script {
            let start_id = if choice == 0 { StartId(12345) } else { last };
            let event = match what {
                0 => Event::Configured(Box::new({
                    if choice == 3 {
                        pcp_config(choice, 10_000)
                    } else {
                        let mut made = config(choice);
                        go_plugin(&mut made).skip_lines = choice as u16;
                        made
                    }
                })),
                1 => Event::Connected(idle(choice)),
                2 => Event::Connected(running(choice, start_id)),
                3 => Event::Disconnected,
                4 => Event::Released,
                5 => Event::Dialled(start_id, Ok(Dialled { tls: String::new() })),
                6 => Event::Dialled(start_id, Err(Failure::new(Reason::TlsFailed, "x"))),
                7 => Event::Health(start_id, Health::Serving),
                8 => Event::Health(start_id, Health::Failed("x".into())),
                9 => Event::Drained(start_id),
                10 => Event::ShutdownAnswered(start_id, ShutdownAnswer::Cut),
                11 => Event::PortTaken((choice > 1).then_some(7443)),
                12 => Event::Launcher(control::Event::Terminating),
                13 => Event::Launcher(control::Event::Started { start_id, pid: 1, started_at_ms: pause }),
                14 => Event::Launcher(control::Event::Exited { start_id, exit: Exit::Code(1), at_ms: pause }),
                15 => Event::Launcher(control::Event::Line(Line {
                    start_id,
                    stream: Stream::Stdout,
                    bytes: if choice > 1 { GOOD.to_vec() } else { vec![0xff; 300] },
                    end: if choice == 2 { LineEnd::Eof } else { LineEnd::Newline },
                })),
                16 => Event::Launcher(control::Event::Refused { start_id, refusal: control::Refusal::Busy }),
                17 => Event::NotOrdered(start_id, Failure::new(Reason::BadConfig, "x")),
                18 => Event::Greeted(Box::new(Greeting {
                    start_id,
                    commands: vec![],
                    omitted: 0,
                    warnings: vec!["x".repeat(300)],
                })),
                _ => Event::Tick,
            };
            bench.mono += pause;
            for action in bench.tell(event) {
                match action {
                    Action::Start(id, _) => {
                        proptest::prop_assert!(alive.is_empty(), "{id} starts beside {alive:?}");
                        alive.insert(id);
                        last = id;
                    }
                    Action::Dial(id, _) => { alive.insert(id); }
                    Action::Signal(id, _) => { alive.insert(id); last = id; }
                    Action::Forget(id, _) => { alive.remove(&id); }
                    _ => {}
                }
            }
            let instance = bench.machine.snapshot().instance;
            proptest::prop_assert!(instance.message.len() <= 1024 && instance.warnings.len() <= 8);
            if let Some(at) = bench.machine.wake_at() {
                proptest::prop_assert!(at > bench.mono, "a timer stands in the past: {:?}", bench.machine);
            }
        }
    }
}
