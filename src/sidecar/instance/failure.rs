//! What went wrong, in the words of the catalogue and a sentence for people.
//!
//! Everything here is decided from what is known after the process ended, so that the same failure
//! always gets the same name.

use patchbay_launcher::control::{Exit, Refusal};
use patchbay_protocol::escape::printable;
use patchbay_protocol::pod_config::{Checksum, PodConfig};
use patchbay_protocol::reason::Reason;

/// Longest message in bytes, as the session's contract has it.
pub const MAX_MESSAGE: usize = 1024;
/// Longest quotation of a path or a name.
pub(crate) const MAX_QUOTE: usize = 256;

/// A reason and what to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Word of the catalogue.
    pub reason: Reason,
    /// At most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Failure {
    /// Cuts the message to its limit.
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure {
            reason,
            message: clip(message.into(), MAX_MESSAGE),
        }
    }
}

/// Cuts a text at a character border.
pub fn clip(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// "exit code 3" or "signal 11 (SIGSEGV)".
pub fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => match signal_name(signal) {
            Some(name) => format!("signal {signal} ({name})"),
            None => format!("signal {signal}"),
        },
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

pub(crate) fn hint(exit: Exit, wrote_to_stdout: bool) -> &'static str {
    match exit {
        Exit::Code(0) if !wrote_to_stdout => {
            "A plugin whose listener or TLS could not be set up ends this way and says why on stderr"
        }
        Exit::Code(0) => {
            "It may have finished its work as an ordinary program: check command and args"
        }
        Exit::Code(1) => "Its configuration or its environment may be wrong",
        Exit::Code(2) => {
            "A Go program that panics, or one that does not know an argument, ends this way"
        }
        Exit::Code(126) => "A shell found the program but could not execute it",
        Exit::Code(127) => "A shell did not find the program",
        Exit::Code(134) | Exit::Signal(6) => "The program aborted itself",
        Exit::Code(137) | Exit::Signal(9) => "It may have used more memory than its limit",
        Exit::Code(139) | Exit::Signal(7 | 11) => "Native code crashed",
        Exit::Signal(4) => "It may be built for a newer processor",
        Exit::Signal(13) => "It wrote to a closed pipe",
        Exit::Signal(31) => "A seccomp profile forbids a system call that it makes",
        Exit::Code(_) | Exit::Signal(_) => "Its output says more",
    }
}

/// The last lines that still fit behind `text`, newest kept.
pub(crate) fn with_lines(text: String, stderr: &[String]) -> String {
    const INTRODUCTION: &str = ". Last on stderr: ";
    let mut room = MAX_MESSAGE.saturating_sub(text.len() + INTRODUCTION.len());
    let mut kept: Vec<&str> = Vec::new();
    for line in stderr.iter().rev().filter(|line| !line.trim().is_empty()) {
        if line.len() + 3 > room {
            break;
        }
        room -= line.len() + 3;
        kept.push(line);
    }
    if kept.is_empty() {
        return match stderr.iter().rfind(|line| !line.trim().is_empty()) {
            Some(line) => clip(format!("{text}{INTRODUCTION}{line}"), MAX_MESSAGE),
            None => text,
        };
    }
    kept.reverse();
    format!("{text}{INTRODUCTION}{}", kept.join(" | "))
}

/// The process ended after its handshake and not by our doing.
pub fn crashed(exit: Exit, ran_for_millis: u64, stderr: &[String]) -> Failure {
    let text = format!(
        "the plugin ended with {} after {}.{} s, and nobody had asked it to. {}",
        exit_text(exit),
        ran_for_millis / 1000,
        ran_for_millis % 1000 / 100,
        hint(exit, true)
    );
    Failure::new(Reason::Crashed, with_lines(text, stderr))
}

/// The launcher did not start the plugin. `None` for refusals that say nothing about the plugin.
pub fn refused(config: &PodConfig, refusal: &Refusal) -> Option<Failure> {
    let quote = |path: &[u8]| printable(path, MAX_QUOTE);
    Some(match refusal {
        Refusal::Busy | Refusal::Terminating => return None,
        Refusal::Exec {
            path,
            errno,
            missing_interpreter,
        } => Failure::new(
            Reason::ExecFailed,
            format!(
                "could not start {}: {}. {}",
                quote(path),
                error_text(*errno),
                exec_hint(*errno, missing_interpreter.as_deref())
            ),
        ),
        Refusal::Directory { path, errno } => Failure::new(
            Reason::ExecFailed,
            format!(
                "could not make the plugin's socket directory {}: {}. The volume at spec.scratch may be full",
                quote(path),
                error_text(*errno)
            ),
        ),
        Refusal::ChecksumMismatch { path, got } => {
            let wanted = config
                .checksums
                .iter()
                .find(|one: &&Checksum| one.path.as_bytes() == path.as_slice());
            let wanted = wanted.map_or("another one", |one| one.sha256.as_str());
            Failure::new(
                Reason::ChecksumMismatch,
                format!(
                    "refusing to run {}: its SHA-256 is {}, the Plugin expects {}",
                    quote(path),
                    hex(got),
                    printable(wanted.as_bytes(), 64)
                ),
            )
        }
        Refusal::ChecksumError { path, errno } => Failure::new(
            Reason::ChecksumError,
            format!(
                "could not read {} to verify its SHA-256: {}. Check spec.checksums[].path against the image",
                quote(path),
                error_text(*errno)
            ),
        ),
    })
}

fn error_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

fn exec_hint(errno: i32, missing_interpreter: Option<&[u8]>) -> String {
    use rustix::io::Errno;
    if let Some(interpreter) = missing_interpreter {
        return format!(
            "The file exists, but {} that it names as its interpreter or loader does not: a script needs it in the image, \
             and a dynamically linked program needs the C library that it was built for",
            printable(interpreter, MAX_QUOTE)
        );
    }
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => {
            "No such file in the plugin's image: check spec.command and the image's tag".to_owned()
        }
        Errno::ACCESS => {
            "The file has no execute bit for this user, or lies on a volume that forbids execution"
                .to_owned()
        }
        Errno::NOEXEC => format!(
            "The kernel does not know the file's format: it may be built for another processor than {}, or be a script \
             without an interpreter line",
            std::env::consts::ARCH
        ),
        Errno::ISDIR => "It is a directory: check spec.command".to_owned(),
        Errno::NOMEM => "The container's memory limit may be too small".to_owned(),
        _ => "Check that it exists in the image and may be executed".to_owned(),
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::config;

    #[test]
    fn each_kind_of_exec_failure_has_its_hint() {
        let told = |errno, missing_interpreter: Option<&[u8]>| {
            let path = b"/kv".to_vec();
            let missing_interpreter = missing_interpreter.map(<[u8]>::to_vec);
            refused(
                &config(1),
                &Refusal::Exec {
                    path,
                    errno,
                    missing_interpreter,
                },
            )
            .unwrap()
            .message
        };
        let all = [
            told(2, None),
            told(13, None),
            told(8, None),
            told(2, Some(b"/bin/nosh")),
        ];
        assert!(
            all[0].contains("No such file")
                && all[1].contains("execute bit")
                && all[2].contains("processor")
        );
        assert!(all[3].contains("/bin/nosh"));
    }

    #[test]
    fn a_mismatch_shows_both_digests() {
        let mut config = config(1);
        config.checksums = vec![Checksum {
            path: "/kv".into(),
            sha256: "ab".repeat(32),
        }];
        let failure = refused(
            &config,
            &Refusal::ChecksumMismatch {
                path: b"/kv".to_vec(),
                got: [0x12; 32],
            },
        )
        .unwrap();
        assert_eq!(failure.reason, Reason::ChecksumMismatch);
        assert!(
            failure.message.contains(&"ab".repeat(32))
                && failure.message.contains(&"12".repeat(32))
        );
    }

    #[test]
    fn clipping_respects_characters() {
        assert_eq!(clip("äöü".into(), 100), "äöü");
        assert_eq!(clip("äöüäöü".into(), 8), "äö…");
    }
}
