//! What the plugin writes, with and without readers.

use crate::harness::{Harness, can_run, released, until};
use crate::sidecar::{Sidecar, lines};
use patchbay_launcher::control::{Command, Event, Exit, Line, LineEnd, MAX_LINE, Stream};
use std::io::Read;
use std::time::Instant;

#[test]
fn a_reader_gets_every_line_in_order() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("seq 1 300000; seq 1 1000 >&2");
    let mut copied = harness.stdout();
    let copied = std::thread::spawn(move || {
        let mut text = String::new();
        copied.read_to_string(&mut text).map(|_| text)
    });
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    let (events, exit) = sidecar.exited();
    assert_eq!(exit, Exit::Code(0));
    let numbers = |last: u32| {
        (1..=last)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Dropped { .. }))
    );
    assert!(lines(&events, Stream::Stdout) == numbers(300_000));
    assert!(lines(&events, Stream::Stderr) == numbers(1000));
    harness.terminate();
    harness.exit_code();
    assert!(copied.join().unwrap().unwrap() == numbers(300_000).join("\n") + "\n");
}

#[test]
fn a_mebibyte_without_any_reader_neither_blocks_the_plugin_nor_grows_the_launcher() {
    if !can_run() {
        return;
    }
    // Nobody reads the launcher's own stdout either.
    let harness = Harness::new(
        r#"touch ../up; while [ ! -e ../go ]; do sleep 0.01; done
        seq 1000000 1131072; touch ../done; exec sleep 1000"#
            .replace("../", "$PLUGIN_UNIX_SOCKET_DIR/../../")
            .as_str(),
    );
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    harness.wait_for_file("up");
    let idle = harness.anonymous_kib();
    drop(sidecar);
    harness.touch("go");
    let begin = Instant::now();
    harness.wait_for_file("done");
    assert!(begin.elapsed().as_secs() < 10, "the plugin was held up");
    let full = harness.anonymous_kib();
    eprintln!("anonymous memory: {idle} KiB idle, {full} KiB after 1 MiB without a reader");
    if released().is_some() {
        assert!(idle <= 256, "{idle} KiB");
        assert!(full <= 256, "{full} KiB");
    } else {
        // A dynamic program has 0.1 MiB of the linker's own.
        eprintln!("skipped: the memory of the static program; make binaries builds it");
    }
    let mut sidecar = Sidecar::connect(&harness);
    assert_eq!(sidecar.hello.head.len(), 1, "the first line is retained");
    let Event::Dropped { lines, bytes } = sidecar.event() else {
        panic!("nothing was dropped")
    };
    assert_eq!(bytes, lines * 7);
    let mut next = 1_000_000 + lines;
    while next <= 1_131_072 {
        let Event::Line(line) = sidecar.event() else {
            panic!("only lines follow")
        };
        // The retained line, which is the very first, is among the dropped ones.
        assert_eq!(line.bytes, next.to_string().into_bytes());
        next += 1;
    }
}

#[test]
fn a_sidecar_that_stands_still_does_not_hold_up_the_plugin_for_long() {
    if !can_run() {
        return;
    }
    let harness =
        Harness::new("seq 1 500000 >&2; touch $PLUGIN_UNIX_SOCKET_DIR/../../done; sleep 1000");
    let mut sidecar = Sidecar::connect(&harness);
    sidecar.start(&harness.order());
    harness.wait_for_file("done");
    let dropped = loop {
        match sidecar.event() {
            Event::Dropped { lines, .. } => break lines,
            Event::Exited { .. } => panic!("it ended"),
            _ => (),
        }
    };
    assert!(dropped > 0);
}

#[test]
fn a_long_line_is_cut_and_the_next_one_is_whole() {
    if !can_run() {
        return;
    }
    let harness = Harness::new(
        "head -c 71680 /dev/zero; sleep 0.2; head -c 1000000 /dev/zero; echo; echo next",
    );
    let mut sidecar = Sidecar::connect(&harness);
    let order = harness.order();
    sidecar.start(&order);
    sidecar.started(&order);
    let line = |bytes, end| {
        Event::Line(Line {
            start_id: order.start_id,
            stream: Stream::Stdout,
            bytes,
            end,
        })
    };
    assert_eq!(sidecar.event(), line(vec![0; MAX_LINE], LineEnd::Cut));
    assert_eq!(sidecar.event(), line(b"next".to_vec(), LineEnd::Newline));
    assert!(harness.anonymous_kib() <= 512);
}

#[test]
fn first_lines_are_retained_until_they_are_announced() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new("echo one; echo two; echo three; exec sleep 1000");
    let mut order = harness.order();
    order.head_lines = 2;
    let mut first = Sidecar::connect(&harness);
    first.start(&order);
    first.line("three");
    drop(first);
    let mut second = Sidecar::connect(&harness);
    let head = |sidecar: &Sidecar| {
        let text = |line: &Line| String::from_utf8(line.bytes.clone()).unwrap();
        sidecar.hello.head.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(head(&second), ["one", "two"]);
    second.send(&Command::Announced {
        start_id: order.start_id,
    });
    // Refused commands are answered in order: the answer tells that the one before was obeyed.
    second.start(&harness.order());
    assert!(matches!(second.event(), Event::Refused { .. }));
    drop(second);
    let third = Sidecar::connect(&harness);
    assert_eq!(head(&third), [""; 0]);
    assert_eq!(third.hello.state, {
        let again = Sidecar::connect(&harness);
        again.hello.state
    });
    assert!(harness.is_alive());
}

#[test]
fn lines_written_while_no_sidecar_is_there_come_once_and_before_the_exit() {
    if !can_run() {
        return;
    }
    let mut harness = Harness::new(
        "echo head; touch $F/up; while [ ! -e $F/go ]; do sleep 0.01; done; echo later; echo why >&2; exit 4"
            .replace("$F", "$PLUGIN_UNIX_SOCKET_DIR/../..")
            .as_str(),
    );
    let mut copied = harness.stdout();
    let mut first = Sidecar::connect(&harness);
    let order = harness.order();
    first.start(&order);
    harness.wait_for_file("up");
    drop(first);
    harness.touch("go");
    let mut text = Vec::new();
    until("the last line is copied", || {
        let mut piece = [0; 100];
        let count = copied.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..count]);
        text.ends_with(b"later\n").then_some(())
    });
    let directory = std::path::PathBuf::from(String::from_utf8(order.directory.clone()).unwrap());
    until("the start is over", || (!directory.exists()).then_some(()));
    let mut second = Sidecar::connect(&harness);
    let (events, exit) = second.exited();
    assert_eq!(exit, Exit::Code(4));
    let mut out: Vec<_> = second
        .hello
        .head
        .iter()
        .map(|line| String::from_utf8_lossy(&line.bytes).into_owned())
        .collect();
    out.extend(lines(&events, Stream::Stdout));
    assert_eq!(out, ["head", "later"]);
    assert_eq!(lines(&events, Stream::Stderr), ["why"]);
}
