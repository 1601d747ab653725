//! Rows of output on their way: one file each, beside the ledger, until the operator has stored
//! them. All of them together have a limit, because the volume lies in memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::claims::entry::Digest;
use crate::error::SystemError;
use crate::paths::Root;
use crate::random;

/// Bytes of all rows together: three quarters of the volume. A longer row is cut.
pub const MOST: u64 = 48 * 1024 * 1024;
/// A row waits so long for others to leave.
const PATIENCE: Duration = Duration::from_secs(15);

/// The folder.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    used: Mutex<u64>,
    freed: Notify,
}

/// Why a row could not be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// Too much waits for the operator.
    #[error("keep the row: {MOST} bytes of output wait for the operator already")]
    Full,
    /// The system's answer.
    #[error("keep the row: {0}")]
    Failed(String),
}

/// A row that lies here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its file; absent when it is empty.
    pub token: Option<u64>,
    /// Length of the file.
    pub kept: u64,
    /// Length of what was given.
    pub given: u64,
    /// With everything that was given.
    pub digest: Digest,
}

impl Spool {
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: &Root) -> Result<Spool, SystemError> {
        let folder = root.jobs().join("rows");
        std::fs::create_dir_all(&folder)
            .map_err(|error| SystemError::at("make the spool", &folder, error))?;
        Ok(Spool(Arc::new(Inner {
            folder,
            used: Mutex::new(0),
            freed: Notify::new(),
        })))
    }

    fn path(&self, token: u64) -> PathBuf {
        self.0.folder.join(format!("{token:016x}"))
    }

    /// Length of a row; `None` when it is not there.
    pub fn length(&self, token: u64) -> Option<u64> {
        std::fs::metadata(self.path(token))
            .ok()
            .map(|file| file.len())
    }

    /// Throws away every row but these, and counts them.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn keep_only(&self, used: &BTreeSet<u64>) -> Result<(), SystemError> {
        let failed = |error: std::io::Error| SystemError::new("list the spool", error);
        for file in std::fs::read_dir(&self.0.folder).map_err(failed)? {
            let file = file.map_err(failed)?;
            let name = file.file_name();
            let token = name
                .to_str()
                .and_then(|name| u64::from_str_radix(name, 16).ok());
            if token.is_none_or(|token| !used.contains(&token)) {
                let _ = std::fs::remove_file(file.path());
            }
        }
        let sum = used.iter().filter_map(|token| self.length(*token)).sum();
        *self.used() = sum;
        Ok(())
    }

    fn used(&self) -> std::sync::MutexGuard<'_, u64> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for anything.
    pub fn has_room(&self) -> bool {
        *self.used() < MOST
    }

    /// A row is stored elsewhere.
    pub fn remove(&self, token: u64) {
        let path = self.path(token);
        let length = self.length(token).unwrap_or(0);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a row of output could not be removed");
            return;
        }
        self.release(length);
    }

    fn release(&self, bytes: u64) {
        let mut used = self.used();
        *used = used.saturating_sub(bytes);
        drop(used);
        self.0.freed.notify_waiters();
    }

    async fn reserve(&self, bytes: u64) -> Result<(), SpoolError> {
        let attempt = async {
            loop {
                let freed = self.0.freed.notified();
                {
                    let mut used = self.used();
                    if *used + bytes <= MOST {
                        *used += bytes;
                        return;
                    }
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, attempt)
            .await
            .map_err(|_| SpoolError::Full)
    }

    /// A piece of a row, from `offset` on, at most `most` bytes long.
    ///
    /// # Errors
    /// The row is not there, or shorter.
    pub fn piece(&self, token: u64, offset: u64, most: usize) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(self.path(token))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = vec![0; most];
        file.read_exact(&mut piece)?;
        Ok(piece)
    }

    /// Begins a row of which at most `most` bytes are kept, after rows with this digest.
    ///
    /// # Errors
    /// A digest that cannot be gone on with.
    pub fn begin(&self, most: u64, before: &Digest) -> Result<Writing, SpoolError> {
        let hasher = resume(before)
            .ok_or_else(|| SpoolError::Failed("the digest so far cannot be read".to_owned()))?;
        Ok(Writing {
            spool: self.clone(),
            file: None,
            most: most.min(MOST),
            kept: 0,
            given: 0,
            before: before.bytes,
            hasher,
        })
    }
}

/// A row that is being given. Thrown away unless it is finished.
#[derive(Debug)]
pub struct Writing {
    spool: Spool,
    file: Option<(u64, File)>,
    most: u64,
    kept: u64,
    given: u64,
    before: u64,
    hasher: Sha256,
}

impl Writing {
    /// Takes the next bytes. Those beyond the limit only go into the digest.
    ///
    /// # Errors
    /// There is no room, or the file cannot be written.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.hasher.update(bytes);
        let length = bytes.len() as u64;
        self.given += length;
        let taken = length.min(self.most - self.kept);
        if taken == 0 {
            return Ok(());
        }
        let kept = usize::try_from(taken)
            .ok()
            .and_then(|taken| bytes.get(..taken))
            .unwrap_or(bytes);
        self.spool.reserve(taken).await?;
        self.kept += taken;
        self.write(kept)
            .map_err(|error| SpoolError::Failed(error.to_string()))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let (_, file) = match &mut self.file {
            Some(open) => open,
            empty @ None => {
                let token = random::number();
                let file = File::create_new(self.spool.path(token))?;
                empty.insert((token, file))
            }
        };
        file.write_all(bytes)
    }

    /// What was given so far, in bytes.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// The row is whole.
    pub fn finish(mut self) -> Spooled {
        Spooled {
            token: self.file.take().map(|(token, _)| token),
            kept: std::mem::take(&mut self.kept),
            given: self.given,
            digest: pause(&self.hasher, self.before + self.given),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some((token, _)) = self.file.take() {
            let _ = std::fs::remove_file(self.spool.path(token));
        }
        if self.kept > 0 {
            self.spool.release(self.kept);
        }
    }
}

fn resume(digest: &Digest) -> Option<Sha256> {
    if digest.state.is_empty() {
        return (digest.bytes == 0).then(Sha256::new);
    }
    let state = STANDARD_NO_PAD.decode(&digest.state).ok()?;
    Sha256::deserialize(state.as_slice().try_into().ok()?).ok()
}

fn pause(hasher: &Sha256, bytes: u64) -> Digest {
    let hash = hasher.clone().finalize();
    Digest {
        bytes,
        sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        state: STANDARD_NO_PAD.encode(hasher.serialize()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&Root::new(folder.path().into())).unwrap();
        (folder, spool)
    }

    #[tokio::test]
    async fn a_row_is_kept_up_to_its_limit_and_the_digest_goes_on() {
        let (_folder, spool) = spool();
        let mut row = spool.begin(5, &Digest::default()).unwrap();
        row.push(b"abc").await.unwrap();
        row.push(b"defgh").await.unwrap();
        row.push(b"ij").await.unwrap();
        let row = row.finish();
        assert_eq!((row.kept, row.given, row.digest.bytes), (5, 10, 10));
        let token = row.token.unwrap();
        assert_eq!(spool.piece(token, 1, 4).unwrap(), b"bcde");
        assert!(spool.piece(token, 1, 5).is_err());
        assert_eq!(
            row.digest.sha256,
            // printf abcdefghij | sha256sum
            "72399361da6a7754fec986dca5b7cbaf1c810a28ded4abaf56b2106d06cb78b0"
        );
        // The next row goes on from what stands in the ledger.
        let mut next = spool.begin(5, &row.digest).unwrap();
        next.push(b"k").await.unwrap();
        let next = next.finish().digest;
        let mut whole = spool.begin(99, &Digest::default()).unwrap();
        whole.push(b"abcdefghijk").await.unwrap();
        assert_eq!(whole.finish().digest, next);
        spool.remove(token);
        assert_eq!(spool.length(token), None);
    }

    #[tokio::test]
    async fn an_empty_row_has_no_file_and_an_unfinished_one_leaves_none() {
        let (folder, spool) = spool();
        let rows = folder.path().join("private/jobs/rows");
        let row = spool.begin(5, &Digest::default()).unwrap().finish();
        assert_eq!((row.token, row.kept), (None, 0));
        assert_eq!(
            row.digest.sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut row = spool.begin(5, &Digest::default()).unwrap();
        row.push(b"abc").await.unwrap();
        assert_eq!(std::fs::read_dir(&rows).unwrap().count(), 1);
        drop(row);
        assert_eq!(std::fs::read_dir(&rows).unwrap().count(), 0);
        assert_eq!(*spool.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn full_spool_delays_rows_and_then_refuses_them() {
        let (_folder, spool) = spool();
        let chunk = vec![7_u8; 1024 * 1024];
        let mut large = spool.begin(u64::MAX, &Digest::default()).unwrap();
        for _ in 0..48 {
            large.push(&chunk).await.unwrap();
        }
        // A single row has its limit as well; it is cut there.
        large.push(b"x").await.unwrap();
        let large = large.finish();
        assert_eq!((large.kept, large.given), (MOST, MOST + 1));
        assert!(!spool.has_room());
        let mut small = spool.begin(10, &Digest::default()).unwrap();
        assert_eq!(small.push(b"a").await, Err(SpoolError::Full));
        drop(small);
        let mut small = spool.begin(10, &Digest::default()).unwrap();
        let waiting = small.push(b"a");
        spool.remove(large.token.unwrap());
        waiting.await.unwrap();
    }

    #[test]
    fn a_digest_that_cannot_be_read_is_an_error() {
        let (_folder, spool) = spool();
        for state in ["!", "AAAA"] {
            let digest = Digest {
                bytes: 3,
                sha256: String::new(),
                state: state.to_owned(),
            };
            assert!(spool.begin(1, &digest).is_err());
        }
        let digest = Digest {
            bytes: 3,
            ..Digest::default()
        };
        assert!(spool.begin(1, &digest).is_err());
    }
}
