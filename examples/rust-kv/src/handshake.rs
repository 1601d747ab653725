//! The plugin's side of the go-plugin handshake: cookie, version, socket, announced line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, process};

/// The cookie of go-plugin's own example.
const COOKIE: (&str, &str) = ("BASIC_PLUGIN", "hello");

/// Interface versions served here, the highest first.
const VERSIONS: &[u32] = &[1];

/// Checks the cookie and chooses the version to speak: the highest that the host lists, or
/// the lowest served when there is none in common. The host refuses in that case, because
/// only it can say what it would have taken.
///
/// # Errors
///
/// The text for a person who started the program by hand or with the wrong cookie.
pub(crate) fn accept() -> Result<u32, String> {
    let (key, value) = COOKIE;
    if env::var(key).ok().as_deref() != Some(value) {
        return Err(format!(
            "This program is a plugin and has to be started by its host.\n\
             The magic cookie {key} is not set, or not to the expected value."
        ));
    }
    Ok(choose(
        &env::var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default(),
    ))
}

fn choose(offered: &str) -> u32 {
    let offered: Vec<u32> = offered.split(',').filter_map(|v| v.parse().ok()).collect();
    VERSIONS
        .iter()
        .copied()
        .find(|v| offered.contains(v))
        .or(VERSIONS.last().copied())
        .unwrap_or_default()
}

/// A path for the socket in the directory that the host shares with the plugin.
pub(crate) fn socket_path() -> PathBuf {
    env::var_os("PLUGIN_UNIX_SOCKET_DIR")
        .map_or_else(env::temp_dir, PathBuf::from)
        .join(format!("plugin-{}.sock", process::id()))
}

/// Prints the one line that the host waits for, and flushes it. The socket must be bound.
///
/// # Errors
///
/// Standard output is gone, so there is no host.
pub(crate) fn announce(version: u32, path: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // Core protocol 1; no certificate in the last field.
    writeln!(out, "1|{version}|unix|{}|grpc|", path.display())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(choose("3,1"), 1);
    }

    #[test]
    fn without_a_common_version_the_lowest_served_is_answered() {
        assert_eq!(choose("7"), 1);
        assert_eq!(choose(""), 1);
        assert_eq!(choose("x, 9"), 1);
    }
}
