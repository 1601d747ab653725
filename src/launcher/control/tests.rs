//! Every value comes back, and no input of whatever kind ends the program.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

fn start_id() -> impl Strategy<Value = StartId> {
    any::<u64>().prop_map(StartId)
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<i32>().prop_map(Exit::Code),
        any::<i32>().prop_map(Exit::Signal)
    ]
}

fn line() -> impl Strategy<Value = Line> {
    (
        start_id(),
        prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)],
        bytes(200),
        prop_oneof![
            Just(LineEnd::Newline),
            Just(LineEnd::Eof),
            Just(LineEnd::Cut)
        ],
    )
        .prop_map(|(start_id, stream, bytes, end)| Line {
            start_id,
            stream,
            bytes,
            end,
        })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::Busy),
        (bytes(50), any::<i32>(), proptest::option::of(bytes(50))).prop_map(
            |(path, errno, missing_interpreter)| Refusal::Exec {
                path,
                errno,
                missing_interpreter
            }
        ),
        (bytes(50), any::<i32>()).prop_map(|(path, errno)| Refusal::Directory { path, errno }),
        (bytes(50), any::<[u8; 32]>())
            .prop_map(|(path, got)| Refusal::ChecksumMismatch { path, got }),
        (bytes(50), any::<i32>()).prop_map(|(path, errno)| Refusal::ChecksumError { path, errno }),
        Just(Refusal::Terminating),
    ]
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Idle),
        (start_id(), any::<u32>(), any::<u64>()).prop_map(|(start_id, pid, started_at_ms)| {
            State::Running {
                start_id,
                pid,
                started_at_ms,
            }
        }),
        (start_id(), exit(), any::<u64>()).prop_map(|(start_id, exit, at_ms)| State::Exited {
            start_id,
            exit,
            at_ms
        }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    (
        any::<(u16, u16, u64)>(),
        state(),
        proptest::collection::vec(line(), 0..5),
        any::<bool>(),
    )
        .prop_map(
            |((oldest, newest, launcher_id), state, head, terminating)| Hello {
                oldest,
                newest,
                launcher_id,
                state,
                head,
                terminating,
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        hello().prop_map(Event::Hello),
        (start_id(), any::<u32>(), any::<u64>()).prop_map(|(start_id, pid, started_at_ms)| {
            Event::Started {
                start_id,
                pid,
                started_at_ms,
            }
        }),
        (start_id(), refusal())
            .prop_map(|(start_id, refusal)| Event::Refused { start_id, refusal }),
        line().prop_map(Event::Line),
        (start_id(), exit(), any::<u64>()).prop_map(|(start_id, exit, at_ms)| Event::Exited {
            start_id,
            exit,
            at_ms
        }),
        any::<(u64, u64)>().prop_map(|(lines, bytes)| Event::Dropped { lines, bytes }),
        Just(Event::Terminating),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let start = (
        start_id(),
        proptest::collection::vec((bytes(20), bytes(100)), 0..6),
        bytes(100),
        proptest::collection::vec((bytes(50), any::<[u8; 32]>()), 0..4),
        any::<u16>(),
        any::<u32>(),
        proptest::collection::vec((bytes(20), bytes(100)), 0..6),
        any::<bool>(),
    )
        .prop_map(
            |(
                start_id,
                env,
                directory,
                checksums,
                head_lines,
                term_millis,
                defaults,
                keep_host_variables,
            )| Start {
                start_id,
                env,
                defaults,
                keep_host_variables,
                directory,
                checksums,
                head_lines,
                term_millis,
            },
        );
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(oldest, newest)| Command::Hello { oldest, newest }),
        start.prop_map(Command::Start),
        (start_id(), any::<i32>())
            .prop_map(|(start_id, signal)| Command::Signal { start_id, signal }),
        start_id().prop_map(|start_id| Command::Announced { start_id }),
    ]
}

proptest! {
    #[test]
    fn a_command_comes_back_as_it_was(command in command()) {
        let frame = command.encode().unwrap();
        prop_assert_eq!(Command::decode(&frame[4..]), Ok(Some(command)));
    }

    #[test]
    fn an_event_comes_back_as_it_was(event in event()) {
        let frame = event.encode().unwrap();
        prop_assert_eq!(Event::decode(&frame[4..]), Ok(Some(event)));
    }

    #[test]
    fn bytes_appended_by_a_later_version_are_passed_over(event in event(), more in bytes(20)) {
        let mut frame = event.encode().unwrap();
        frame.extend(more);
        prop_assert_eq!(Event::decode(&frame[4..]), Ok(Some(event)));
    }

    #[test]
    fn a_cut_event_is_malformed(event in event(), cut in any::<prop::sample::Index>()) {
        let frame = event.encode().unwrap();
        let body = &frame[4..];
        prop_assert!(Event::decode(&body[..cut.index(body.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in bytes(600), kind in 0u8..10) {
        let _ = Event::decode(&bytes);
        let _ = Command::decode(&bytes);
        let mut with_kind = vec![kind];
        with_kind.extend(&bytes);
        let _ = Event::decode(&with_kind);
        let _ = Command::decode(&with_kind);
        let mut splitter = Splitter::new();
        splitter.push(&bytes);
        while let Ok(Some(frame)) = splitter.next_frame() {
            prop_assert!(!frame.is_empty());
        }
    }

    #[test]
    fn frames_survive_any_cutting(
        events in proptest::collection::vec(event(), 1..6),
        cuts in proptest::collection::vec(1usize..40, 1..60),
    ) {
        let stream: Vec<u8> = events.iter().flat_map(|e| e.encode().unwrap()).collect();
        let mut splitter = Splitter::new();
        let mut got = Vec::new();
        let mut rest = &stream[..];
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = tail;
            splitter.push(piece);
            while let Some(frame) = splitter.next_frame().unwrap() {
                got.push(Event::decode(frame).unwrap().unwrap());
            }
        }
        prop_assert_eq!(got, events);
    }
}

#[test]
fn an_unknown_kind_is_skipped() {
    assert_eq!(Event::decode(&[200, 1, 2, 3]), Ok(None));
    assert_eq!(Command::decode(&[200]), Ok(None));
}

#[test]
fn a_frame_without_kind_or_beyond_the_limit_is_malformed() {
    let mut splitter = Splitter::new();
    splitter.push(&[0, 0, 0, 0]);
    assert!(splitter.next_frame().is_err());
    let mut splitter = Splitter::new();
    splitter.push(&u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes());
    assert!(splitter.next_frame().is_err());
    assert!(splitter.next_frame().is_err(), "the stream stays broken");
}

#[test]
fn the_largest_line_fits_and_a_longer_one_is_malformed() {
    let line = |length| {
        Event::Line(Line {
            start_id: StartId(1),
            stream: Stream::Stdout,
            bytes: vec![b'x'; length],
            end: LineEnd::Cut,
        })
    };
    let frame = line(MAX_LINE).encode().unwrap();
    assert_eq!(Event::decode(&frame[4..]), Ok(Some(line(MAX_LINE))));
    let frame = line(MAX_LINE + 1).encode().unwrap();
    assert!(Event::decode(&frame[4..]).is_err());
}

#[test]
fn what_does_not_fit_into_a_frame_is_not_encoded() {
    let start = |env| {
        Command::Start(Start {
            start_id: StartId(1),
            env,
            defaults: Vec::new(),
            keep_host_variables: false,
            directory: Vec::new(),
            checksums: Vec::new(),
            head_lines: 1,
            term_millis: 0,
        })
    };
    assert_eq!(
        start(vec![(vec![b'k'], vec![0; MAX_FRAME])]).encode(),
        Err(TooLong)
    );
    assert_eq!(
        start(vec![(Vec::new(), Vec::new()); 70_000]).encode(),
        Err(TooLong)
    );
}

#[test]
fn a_list_that_promises_more_than_was_sent_allocates_nothing_for_it() {
    // Start: id, then a list of 65535 pairs of which none is there.
    let mut body = vec![2, 0, 0, 0, 0, 0, 0, 0, 1];
    body.extend([0xff, 0xff]);
    assert!(Command::decode(&body).is_err());
}

#[test]
fn the_bytes_of_version_one_stay_as_they_are() {
    let frame = Command::Signal {
        start_id: StartId(0x0102),
        signal: 15,
    }
    .encode()
    .unwrap();
    assert_eq!(frame, [0, 0, 0, 13, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 15]);
    let frame = Event::Exited {
        start_id: StartId(7),
        exit: Exit::Signal(9),
        at_ms: 258,
    }
    .encode()
    .unwrap();
    assert_eq!(
        frame,
        [
            0, 0, 0, 22, 5, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 2
        ]
    );
}
