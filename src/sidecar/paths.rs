//! Where the sidecar finds and keeps things, beneath one folder that tests may move.

use crate::error::SystemError;
use std::path::{Path, PathBuf};

use patchbay_launcher::control::StartId;
use patchbay_launcher::layout;

/// The folder that holds everything of ours; `/patchbay` in a pod.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Takes the folder.
    pub fn new(folder: PathBuf) -> Root {
        Root(folder)
    }

    fn below(&self, fixed: &str) -> PathBuf {
        let rest = fixed
            .strip_prefix(layout::ROOT)
            .unwrap_or(fixed)
            .trim_start_matches('/');
        self.0.join(rest)
    }

    /// Volume with the launcher.
    pub fn bin(&self) -> PathBuf {
        self.below(layout::BIN)
    }

    /// The launcher's file in the volume `bin`.
    pub fn launcher(&self) -> PathBuf {
        self.bin().join(layout::LAUNCHER)
    }

    /// Volume shared with the plugin.
    pub fn run(&self) -> PathBuf {
        self.below(layout::RUN)
    }

    pub fn control_socket(&self) -> PathBuf {
        self.run().join(layout::CONTROL_SOCKET)
    }

    /// Where the library of a PCP controller plugin asks for jobs.
    pub fn jobs_socket(&self) -> PathBuf {
        self.run().join("jobs.sock")
    }

    /// Directory of one start: its sockets and temporary files.
    pub fn start_directory(&self, start_id: StartId) -> PathBuf {
        self.run().join(start_id.to_string())
    }

    /// Folder of the downward API.
    pub fn config(&self) -> PathBuf {
        self.below(layout::CONFIG)
    }

    pub fn identity(&self) -> PathBuf {
        self.below(layout::IDENTITY)
    }

    /// Certificates for explicit TLS.
    pub fn plugin_tls(&self) -> PathBuf {
        self.below(layout::PLUGIN_TLS)
    }

    /// Volume that only the sidecar sees.
    pub fn private(&self) -> PathBuf {
        self.below(layout::PRIVATE)
    }

    /// The ledger of Jobs.
    pub fn jobs(&self) -> PathBuf {
        self.private().join("jobs")
    }

    /// Socket of the debug page.
    pub fn debug_socket(&self) -> PathBuf {
        self.private().join("debug.sock")
    }

    /// Socket of the readiness probe.
    pub fn ready_socket(&self) -> PathBuf {
        self.private().join("ready.sock")
    }
}

/// Writes `bytes` so that a reader sees the old or the new file, never half of it.
///
/// # Errors
/// What was attempted and the system's answer. The old file is still there then.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SystemError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        let source = std::io::Error::other("the path has no file name");
        return Err(SystemError::at("write", path, source));
    };
    let fresh = folder.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let attempt = || -> std::io::Result<()> {
        // A file of a process that died half-way, in a container where every process has the same id.
        let _ = std::fs::remove_file(&fresh);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(bytes)?;
        // The mode given at creation passes through the umask.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        drop(file);
        std::fs::rename(&fresh, path)
    };
    attempt().map_err(|error| {
        let _ = std::fs::remove_file(&fresh);
        SystemError::at("write", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_moves_with_the_root() {
        let root = Root::new("/r".into());
        assert_eq!(root.launcher(), Path::new("/r/bin/patchbay-launcher"));
        assert_eq!(
            root.start_directory(StartId(1)),
            Path::new("/r/run/0000000000000001")
        );
    }

    #[test]
    fn a_start_directory_leaves_room_for_a_socket_name() {
        let root = Root::new(layout::ROOT.into());
        assert!(root.start_directory(StartId(u64::MAX)).as_os_str().len() < 60);
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o555).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            replace(Path::new("/proc/nowhere/a"), b"", 0o600)
                .unwrap_err()
                .to_string()
                .starts_with("write /proc/nowhere/a")
        );
    }
}
