//! The debug page: `patchbay-sidecar debug` prints the state of the running sidecar as JSON, for
//! `kubectl exec`. It holds no secret: names, states and numbers.

use std::io::Read;
use std::path::Path;

use patchbay_protocol::session::Instance;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::error::SystemError;
use crate::jobs::Jobs;
use crate::jobs::claims::ClaimsSnapshot;
use crate::paths::Root;

/// Largest page in bytes.
const MAX_PAGE: u64 = 16 * 1024 * 1024;

/// The page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    phase: String,
    reason: String,
    message: String,
    start_id: String,
    restarts: u32,
    /// Revision of the configuration in force.
    revision: u64,
    jobs: ClaimsSnapshot,
}

/// Asks the running sidecar, from a process of its own.
///
/// # Errors
/// The sidecar does not answer.
pub fn read(root: &Root) -> Result<String, SystemError> {
    let path = root.debug_socket();
    let failed = |error: std::io::Error| SystemError::at("ask the sidecar on", &path, error);
    let stream = std::os::unix::net::UnixStream::connect(&path).map_err(failed)?;
    let mut page = String::new();
    stream
        .take(MAX_PAGE)
        .read_to_string(&mut page)
        .map_err(failed)?;
    Ok(page)
}

/// Answers on the socket until the process ends. A sidecar works without it.
pub fn serve(root: &Root, instance: watch::Receiver<Instance>, jobs: Jobs) {
    let path = root.debug_socket();
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the debug page is not served");
            return;
        }
    };
    // Only our own container sees this socket; one reader at a time is plenty.
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    let page = page(&instance.borrow(), jobs.snapshot());
                    let _ = stream.write_all(page.as_bytes()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the debug page is not served any more");
                    return;
                }
            }
        }
    });
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}

fn page(instance: &Instance, jobs: ClaimsSnapshot) -> String {
    let page = Page {
        phase: instance.phase().as_str_name().to_owned(),
        reason: instance.reason.clone(),
        message: instance.message.clone(),
        start_id: instance.start_id.clone(),
        restarts: instance.restarts,
        revision: instance.revision,
        jobs,
    };
    match serde_json::to_string_pretty(&page) {
        Ok(json) => json + "\n",
        Err(error) => format!("{error}\n"),
    }
}
