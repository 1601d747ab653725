//! Puts the launcher into the volume that the plugin container sees, and tells when it is there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use patchbay_launcher::layout;

use crate::error::SystemError;
use crate::paths::{Root, replace};
use crate::ready;

/// What the pod still lacks.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    #[error("wait for the launcher: {} is not there", .0.display())]
    Launcher(PathBuf),
    #[error("wait for the sidecar: {0}")]
    Sidecar(#[source] ready::ProbeError),
}

/// The kubelet gives a postStart hook no limit of its own.
const INSTALL_LIMIT: Duration = Duration::from_secs(60);

/// Copies the launcher beside this program into the volume `bin`, mode 0555. A launcher of another
/// version that lies there is replaced by rename, so that one which runs is not disturbed.
///
/// Returns whether something was written.
///
/// # Errors
/// What was attempted and the system's answer.
pub fn install(root: &Root) -> Result<bool, SystemError> {
    let program = std::env::current_exe()
        .map_err(|error| SystemError::new("find the path of this program", error))?;
    let source = program.with_file_name(layout::LAUNCHER);
    install_from(&source, root)
}

fn install_from(source: &Path, root: &Root) -> Result<bool, SystemError> {
    let launcher = std::fs::read(source).map_err(|error| SystemError::at("read", source, error))?;
    let target = root.launcher();
    if std::fs::read(&target).is_ok_and(|there| there == launcher)
        && std::fs::metadata(&target).is_ok_and(|there| there.permissions().mode() & 0o777 == 0o555)
    {
        return Ok(false);
    }
    replace(&target, &launcher, 0o555)?;
    Ok(true)
}

/// Returns once the launcher lies in place and a running sidecar answers on its readiness socket.
///
/// # Errors
/// What was missing after a minute.
pub fn wait_installed(root: &Root) -> Result<(), NotInstalled> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let missing = match (root.launcher().exists(), ready::ask(root, Duration::ZERO)) {
            (false, _) => NotInstalled::Launcher(root.launcher()),
            (true, Err(error)) => NotInstalled::Sidecar(error),
            (true, Ok(_)) => return Ok(()),
        };
        if began.elapsed() >= INSTALL_LIMIT {
            return Err(missing);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_is_copied_once_and_replaced_when_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.bin()).unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, b"first").unwrap();
        assert!(install_from(&source, &root).unwrap());
        assert!(!install_from(&source, &root).unwrap());
        assert_eq!(
            std::fs::metadata(root.launcher())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o555
        );

        let running = std::fs::File::open(root.launcher()).unwrap();
        std::fs::write(&source, b"second").unwrap();
        assert!(install_from(&source, &root).unwrap());
        assert_eq!(std::io::read_to_string(running).unwrap(), "first");
        assert_eq!(std::fs::read(root.launcher()).unwrap(), b"second");
    }

    #[test]
    fn a_missing_launcher_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        let error = install_from(&folder.path().join("none"), &root)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("read ") && error.contains("none"));
    }
}
