//! Commands as bytes.

use super::frame::seal;
use super::wire::{Reader, Writer};
use super::{Command, Malformed, Start, TooLong};

const HELLO: u8 = 1;
const START: u8 = 2;
const SIGNAL: u8 = 3;
const ANNOUNCED: u8 = 4;

impl Command {
    /// The whole frame, length included.
    ///
    /// # Errors
    /// [`TooLong`] when it exceeds the limits of a frame, as a large environment may.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        match self {
            Command::Hello { oldest, newest } => seal(HELLO, |w| {
                w.u16(*oldest);
                w.u16(*newest);
            }),
            Command::Start(start) => seal(START, |w| write_start(w, start)),
            Command::Signal { start_id, signal } => seal(SIGNAL, |w| {
                w.start_id(*start_id);
                w.i32(*signal);
            }),
            Command::Announced { start_id } => seal(ANNOUNCED, |w| w.start_id(*start_id)),
        }
    }

    /// Reads what [`super::Splitter::next_frame`] gave; `None` for a kind that this build does
    /// not know.
    ///
    /// # Errors
    /// [`Malformed`] when a field is cut off or out of its range.
    pub fn decode(kind_and_body: &[u8]) -> Result<Option<Command>, Malformed> {
        let mut r = Reader::new(kind_and_body);
        Ok(Some(match r.u8()? {
            HELLO => Command::Hello {
                oldest: r.u16()?,
                newest: r.u16()?,
            },
            START => Command::Start(read_start(&mut r)?),
            SIGNAL => Command::Signal {
                start_id: r.start_id()?,
                signal: r.i32()?,
            },
            ANNOUNCED => Command::Announced {
                start_id: r.start_id()?,
            },
            _ => return Ok(None),
        }))
    }
}

fn write_start(w: &mut Writer, start: &Start) {
    let Start {
        start_id,
        env,
        defaults,
        keep_host_variables,
        directory,
        checksums,
        head_lines,
        term_millis,
    } = start;
    w.start_id(*start_id);
    write_env(w, env);
    w.string(directory);
    w.list(checksums, |w, (path, digest)| {
        w.string(path);
        w.digest(digest);
    });
    w.u16(*head_lines);
    w.u32(*term_millis);
    write_env(w, defaults);
    w.bool(*keep_host_variables);
}

fn write_env(w: &mut Writer, env: &[(Vec<u8>, Vec<u8>)]) {
    w.list(env, |w, (key, value)| {
        w.string(key);
        w.string(value);
    });
}

fn read_start(r: &mut Reader<'_>) -> Result<Start, Malformed> {
    let mut start = Start {
        start_id: r.start_id()?,
        env: r.list(|r| Ok((r.string()?, r.string()?)))?,
        defaults: Vec::new(),
        keep_host_variables: false,
        directory: r.string()?,
        checksums: r.list(|r| Ok((r.string()?, r.digest()?)))?,
        head_lines: r.u16()?,
        term_millis: r.u32()?,
    };
    // A sidecar of an earlier build ends here.
    if !r.is_empty() {
        start.defaults = r.list(|r| Ok((r.string()?, r.string()?)))?;
        start.keep_host_variables = r.bool()?;
    }
    Ok(start)
}
