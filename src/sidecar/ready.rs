//! Readiness: the running sidecar answers on a unix socket in its private volume; the probe is a
//! short-lived process of the same program.
//!
//! While the sidecar was never ready, a probe waits: the kubelet runs a probe every few seconds,
//! and a plugin that becomes ready between two of them would be seen late. Afterwards every answer
//! is immediate.
//!
//! The probe sends `<milliseconds>\n`; the answer is `ready\n` or `<reason>: <message>\n`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::error::SystemError;
use crate::paths::Root;

/// Longest answer in bytes.
const MAX_ANSWER: u64 = 4096;
/// Longest wait that a probe may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A peer that connects and says nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// What the sidecar would answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It does not: reason and message in one line.
    NotReady(String),
}

/// Why a probe fails.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The socket does not answer.
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("ask the sidecar on {}: it ended without an answer", .0.display())]
    NoAnswer(PathBuf),
    /// Reason and message of the plugin's state.
    #[error("{0}")]
    NotReady(String),
}

/// Asks the running sidecar, from a process of its own.
///
/// # Errors
/// The socket does not answer.
pub fn ask(root: &Root, wait: Duration) -> Result<Readiness, ProbeError> {
    let path = root.ready_socket();
    let failed = |error: std::io::Error| SystemError::at("ask the sidecar on", &path, error);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(failed)?;
    stream
        .set_read_timeout(Some(wait + Duration::from_secs(2)))
        .map_err(failed)?;
    stream
        .write_all(format!("{}\n", wait.as_millis()).as_bytes())
        .map_err(failed)?;
    let mut answer = String::new();
    stream
        .take(MAX_ANSWER)
        .read_to_string(&mut answer)
        .map_err(failed)?;
    match answer.trim_end() {
        "ready" => Ok(Readiness::Ready),
        "" => Err(ProbeError::NoAnswer(path)),
        other => Ok(Readiness::NotReady(other.to_owned())),
    }
}

/// The probe: asks, and waits for a sidecar that is still coming up.
///
/// # Errors
/// Why the plugin is not ready, for the kubelet's event.
pub fn probe(root: &Root, wait: Duration) -> Result<(), ProbeError> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match ask(root, wait.saturating_sub(began.elapsed())) {
            Ok(Readiness::Ready) => return Ok(()),
            Ok(Readiness::NotReady(why)) => return Err(ProbeError::NotReady(why)),
            Err(error) if began.elapsed() >= wait => return Err(error),
            // Only until the socket exists, a few milliseconds after the container's start.
            Err(_) => std::thread::sleep(pause.min(wait)),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Answers probes until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(root: &Root, state: watch::Receiver<Readiness>) -> Result<(), SystemError> {
    let path = root.ready_socket();
    let _ = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).map_err(|error| SystemError::at("listen on", &path, error))?;
    let (first, _) = watch::channel(false);
    let first = std::sync::Arc::new(first);
    tokio::spawn({
        let (mut state, first) = (state.clone(), first.clone());
        async move {
            if state
                .wait_for(|state| *state == Readiness::Ready)
                .await
                .is_ok()
            {
                first.send_replace(true);
            }
        }
    });
    tokio::spawn(async move {
        // Only our own container sees this socket; a handful at a time is plenty.
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(16));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (state, first) = (state.clone(), first.subscribe());
                    tokio::spawn(async move {
                        let _ = answer(stream, state, first).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a readiness probe could not be accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(
    mut stream: UnixStream,
    mut state: watch::Receiver<Readiness>,
    mut first: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut word = [0_u8; 16];
    let mut length = 0;
    while length < word.len() && !word[..length].contains(&b'\n') {
        let read = tokio::time::timeout(SILENCE, stream.read(&mut word[length..])).await??;
        if read == 0 {
            break;
        }
        length += read;
    }
    let wait = std::str::from_utf8(&word[..length])
        .ok()
        .and_then(|word| word.trim_end().parse().ok())
        .unwrap_or(0);
    let wait = Duration::from_millis(wait).min(MAX_WAIT);
    if !*first.borrow_and_update() && !wait.is_zero() {
        let mut nothing = [0_u8; 1];
        tokio::select! {
            _ = state.wait_for(|state| *state == Readiness::Ready) => {}
            () = tokio::time::sleep(wait) => {}
            // The probe was killed by the kubelet's limit.
            _ = stream.read(&mut nothing) => return Ok(()),
        }
    }
    let text = match &*state.borrow() {
        Readiness::Ready => "ready\n".to_owned(),
        Readiness::NotReady(why) => format!("{}\n", why.replace('\n', " ")),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask_elsewhere(root: &Root, wait: u64) -> Result<Readiness, ProbeError> {
        let root = root.clone();
        tokio::task::spawn_blocking(move || ask(&root, Duration::from_millis(wait)))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_first_readiness_is_waited_for_and_later_answers_are_immediate() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        let (sender, receiver) = watch::channel(Readiness::NotReady("Starting: it starts".into()));
        serve(&root, receiver).unwrap();

        assert_eq!(
            ask_elsewhere(&root, 0).await.unwrap(),
            Readiness::NotReady("Starting: it starts".into())
        );
        assert_eq!(
            ask_elsewhere(&root, 20).await.unwrap(),
            Readiness::NotReady("Starting: it starts".into())
        );
        let waiting = tokio::spawn({
            let root = root.clone();
            async move { ask_elsewhere(&root, 30_000).await }
        });
        tokio::task::yield_now().await;
        sender.send_replace(Readiness::Ready);
        assert_eq!(waiting.await.unwrap().unwrap(), Readiness::Ready);

        sender.send_replace(Readiness::NotReady("Unhealthy: no".into()));
        let began = Instant::now();
        assert_eq!(
            ask_elsewhere(&root, 30_000).await.unwrap(),
            Readiness::NotReady("Unhealthy: no".into())
        );
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_sidecar_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        assert!(
            ask(&root, Duration::ZERO)
                .unwrap_err()
                .to_string()
                .contains("ready.sock")
        );
    }
}
