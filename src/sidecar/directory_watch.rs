//! Wakes those who wait for a file: the launcher's socket, the annotation, certificates.
//!
//! The kernel reports changes through inotify. Its instances are limited per user, and all plugin
//! pods of a node may have the same one, so a sidecar takes a single instance, and looks by itself
//! every second when it gets none.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Pause without inotify.
const LOOK: Duration = Duration::from_secs(1);
/// Pause with inotify: the net under it, for volumes that report nothing.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// Least time between two wake-ups: a plugin that makes files without end must not keep us busy.
const GAP: Duration = Duration::from_millis(50);

/// Counts the times that something may have changed in one of the folders. Folders that do not
/// exist are looked at only now and then.
pub fn watch(folders: Vec<PathBuf>) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    let kernel = open(&folders);
    if let Err(error) = &kernel {
        tracing::info!(%error, "folders are looked at every second");
    }
    tokio::spawn(async move {
        let kernel = kernel.ok();
        let pause = if kernel.is_some() { LOOK_ANYWAY } else { LOOK };
        while !sender.is_closed() {
            let something = async {
                match &kernel {
                    Some(kernel) => drain(kernel).await,
                    None => std::future::pending().await,
                }
            };
            let _ = tokio::time::timeout(pause, something).await;
            sender.send_modify(|count| *count += 1);
            tokio::time::sleep(GAP).await;
        }
    });
    receiver
}

fn open(folders: &[PathBuf]) -> std::io::Result<AsyncFd<OwnedFd>> {
    let kernel = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    for folder in folders {
        let what = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR;
        match rustix::fs::inotify::add_watch(&kernel, folder, what) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Deprecated for types whose descriptor may change; that of an OwnedFd does not.
    #[expect(deprecated)]
    AsyncFd::new(kernel)
}

/// Waits for a report and throws it away: what changed is found by looking.
async fn drain(kernel: &AsyncFd<OwnedFd>) {
    let Ok(mut guard) = kernel.readable().await else {
        return std::future::pending().await;
    };
    let mut reports = [0_u8; 4096];
    while let Ok(Ok(length)) =
        guard.try_io(|kernel| Ok(rustix::io::read(kernel.get_ref(), &mut reports)?))
    {
        if length == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_and_a_swapped_link_wake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut changes = watch(vec![path.into(), "/nowhere/at/all".into()]);
        changes.borrow_and_update();
        tokio::task::yield_now().await;
        std::fs::write(path.join("a"), "x").unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed())
            .await
            .unwrap()
            .unwrap();
        // As the kubelet does it.
        std::os::unix::fs::symlink("target", path.join("..data_tmp")).unwrap();
        std::fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
}
