//! How a plugin and its launcher end.

use crate::harness::{Harness, can_run, children, until};
use crate::sidecar::Sidecar;
use patchbay_launcher::control::{Event, Exit, Refusal};

#[test]
fn nothing_of_a_plugin_outlives_its_exit() {
    if !can_run() {
        return;
    }
    let harness =
        Harness::new("sleep 1000 & setsid sleep 1000 & (trap '' TERM; sleep 1000) & echo up; wait");
    let mut sidecar = Sidecar::connect(&harness);
    let order = harness.order();
    sidecar.start(&order);
    sidecar.line("up");
    assert_eq!(children(harness.pid).len(), 1);
    sidecar.signal(order.start_id, 15);
    assert_eq!(sidecar.exited().1, Exit::Signal(15));
    assert_eq!(children(harness.pid), [0; 0], "orphans live on");
}

#[test]
fn a_daemon_that_keeps_the_pipes_open_does_not_hide_the_exit() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & echo bye; exit 0");
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    let begin = std::time::Instant::now();
    assert_eq!(sidecar.exited().1, Exit::Code(0));
    assert!(begin.elapsed().as_secs() < 5);
    assert_eq!(children(harness.pid), [0; 0]);
}

#[test]
fn without_a_plugin_the_launcher_ends_at_once() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("true");
    let _sidecar = Sidecar::connect(&harness);
    harness.terminate();
    assert_eq!(harness.exit_code(), 0);
}

#[test]
fn with_a_sidecar_the_end_is_only_announced() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done");
    let mut sidecar = Sidecar::connect(&harness);
    let order = harness.order();
    sidecar.start(&order);
    sidecar.line("up");
    harness.terminate();
    assert_eq!(sidecar.event(), Event::Terminating);
    let late = harness.order();
    sidecar.start(&late);
    let refused = Event::Refused {
        start_id: late.start_id,
        refusal: Refusal::Terminating,
    };
    assert_eq!(sidecar.event(), refused);
    assert!(harness.is_alive(), "the sidecar decides");
    sidecar.signal(order.start_id, 15);
    assert_eq!(sidecar.exited().1, Exit::Code(7));
    assert_eq!(harness.exit_code(), 7);
}

#[test]
fn without_a_sidecar_the_launcher_terminates_the_plugin() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done");
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    sidecar.line("up");
    drop(sidecar);
    harness.terminate();
    assert_eq!(harness.exit_code(), 7);
}

#[test]
fn a_plugin_that_ignores_the_signal_is_killed() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("trap '' TERM; echo up; while :; do sleep 0.01; done");
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    sidecar.line("up");
    drop(sidecar);
    harness.terminate();
    assert_eq!(harness.exit_code(), 128 + 9);
}

#[test]
fn a_sidecar_that_comes_back_in_time_takes_the_end_over() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("echo up; exec sleep 1000");
    let mut sidecar = Sidecar::connect(&harness);
    let order = harness.order();
    sidecar.start(&order);
    sidecar.line("up");
    harness.terminate();
    assert_eq!(sidecar.event(), Event::Terminating);
    drop(sidecar);
    let mut sidecar = Sidecar::connect(&harness);
    assert!(sidecar.hello.terminating);
    // Longer than the launcher waits when nobody is there.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(harness.is_alive());
    assert_eq!(children(harness.pid).len(), 1);
    sidecar.signal(order.start_id, 9);
    assert_eq!(sidecar.exited().1, Exit::Signal(9));
    until("the launcher ends", || (!harness.is_alive()).then_some(()));
}
