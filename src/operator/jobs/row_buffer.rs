//! One row of output on its way in: pieces become a row, a large row becomes chunks, and a digest
//! runs over everything. Pure, but for a place that a large row takes.

use crate::key::JobKey;
use patchbay_api::job_status::CHUNK_BYTES;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// A row beyond this takes a place: no more than a few of them are in memory.
const LARGE: usize = 64 * 1024;
/// Bytes of a row that its preview is made from: 1024 characters of four bytes.
const HEAD: usize = 4096;
/// Digests that are remembered; beyond it those of jobs that nobody has are dropped.
const REMEMBERED: usize = 2048;

/// What is known of the rows of one claim that are stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub rows: u32,
    pub bytes: u64,
    /// Over their bytes.
    pub digest: Sha256,
}

/// The digests of claims that are held, by claim id. Made again from what is stored when one is
/// missing, as after a change of leader.
#[derive(Debug, Default)]
pub struct Digests(Mutex<HashMap<String, (JobKey, Stored)>>);

impl Digests {
    /// The digest of a claim, if it covers exactly `rows` rows.
    pub fn get(&self, claim_id: &str, rows: u32) -> Option<Stored> {
        let known = self.lock();
        let (_, stored) = known.get(claim_id)?;
        (stored.rows == rows).then(|| stored.clone())
    }

    /// Remembers one. `held` tells whether some pod has a Job.
    pub fn put(
        &self,
        key: &JobKey,
        claim_id: &str,
        stored: Stored,
        held: impl Fn(&JobKey) -> bool,
    ) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, (key, _)| held(key));
        }
        known.insert(claim_id.to_owned(), (key.clone(), stored));
    }

    /// The claim is over.
    pub fn forget(&self, claim_id: &str) {
        self.lock().remove(claim_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (JobKey, Stored)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row that is coming in.
#[derive(Debug)]
pub struct RowBuffer {
    row: u32,
    received: u64,
    stored: Stored,
    head: Vec<u8>,
    buffer: Vec<u8>,
    disposition: Disposition,
    /// Chunks written so far.
    pub chunks: u32,
    /// Bytes in them.
    pub written: u64,
    /// Held by a large row for as long as it comes in.
    pub place: Option<OwnedSemaphorePermit>,
}

/// What is done with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is kept.
    Keep,
    /// It is too much: counted, and no more of it kept.
    TooMuch(String),
    /// It is stored already.
    Repeated,
    /// Nobody wants it: its Job is gone, or somebody else's.
    Unwanted,
}

impl RowBuffer {
    /// Row `row` begins, after those that are stored.
    pub fn new(row: u32, stored: Stored, disposition: Disposition) -> Self {
        Self {
            row,
            received: 0,
            stored,
            head: Vec::new(),
            buffer: Vec::new(),
            disposition,
            chunks: 0,
            written: 0,
            place: None,
        }
    }

    /// Whether a piece with this row and offset is the next.
    pub fn continues(&self, row: u32, offset: u64) -> bool {
        self.row == row && self.received == offset
    }

    /// Takes a piece in.
    pub fn take(&mut self, data: &[u8]) {
        self.received = self.received.saturating_add(data.len() as u64);
        match self.disposition {
            Disposition::Repeated | Disposition::Unwanted => return,
            Disposition::Keep | Disposition::TooMuch(_) => self.stored.digest.update(data),
        }
        let room = HEAD.saturating_sub(self.head.len()).min(data.len());
        self.head.extend_from_slice(&data[..room]);
        if self.disposition == Disposition::Keep {
            self.buffer.extend_from_slice(data);
        }
    }

    /// No more of it is kept.
    pub fn too_much(&mut self, why: String) {
        if self.disposition == Disposition::Keep {
            self.disposition = Disposition::TooMuch(why);
            self.buffer = Vec::new();
            self.place = None;
        }
    }

    /// A chunk, when there is a whole one. Cut by content alone, so that the same row gives the
    /// same chunks whenever it is sent again.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        if self.buffer.len() < CHUNK_BYTES {
            return None;
        }
        let rest = self.buffer.split_off(cut(&self.buffer));
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// What is left after the last whole chunk.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Whether it is too large to do without a place.
    pub fn is_large(&self) -> bool {
        self.place.is_some() || self.buffer.len() > LARGE
    }

    pub fn row(&self) -> u32 {
        self.row
    }

    /// Its length so far.
    pub fn bytes(&self) -> u64 {
        self.received
    }

    /// Length of all rows with this one.
    pub fn total(&self) -> u64 {
        self.stored.bytes.saturating_add(self.received)
    }

    /// What is done with it.
    pub fn disposition(&self) -> &Disposition {
        &self.disposition
    }

    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What is known of all rows once this one is stored.
    pub fn and_this(&self) -> Stored {
        Stored {
            rows: self.row,
            bytes: self.total(),
            digest: self.stored.digest.clone(),
        }
    }
}

/// Where to cut a buffer that is long enough: not inside a character of text.
fn cut(buffer: &[u8]) -> usize {
    let whole = &buffer[..CHUNK_BYTES];
    match std::str::from_utf8(whole) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => CHUNK_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    fn chunks(content: &[u8], piece: usize) -> (Vec<Vec<u8>>, RowBuffer) {
        let mut buffer = RowBuffer::new(1, Stored::default(), Disposition::Keep);
        let mut chunks = Vec::new();
        let mut offset = 0;
        for data in content.chunks(piece) {
            assert!(buffer.continues(1, offset));
            buffer.take(data);
            offset += data.len() as u64;
            while let Some(chunk) = buffer.chunk() {
                chunks.push(chunk);
            }
        }
        chunks.push(buffer.rest());
        (chunks, buffer)
    }

    #[test]
    fn the_same_row_gives_the_same_chunks_however_it_was_cut_into_pieces() {
        let text = "añ語🦀".repeat(100_000).into_bytes();
        let bytes: Vec<u8> = (0..1_300_000u32).map(|n| (n * 7) as u8).collect();
        for content in [text, bytes] {
            let (first, _) = chunks(&content, 65_536);
            for piece in [1_000, 99_991, 2_000_000] {
                assert_eq!(chunks(&content, piece).0, first, "{piece}");
            }
            assert_eq!(first.concat(), content);
            assert!(first.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        }
    }

    #[test]
    fn no_chunk_of_text_ends_inside_a_character() {
        let (chunks, buffer) = chunks("語".repeat(400_000).as_bytes(), 60_000);
        assert!(chunks.len() > 2);
        for chunk in &chunks {
            assert!(std::str::from_utf8(chunk).is_ok());
        }
        assert_eq!(buffer.bytes(), 1_200_000);
    }

    #[test]
    fn the_digest_runs_over_all_rows_also_over_what_is_not_kept() {
        let mut first = RowBuffer::new(1, Stored::default(), Disposition::Keep);
        first.take(b"ab");
        let mut second = RowBuffer::new(2, first.and_this(), Disposition::Keep);
        second.take(b"c");
        second.too_much("full".to_owned());
        second.take(&[b'd'; 10]);
        assert!(second.rest().is_empty());
        let all = second.and_this();
        assert_eq!((all.rows, all.bytes), (2, 13));
        let digest: [u8; 32] = all.digest.finalize().into();
        assert_eq!(digest, sha256(b"abcdddddddddd"));
        assert_eq!(second.head(), b"cdddddddddd");
    }

    #[test]
    fn a_piece_that_is_not_the_next_one_does_not_go_on() {
        let mut buffer = RowBuffer::new(3, Stored::default(), Disposition::Repeated);
        buffer.take(b"abc");
        assert!(buffer.continues(3, 3));
        assert!(!buffer.continues(3, 2) && !buffer.continues(4, 3));
        assert!(buffer.head().is_empty());
    }

    #[test]
    fn a_digest_counts_only_for_the_rows_that_are_stored() {
        let digests = Digests::default();
        let key = JobKey::new("ns", "a");
        let stored = Stored {
            rows: 2,
            ..Stored::default()
        };
        digests.put(&key, "c", stored, |_| true);
        assert!(digests.get("c", 2).is_some());
        assert!(digests.get("c", 3).is_none());
        digests.forget("c");
        assert!(digests.get("c", 2).is_none());
    }
}
