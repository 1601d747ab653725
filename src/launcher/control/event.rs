//! Events as bytes.

use super::frame::seal;
use super::wire::{Reader, Writer};
use super::{
    Event, Exit, Hello, Line, LineEnd, MAX_LINE, Malformed, Refusal, State, Stream, TooLong,
};

const HELLO: u8 = 1;
const STARTED: u8 = 2;
const REFUSED: u8 = 3;
const LINE: u8 = 4;
const EXITED: u8 = 5;
const DROPPED: u8 = 6;
const TERMINATING: u8 = 7;

impl Event {
    /// The whole frame, length included.
    ///
    /// # Errors
    /// [`TooLong`] when it exceeds the limits of a frame.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        match self {
            Event::Hello(hello) => seal(HELLO, |w| write_hello(w, hello)),
            Event::Started {
                start_id,
                pid,
                started_at_ms,
            } => seal(STARTED, |w| {
                w.start_id(*start_id);
                w.u32(*pid);
                w.u64(*started_at_ms);
            }),
            Event::Refused { start_id, refusal } => seal(REFUSED, |w| {
                w.start_id(*start_id);
                write_refusal(w, refusal);
            }),
            Event::Line(line) => seal(LINE, |w| write_line(w, line)),
            Event::Exited {
                start_id,
                exit,
                at_ms,
            } => seal(EXITED, |w| {
                w.start_id(*start_id);
                write_exit(w, *exit);
                w.u64(*at_ms);
            }),
            Event::Dropped { lines, bytes } => seal(DROPPED, |w| {
                w.u64(*lines);
                w.u64(*bytes);
            }),
            Event::Terminating => seal(TERMINATING, |_| ()),
        }
    }

    /// Reads what [`super::Splitter::next_frame`] gave; `None` for a kind that this build does
    /// not know.
    ///
    /// # Errors
    /// [`Malformed`] when a field is cut off or out of its range.
    pub fn decode(kind_and_body: &[u8]) -> Result<Option<Event>, Malformed> {
        let mut r = Reader::new(kind_and_body);
        Ok(Some(match r.u8()? {
            HELLO => Event::Hello(read_hello(&mut r)?),
            STARTED => Event::Started {
                start_id: r.start_id()?,
                pid: r.u32()?,
                started_at_ms: r.u64()?,
            },
            REFUSED => Event::Refused {
                start_id: r.start_id()?,
                refusal: read_refusal(&mut r)?,
            },
            LINE => Event::Line(read_line(&mut r)?),
            EXITED => Event::Exited {
                start_id: r.start_id()?,
                exit: read_exit(&mut r)?,
                at_ms: r.u64()?,
            },
            DROPPED => Event::Dropped {
                lines: r.u64()?,
                bytes: r.u64()?,
            },
            TERMINATING => Event::Terminating,
            _ => return Ok(None),
        }))
    }
}

fn write_hello(w: &mut Writer, hello: &Hello) {
    let Hello {
        oldest,
        newest,
        launcher_id,
        state,
        head,
        terminating,
    } = hello;
    w.u16(*oldest);
    w.u16(*newest);
    w.u64(*launcher_id);
    write_state(w, state);
    w.list(head, write_line);
    w.bool(*terminating);
}

fn read_hello(r: &mut Reader<'_>) -> Result<Hello, Malformed> {
    Ok(Hello {
        oldest: r.u16()?,
        newest: r.u16()?,
        launcher_id: r.u64()?,
        state: read_state(r)?,
        head: r.list(read_line)?,
        terminating: r.bool()?,
    })
}

fn write_state(w: &mut Writer, state: &State) {
    match state {
        State::Idle => w.u8(0),
        State::Running {
            start_id,
            pid,
            started_at_ms,
        } => {
            w.u8(1);
            w.start_id(*start_id);
            w.u32(*pid);
            w.u64(*started_at_ms);
        }
        State::Exited {
            start_id,
            exit,
            at_ms,
        } => {
            w.u8(2);
            w.start_id(*start_id);
            write_exit(w, *exit);
            w.u64(*at_ms);
        }
    }
}

fn read_state(r: &mut Reader<'_>) -> Result<State, Malformed> {
    Ok(match r.u8()? {
        0 => State::Idle,
        1 => State::Running {
            start_id: r.start_id()?,
            pid: r.u32()?,
            started_at_ms: r.u64()?,
        },
        2 => State::Exited {
            start_id: r.start_id()?,
            exit: read_exit(r)?,
            at_ms: r.u64()?,
        },
        _ => return Err(Malformed("a state is unknown")),
    })
}

fn write_exit(w: &mut Writer, exit: Exit) {
    match exit {
        Exit::Code(code) => {
            w.u8(0);
            w.i32(code);
        }
        Exit::Signal(signal) => {
            w.u8(1);
            w.i32(signal);
        }
    }
}

fn read_exit(r: &mut Reader<'_>) -> Result<Exit, Malformed> {
    Ok(match r.u8()? {
        0 => Exit::Code(r.i32()?),
        1 => Exit::Signal(r.i32()?),
        _ => return Err(Malformed("a way to exit is unknown")),
    })
}

fn write_line(w: &mut Writer, line: &Line) {
    let Line {
        start_id,
        stream,
        bytes,
        end,
    } = line;
    w.start_id(*start_id);
    w.u8(match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    w.u8(match end {
        LineEnd::Newline => 0,
        LineEnd::Eof => 1,
        LineEnd::Cut => 2,
    });
    w.string(bytes);
}

fn read_line(r: &mut Reader<'_>) -> Result<Line, Malformed> {
    let start_id = r.start_id()?;
    let stream = match r.u8()? {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return Err(Malformed("a stream is neither 1 nor 2")),
    };
    let end = match r.u8()? {
        0 => LineEnd::Newline,
        1 => LineEnd::Eof,
        2 => LineEnd::Cut,
        _ => return Err(Malformed("a line's end is unknown")),
    };
    let bytes = r.string()?;
    if bytes.len() > MAX_LINE {
        return Err(Malformed("a line is longer than the limit"));
    }
    Ok(Line {
        start_id,
        stream,
        bytes,
        end,
    })
}

fn write_refusal(w: &mut Writer, refusal: &Refusal) {
    match refusal {
        Refusal::Busy => w.u8(0),
        Refusal::Exec {
            path,
            errno,
            missing_interpreter,
        } => {
            w.u8(1);
            w.string(path);
            w.i32(*errno);
            match missing_interpreter {
                None => w.bool(false),
                Some(interpreter) => {
                    w.bool(true);
                    w.string(interpreter);
                }
            }
        }
        Refusal::Directory { path, errno } => {
            w.u8(2);
            w.string(path);
            w.i32(*errno);
        }
        Refusal::ChecksumMismatch { path, got } => {
            w.u8(3);
            w.string(path);
            w.digest(got);
        }
        Refusal::ChecksumError { path, errno } => {
            w.u8(4);
            w.string(path);
            w.i32(*errno);
        }
        Refusal::Terminating => w.u8(5),
    }
}

fn read_refusal(r: &mut Reader<'_>) -> Result<Refusal, Malformed> {
    Ok(match r.u8()? {
        0 => Refusal::Busy,
        1 => Refusal::Exec {
            path: r.string()?,
            errno: r.i32()?,
            missing_interpreter: if r.bool()? { Some(r.string()?) } else { None },
        },
        2 => Refusal::Directory {
            path: r.string()?,
            errno: r.i32()?,
        },
        3 => Refusal::ChecksumMismatch {
            path: r.string()?,
            got: r.digest()?,
        },
        4 => Refusal::ChecksumError {
            path: r.string()?,
            errno: r.i32()?,
        },
        5 => Refusal::Terminating,
        _ => return Err(Malformed("a refusal is unknown")),
    })
}
