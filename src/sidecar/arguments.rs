//! The command line: few words, read by hand.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use patchbay_launcher::layout;

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Be the sidecar until SIGTERM.
    Run {
        /// Folder that holds everything of ours.
        root: PathBuf,
        /// Where the operator dials; port 0 lets the kernel choose.
        session: SocketAddr,
    },
    /// Answer a readiness probe.
    Ready {
        root: PathBuf,
        /// How long a first readiness is waited for.
        wait: Duration,
    },
    /// Print the state of the running sidecar.
    Debug { root: PathBuf },
    /// Put the launcher in place.
    Install { root: PathBuf },
    /// Return once the launcher is in place and the sidecar answers.
    WaitInstalled { root: PathBuf },
}

/// Shown when the command line cannot be read.
pub const USAGE: &str = "usage: patchbay-sidecar run [--root DIR] [--session-address ADDR]
       patchbay-sidecar ready [--root DIR] [--wait MILLISECONDS]
       patchbay-sidecar debug [--root DIR]
       patchbay-sidecar install [--root DIR]
       patchbay-sidecar wait-installed [--root DIR]";

/// Longest wait of a probe. The kubelet's own limit ends it earlier.
const DEFAULT_WAIT: Duration = Duration::from_millis(4000);

/// Reads the arguments behind the program's name.
///
/// # Errors
/// A sentence that names the word at fault.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Verb, String> {
    let mut words = words.into_iter().map(|word| {
        word.into_string()
            .map_err(|_| "read the command line: a word is not UTF-8".to_owned())
    });
    let verb = words
        .next()
        .ok_or("read the command line: a verb is missing")??;
    let (mut root, mut session, mut wait) = (None, None, None);
    while let Some(word) = words.next() {
        let word = word?;
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let value = match inline {
            Some(value) => value,
            None => words
                .next()
                .ok_or_else(|| format!("read the command line: {name} has no value"))??,
        };
        match (verb.as_str(), name.as_str()) {
            (_, "--root") => root = Some(PathBuf::from(value)),
            ("run", "--session-address") => {
                session = Some(
                    value
                        .parse()
                        .map_err(|error| format!("read --session-address {value}: {error}"))?,
                );
            }
            ("ready", "--wait") => {
                wait = Some(Duration::from_millis(
                    value
                        .parse()
                        .map_err(|error| format!("read --wait {value}: {error}"))?,
                ));
            }
            _ => {
                return Err(format!(
                    "read the command line: {verb} does not know {name}"
                ));
            }
        }
    }
    let root = root.unwrap_or_else(|| PathBuf::from(layout::ROOT));
    match verb.as_str() {
        "run" => {
            let everywhere =
                SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, layout::SESSION_PORT));
            Ok(Verb::Run {
                root,
                session: session.unwrap_or(everywhere),
            })
        }
        "ready" => Ok(Verb::Ready {
            root,
            wait: wait.unwrap_or(DEFAULT_WAIT),
        }),
        "debug" => Ok(Verb::Debug { root }),
        "install" => Ok(Verb::Install { root }),
        "wait-installed" => Ok(Verb::WaitInstalled { root }),
        other => Err(format!("read the command line: {other} is not a verb")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Verb, String> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn flags_have_defaults_and_two_spellings() {
        assert_eq!(
            read(&["run"]),
            Ok(Verb::Run {
                root: "/patchbay".into(),
                session: "[::]:7443".parse().unwrap()
            })
        );
        assert_eq!(
            read(&["run", "--root=/r", "--session-address", "127.0.0.1:0"]),
            Ok(Verb::Run {
                root: "/r".into(),
                session: "127.0.0.1:0".parse().unwrap()
            })
        );
        assert_eq!(
            read(&["ready", "--wait", "0"]),
            Ok(Verb::Ready {
                root: "/patchbay".into(),
                wait: Duration::ZERO
            })
        );
        assert_eq!(
            read(&["install"]),
            Ok(Verb::Install {
                root: "/patchbay".into()
            })
        );
    }

    #[test]
    fn usage_error_names_the_argument() {
        assert!(read(&[]).is_err());
        assert!(read(&["fly"]).unwrap_err().contains("fly"));
        assert!(
            read(&["ready", "--session-address", "x"])
                .unwrap_err()
                .contains("--session-address")
        );
        assert!(read(&["ready", "--wait"]).unwrap_err().contains("no value"));
        assert!(read(&["run", "--session-address", "x"]).is_err());
    }
}
