//! The sandbox: the pod's network namespace on one boot of one node. A plugin that was released in
//! it once may be started again without the operator; a new sandbox waits for a new release.

use std::os::unix::fs::MetadataExt;

use crate::error::SystemError;
use crate::paths::{Root, replace};

fn name() -> std::io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = std::fs::metadata("/proc/self/ns/net")?;
    Ok(format!("{} {}\n", boot.trim_end(), namespace.ino()))
}

/// Whether the plugin was released in this sandbox before.
pub fn was_released(root: &Root) -> bool {
    match (
        name(),
        std::fs::read_to_string(root.private().join("released")),
    ) {
        (Ok(here), Ok(there)) => here == there,
        _ => false,
    }
}

/// Remembers the release.
///
/// # Errors
/// What was attempted; the release then counts only as long as this process lives.
pub fn remember_release(root: &Root) -> Result<(), SystemError> {
    let here = name().map_err(|error| SystemError::new("name the sandbox", error))?;
    replace(&root.private().join("released"), here.as_bytes(), 0o600)
}

/// The highest epoch of an operator that was accepted in this pod; 0 before the first.
pub fn epoch(root: &Root) -> u64 {
    std::fs::read_to_string(root.private().join("epoch"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Remembers an epoch.
///
/// # Errors
/// What was attempted.
pub fn remember_epoch(root: &Root, epoch: u64) -> Result<(), SystemError> {
    replace(
        &root.private().join("epoch"),
        epoch.to_string().as_bytes(),
        0o600,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_permission_counts_only_in_its_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        assert!(!was_released(&root));
        remember_release(&root).unwrap();
        assert!(was_released(&root));
        std::fs::write(root.private().join("released"), "another-boot 4026531840\n").unwrap();
        assert!(!was_released(&root));
    }

    #[test]
    fn epochs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        assert_eq!(epoch(&root), 0);
        remember_epoch(&root, 12).unwrap();
        assert_eq!(epoch(&root), 12);
    }
}
