//! The sidecar's end of the control protocol, blocking.

use crate::harness::{Harness, PATIENCE, until};
use patchbay_launcher::control::{
    Command, Event, Exit, Hello, Line, OLDEST, Splitter, Start, StartId, Stream, VERSION,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

pub(crate) struct Sidecar {
    stream: UnixStream,
    splitter: Splitter,
    pub(crate) hello: Hello,
    /// The proxy port's listening socket as it was handed over.
    pub(crate) listener: TcpListener,
}

impl Sidecar {
    pub(crate) fn connect(harness: &Harness) -> Self {
        let mut stream = until("the launcher accepts", || {
            UnixStream::connect(harness.socket()).ok()
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = Command::Hello {
            oldest: OLDEST,
            newest: VERSION,
        };
        stream.write_all(&hello.encode().unwrap()).unwrap();
        let mut splitter = Splitter::new();
        let listener = receive_listener(&stream, &mut splitter);
        let Event::Hello(hello) = next(&mut stream, &mut splitter).expect("a first event") else {
            panic!("the first event is no hello");
        };
        Self {
            stream,
            splitter,
            hello,
            listener,
        }
    }

    pub(crate) fn send(&mut self, command: &Command) {
        self.stream.write_all(&command.encode().unwrap()).unwrap();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn start(&mut self, order: &Start) {
        self.send(&Command::Start(order.clone()));
    }

    pub(crate) fn signal(&mut self, start_id: StartId, signal: i32) {
        self.send(&Command::Signal { start_id, signal });
    }

    /// The next event; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Event> {
        next(&mut self.stream, &mut self.splitter)
    }

    pub(crate) fn event(&mut self) -> Event {
        self.next().expect("the launcher closed the connection")
    }

    /// Passes over events until this start runs; gives its pid inside the namespace.
    pub(crate) fn started(&mut self, order: &Start) -> u32 {
        loop {
            match self.event() {
                Event::Started { start_id, pid, .. } if start_id == order.start_id => return pid,
                Event::Refused { refusal, .. } => panic!("{refusal:?}"),
                _ => (),
            }
        }
    }

    /// Waits for a line, whatever comes before it.
    pub(crate) fn line(&mut self, text: &str) -> Line {
        loop {
            if let Event::Line(line) = self.event()
                && line.bytes == text.as_bytes()
            {
                return line;
            }
        }
    }

    /// Everything until the end of the start: events before it, and how it ended.
    pub(crate) fn exited(&mut self) -> (Vec<Event>, Exit) {
        let mut events = Vec::new();
        loop {
            match self.event() {
                Event::Exited { exit, .. } => return (events, exit),
                event => events.push(event),
            }
        }
    }
}

/// The text of all lines of one stream.
pub(crate) fn lines(events: &[Event], wanted: Stream) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Line(line) if line.stream == wanted => {
            Some(String::from_utf8_lossy(&line.bytes).into_owned())
        }
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

fn receive_listener(stream: &UnixStream, splitter: &mut Splitter) -> TcpListener {
    let mut bytes = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    recvmsg(stream, &mut slices, &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptor = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    splitter.push(&bytes);
    TcpListener::from(descriptor.expect("the listening socket beside the first byte"))
}

fn next(stream: &mut UnixStream, splitter: &mut Splitter) -> Option<Event> {
    loop {
        while let Some(frame) = splitter.next_frame().expect("a well-formed frame") {
            if let Some(event) = Event::decode(frame).expect("a well-formed event") {
                return Some(event);
            }
        }
        let mut piece = [0; 8192];
        match stream.read(&mut piece).expect("an event in time") {
            0 => return None,
            count => splitter.push(&piece[..count]),
        }
    }
}
