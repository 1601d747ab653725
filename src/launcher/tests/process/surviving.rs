//! Connections come and go, and some should never have come.

use crate::harness::{Harness, can_run, children, until};
use crate::sidecar::Sidecar;
use patchbay_launcher::control::{Event, Refusal, State};
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn the_listening_socket_outlives_sidecars_and_refuses_nobody() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("true");
    let first = Sidecar::connect(&harness);
    let address = first.listener.local_addr().unwrap();
    drop(first);
    let mut client = TcpStream::connect(address).expect("a connection waits in the backlog");
    client.write_all(b"hello").unwrap();
    let second = Sidecar::connect(&harness);
    assert_eq!(second.listener.local_addr().unwrap(), address);
    let (mut server, _) = until("the connection is there", || second.listener.accept().ok());
    server.set_nonblocking(false).unwrap();
    let mut got = [0; 5];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

#[test]
fn the_newest_sidecar_replaces_the_one_before() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("echo up; exec sleep 1000");
    let mut first = Sidecar::connect(&harness);
    let order = harness.order();
    first.start(&order);
    let pid = first.started(&order);
    first.line("up");
    let second = Sidecar::connect(&harness);
    assert_eq!(first.next(), None);
    assert_eq!(second.hello.launcher_id, first.hello.launcher_id);
    let State::Running {
        start_id,
        pid: same,
        ..
    } = second.hello.state
    else {
        panic!("it ended")
    };
    assert_eq!((start_id, same), (order.start_id, pid));
}

#[test]
fn a_process_of_the_plugin_cannot_play_the_sidecar() {
    if !can_run() {
        return;
    }
    let harness = Harness::new(
        r#"exec python3 -u -c '
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["PLUGIN_UNIX_SOCKET_DIR"] + "/../control.sock")
try:
    print("got", s.recv(100))
except ConnectionResetError:
    print("got", b"")
'"#,
    );
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    sidecar.line("got b''");
    sidecar.exited();
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("echo up; exec sleep 1000");
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    sidecar.line("up");
    for garbage in [&[0xff; 8][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 2, 1]] {
        sidecar.send_bytes(garbage);
        while sidecar.next().is_some() {}
        sidecar = Sidecar::connect(&harness);
        assert!(matches!(sidecar.hello.state, State::Running { .. }));
    }
    // A kind of a later version is no garbage.
    sidecar.send_bytes(&[0, 0, 0, 3, 99, 1, 2]);
    sidecar.start(&harness.order());
    let Event::Refused { refusal, .. } = sidecar.event() else {
        panic!("no answer")
    };
    assert_eq!(refusal, Refusal::Busy);
    assert!(harness.is_alive());
    assert_eq!(children(harness.pid).len(), 1);
}

#[test]
fn another_version_or_no_hello_is_turned_away() {
    if !can_run() {
        return;
    }
    let harness = Harness::new("true");
    let mut sidecar = Sidecar::connect(&harness);
    // Hello: oldest and newest are versions that do not exist yet.
    sidecar.send_bytes(&[0, 0, 0, 5, 1, 0xff, 0, 0xff, 1]);
    assert_eq!(sidecar.next(), None);
    let sidecar = Sidecar::connect(&harness);
    assert_eq!(sidecar.hello.state, State::Idle);
}
