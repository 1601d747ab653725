//! The command line.

use patchbay_launcher::layout;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

const USAGE: &str =
    "usage: patchbay-launcher [--run DIR] [--proxy-address ADDRESS:PORT] -- COMMAND [ARGUMENT...]";

/// What to run and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The shared folder: control socket and one directory per start.
    pub(crate) run: PathBuf,
    /// Where client programs reach the plugin.
    pub(crate) proxy_address: SocketAddr,
    /// The plugin's program, with or without a path.
    pub(crate) command: OsString,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
}

/// A command line that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadArguments(String);

impl fmt::Display for BadArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading the command line: {}\n{USAGE}", self.0)
    }
}

/// Reads the arguments_of behind the program's name.
pub(crate) fn parse(
    mut arguments_of: impl Iterator<Item = OsString>,
) -> Result<Arguments, BadArguments> {
    let mut run = PathBuf::from(layout::RUN);
    let mut proxy_address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, layout::PROXY_PORT));
    loop {
        let word = arguments_of
            .next()
            .ok_or_else(|| BadArguments("no command is given".into()))?;
        match word.to_str() {
            Some("--") => break,
            Some("--run") => {
                run = arguments_of
                    .next()
                    .ok_or_else(|| BadArguments("--run wants a folder".into()))?
                    .into();
            }
            Some("--proxy-address") => {
                proxy_address = arguments_of
                    .next()
                    .and_then(|address| address.to_str()?.parse().ok())
                    .ok_or_else(|| BadArguments("--proxy-address wants ADDRESS:PORT".into()))?;
            }
            _ => return Err(BadArguments(format!("{word:?} is unknown"))),
        }
    }
    let command = arguments_of
        .next()
        .ok_or_else(|| BadArguments("no command is given".into()))?;
    Ok(Arguments {
        run,
        proxy_address,
        command,
        arguments: arguments_of.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments_of(text: &str) -> impl Iterator<Item = OsString> {
        text.split(' ')
            .map(OsString::from)
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn everything_behind_the_dashes_belongs_to_the_plugin() {
        let got = parse(arguments_of(
            "--run /r --proxy-address 127.0.0.1:0 -- plugin --run x",
        ));
        assert_eq!(
            got,
            Ok(Arguments {
                run: "/r".into(),
                proxy_address: SocketAddr::from(([127, 0, 0, 1], 0)),
                command: "plugin".into(),
                arguments: vec!["--run".into(), "x".into()],
            })
        );
    }

    #[test]
    fn a_missing_command_or_an_unknown_word_is_refused() {
        for bad in [
            "--",
            "--run",
            "--run /r",
            "plugin",
            "--proxy-address x -- p",
        ] {
            assert!(parse(arguments_of(bad)).is_err(), "{bad}");
        }
    }
}
