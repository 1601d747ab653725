use super::tests::{Bench, idle, pcp_config, running, started};
use super::*;
use crate::family::pcp::TAKEOVER_TIMEOUT_MS;
use crate::ready::Readiness;
use patchbay_launcher::control::{self, Hello, LineEnd};
use patchbay_protocol::session::{CommandInfo, Phase};

fn config(revision: u64) -> PodConfig {
    pcp_config(revision, 10_000)
}

fn greeting(start_id: StartId, command: &str) -> Event {
    Event::Greeted(Box::new(Greeting {
        start_id,
        commands: vec![CommandInfo {
            name: command.into(),
            ..Default::default()
        }],
        omitted: 3,
        warnings: vec![],
    }))
}

fn greeted() -> (Bench, StartId) {
    let (mut bench, start_id) = Bench::ordered(config(1));
    assert_eq!(
        bench.tell(greeting(start_id, "wget")),
        [Action::Admit(start_id)]
    );
    (bench, start_id)
}

fn resumed(start_id: StartId) -> Resumed {
    Resumed {
        start_id,
        launcher_id: 7,
        config: Box::new(config(1)),
        announced: None,
        restarts: 2,
        backoff: 4000,
    }
}

fn taken_over(start_id: StartId) -> Bench {
    let mut bench = Bench::of(Machine::new(true, Some(resumed(start_id))));
    bench.tell(Event::Configured(Box::new(config(1))));
    bench
}

#[test]
fn start_call_makes_it_ready_whatever_it_printed_before() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    for (line, end) in [
        (&b"a banner"[..], LineEnd::Newline),
        (b"1|5|unix|/x|grpc", LineEnd::Newline),
        (&[b'x'; 5000], LineEnd::Cut),
        (b"the rest", LineEnd::Eof),
    ] {
        assert_eq!(bench.line(start_id, line, end), []);
    }
    assert_eq!(bench.phase(), (Phase::Starting, "Starting".into()));
    assert_eq!(
        bench.tell(greeting(start_id, "wget")),
        [Action::Admit(start_id)]
    );
    let picture = bench.machine.snapshot();
    assert_eq!(picture.readiness, Readiness::Ready);
    assert_eq!(picture.instance.phase(), Phase::Ready);
    assert_eq!(picture.instance.commands[0].name, "wget");
    assert_eq!(picture.instance.commands_omitted, 3);
    assert_eq!(picture.instance.handshake, None);
    assert!(picture.instance.warnings.is_empty());
    // Nothing is checked from here on, and nothing is waited for.
    assert_eq!(bench.machine.wake_at(), None);
    assert_eq!(bench.later(600_000), []);
}

#[test]
fn second_introduction_replaces_the_commands() {
    let (mut bench, start_id) = greeted();
    assert_eq!(bench.tell(greeting(start_id, "curl")), []);
    let commands = bench.machine.snapshot().instance.commands;
    assert_eq!((commands.len(), commands[0].name.as_str()), (1, "curl"));
    assert_eq!(bench.tell(greeting(StartId(4242), "other")), []);
    assert_eq!(bench.machine.snapshot().instance.commands[0].name, "curl");
    bench.exits(start_id, Exit::Code(3));
    assert!(bench.machine.snapshot().instance.commands.is_empty());
}

#[test]
fn introduction_of_a_go_plugin_is_ignored() {
    let (mut bench, start_id) = Bench::ordered(super::tests::config(1));
    assert_eq!(bench.tell(greeting(start_id, "wget")), []);
    assert_eq!(bench.phase(), (Phase::Starting, "Starting".into()));
}

#[test]
fn missing_start_call_times_out_with_a_hint() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    let before = bench.mono;
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 9)]);
    assert!((59_000..=60_010).contains(&(bench.mono - before)));
    bench.exits(start_id, Exit::Signal(9));
    assert_eq!(bench.phase(), (Phase::BackingOff, "StartTimeout".into()));
    let message = bench.machine.snapshot().instance.message;
    assert!(
        message.contains("start() through src.controller_plugin within 60 s"),
        "{message}"
    );
}

#[test]
fn an_early_end_shows_the_traceback() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.says(start_id, b"Traceback (most recent call last):");
    bench.says(start_id, b"KeyError: 'PORT'");
    bench.exits(start_id, Exit::Code(1));
    assert_eq!(bench.phase(), (Phase::BackingOff, "ExitedEarly".into()));
    let message = bench.machine.snapshot().instance.message;
    assert!(
        message.contains("before it called start()") && message.contains("KeyError: 'PORT'"),
        "{message}"
    );
}

#[test]
fn voluntary_end_is_named_and_restarted_with_growing_pauses() {
    let (mut bench, mut start_id) = greeted();
    for pause in [1000, 2000, 4000] {
        let actions = bench.exits(start_id, Exit::Code(0));
        assert_eq!(
            actions,
            [Action::Forget(start_id, Gone::Ended(Exit::Code(0)))]
        );
        let instance = bench.machine.snapshot().instance;
        assert_eq!(bench.phase(), (Phase::BackingOff, "Crashed".into()));
        assert!(
            instance.message.contains("of its own will") && instance.message.contains("_start()"),
            "{}",
            instance.message
        );
        let since = bench.mono;
        start_id = started(&bench.until_action());
        assert_eq!(bench.mono - since, pause + 1);
        bench.started(start_id);
        bench.tell(greeting(start_id, "wget"));
        assert_eq!(bench.phase(), (Phase::Ready, String::new()));
    }
}

#[test]
fn a_crash_keeps_its_signal() {
    let (mut bench, start_id) = greeted();
    bench.exits(start_id, Exit::Signal(9));
    let message = bench.machine.snapshot().instance.message;
    assert!(message.contains("signal 9 (SIGKILL)"), "{message}");
}

#[test]
fn stop_of_a_pcp_controller_makes_no_shutdown_call() {
    let (mut bench, start_id) = greeted();
    assert_eq!(
        bench.tell(Event::Launcher(control::Event::Terminating)),
        [Action::Drain(start_id, 5000)]
    );
    assert_eq!(
        bench.tell(Event::Drained(start_id)),
        [Action::Signal(start_id, 15)]
    );
    assert_eq!(bench.phase(), (Phase::Stopping, "Stopping".into()));
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 9)]);
    bench.exits(start_id, Exit::Signal(9));
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
}

#[test]
fn another_port_restarts_it_and_another_revision_does_not() {
    let (mut bench, start_id) = greeted();
    assert_eq!(bench.tell(Event::Configured(Box::new(config(2)))), []);
    let other = pcp_config(3, 10_001);
    assert_eq!(
        bench.tell(Event::Configured(Box::new(other))),
        [Action::Drain(start_id, 5000)]
    );
    // What it says while it is stopped changes nothing.
    assert_eq!(bench.tell(greeting(start_id, "late")), []);
    assert_eq!(bench.machine.snapshot().instance.commands[0].name, "wget");
    bench.tell(Event::Drained(start_id));
    let actions = bench.exits(start_id, Exit::Code(0));
    assert!(
        matches!(&actions[..], [Action::Forget(..), Action::Start(_, config)] if config.revision == 3)
    );
}

#[test]
fn the_placeholder_command_is_a_warning() {
    let (mut bench, start_id) = Bench::ordered(config(1));
    bench.tell(greeting(start_id, "Functionality Error"));
    assert_eq!(bench.phase().0, Phase::Ready);
    let warnings = bench.machine.snapshot().instance.warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("Functionality Error"));
}

#[test]
fn new_sidecar_takes_over_a_process_that_called_start_long_ago() {
    let start_id = StartId(99);
    let mut bench = taken_over(start_id);
    // It runs for much longer than its first word may take.
    assert_eq!(bench.tell(Event::Connected(running(7, start_id))), []);
    assert_eq!(bench.phase().0, Phase::Starting);
    assert_eq!(
        bench.tell(greeting(start_id, "wget")),
        [Action::Admit(start_id)]
    );
    assert_eq!(bench.phase(), (Phase::Ready, String::new()));
    assert_eq!(bench.machine.reattachments(), 1);
    assert_eq!(bench.machine.restarts(), 2);

    let mut bench = taken_over(start_id);
    bench.tell(Event::Connected(running(7, start_id)));
    let before = bench.mono;
    assert_eq!(bench.until_action(), [Action::Signal(start_id, 9)]);
    assert!(bench.mono - before >= TAKEOVER_TIMEOUT_MS);
}

#[test]
fn end_without_a_sidecar_is_reported() {
    let start_id = StartId(99);
    let mut bench = taken_over(start_id);
    let state = control::State::Exited {
        start_id,
        exit: Exit::Code(0),
        at_ms: 5,
    };
    assert_eq!(
        bench.tell(Event::Connected(Hello { state, ..idle(7) })),
        [Action::Forget(start_id, Gone::Ended(Exit::Code(0)))]
    );
    assert_eq!(bench.phase(), (Phase::BackingOff, "Crashed".into()));

    // With another launcher the container is another one.
    let mut bench = taken_over(start_id);
    let actions = bench.tell(Event::Connected(idle(8)));
    assert_eq!(actions[0], Action::Forget(start_id, Gone::Unseen));
    started(&actions);
}

#[test]
fn unreachable_launcher_does_not_end_the_plugin() {
    let (mut bench, start_id) = greeted();
    bench.tell(Event::Disconnected);
    assert_eq!(
        bench.until_action(),
        [Action::Forget(start_id, Gone::OutOfReach)]
    );
    assert_eq!(bench.machine.process(), None);
    bench.tell(Event::Connected(running(7, start_id)));
    assert_eq!(bench.machine.process(), Some(start_id));
    bench.tell(greeting(start_id, "wget"));
    assert_eq!(bench.phase().0, Phase::Ready);
}

#[test]
fn a_plugin_that_took_our_port_is_started_again() {
    let (mut bench, start_id) = greeted();
    bench.tell(Event::PortTaken(Some(7443)));
    assert_eq!(bench.until_action(), [Action::Drain(start_id, 5000)]);
}
