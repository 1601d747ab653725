//! The claim machine's files, beneath the private volume: one per claim, and the name of the ledger itself.
//!
//! The volume lies in memory, so nothing is forced to a disk: a file that was renamed into place is
//! there for the next process, and goes with the pod or the node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use patchbay_protocol::escape::printable;

use super::claims::entry::{Entry, Kind, ProcessEnd, State, names_a_job};
use super::claims::event::ClaimId;
use super::spool::Spool;
use crate::error::SystemError;
use crate::paths::{Root, replace};
use crate::random;

/// Largest file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The files.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    epoch: ClaimId,
    /// Where each claim lies.
    names: BTreeMap<ClaimId, String>,
}

/// What was found.
#[derive(Debug)]
pub struct OpenedSession {
    pub ledger: Ledger,
    pub entries: Vec<Entry>,
    /// What could not be used, for the log.
    pub troubles: Vec<String>,
}

impl Ledger {
    /// Reads everything. A ledger without its name is another one: what it holds is nobody's.
    ///
    /// # Errors
    /// The folder cannot be used at all.
    pub fn open(root: &Root, spool: &Spool) -> Result<OpenedSession, SystemError> {
        let folder = root.jobs().join("claims");
        std::fs::create_dir_all(&folder)
            .map_err(|error| SystemError::at("make the ledger's folder", &folder, error))?;
        let mut troubles = Vec::new();
        let path = root.jobs().join("epoch");
        let known = read(&path)
            .ok()
            .and_then(|text| ClaimId::parse(String::from_utf8_lossy(&text).trim()));
        let epoch = match known {
            Some(epoch) => epoch,
            None => {
                let epoch = ClaimId(random::wide());
                replace(&path, epoch.to_string().as_bytes(), 0o600)?;
                epoch
            }
        };
        let mut ledger = Ledger {
            folder,
            epoch,
            names: BTreeMap::new(),
        };
        let mut entries = Vec::new();
        for name in ledger.files()? {
            let path = ledger.folder.join(&name);
            // A dot begins what a process left half-written.
            if name.starts_with('.') || known.is_none() {
                if known.is_none() && !name.starts_with('.') {
                    troubles.push(format!("{name}: written for a ledger that is lost"));
                }
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let Some(named) = Named::read(&name) else {
                troubles.push(format!("{}: not a claim", printable(name.as_bytes(), 256)));
                continue;
            };
            ledger.names.insert(named.claim, name.clone());
            entries.push(match entry(&path, &named, spool) {
                Ok(entry) => entry,
                Err(failure) => {
                    troubles.push(format!("{name}: {failure}"));
                    named.lost()
                }
            });
        }
        let rows = entries.iter().flat_map(|entry| &entry.pending);
        let used: BTreeSet<u64> = rows.filter_map(|row| row.spool).collect();
        spool.keep_only(&used)?;
        Ok(OpenedSession {
            ledger,
            entries,
            troubles,
        })
    }

    /// The name of this ledger.
    pub fn epoch(&self) -> String {
        self.epoch.to_string()
    }

    fn files(&self) -> Result<Vec<String>, SystemError> {
        let failed = |error: std::io::Error| SystemError::at("list", &self.folder, error);
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.folder).map_err(failed)? {
            names.push(
                file.map_err(failed)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Writes a claim as it is now.
    ///
    /// # Errors
    /// What was attempted. The old state is still there then.
    pub fn write(&mut self, entry: &Entry) -> Result<(), SystemError> {
        let json = serde_json::to_vec(entry)
            .map_err(|error| SystemError::new(format!("write the claim {}", entry.claim), error))?;
        let name = self
            .names
            .entry(entry.claim)
            .or_insert_with(|| Named::of(entry).to_string());
        replace(&self.folder.join(name), &json, 0o600)
    }

    /// Forgets a claim.
    ///
    /// # Errors
    /// What was attempted; a claim that is not there is no error.
    pub fn remove(&mut self, claim: ClaimId) -> Result<(), SystemError> {
        let Some(name) = self.names.remove(&claim) else {
            return Ok(());
        };
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SystemError::at("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

/// What the name of a file says, so that a torn one still tells which claim it was.
#[derive(Debug)]
struct Named {
    claim: ClaimId,
    job_uid: String,
    job: String,
}

impl Named {
    fn of(entry: &Entry) -> Named {
        Named {
            claim: entry.claim,
            job_uid: entry.job_uid.clone(),
            job: entry.job.clone(),
        }
    }

    fn read(name: &str) -> Option<Named> {
        let mut parts = name.strip_suffix(".json")?.splitn(3, '_');
        let claim = ClaimId::parse(parts.next()?)?;
        let (job_uid, job) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        names_a_job(&job_uid, &job).then_some(Named {
            claim,
            job_uid,
            job,
        })
    }

    /// The plugin may have it, and nothing else is known.
    fn lost(&self) -> Entry {
        Entry {
            claim: self.claim,
            job_uid: self.job_uid.clone(),
            job: self.job.clone(),
            attempt: 0,
            state: State::Lost {
                ended: ProcessEnd::Unseen,
                message: "what the sidecar had written down about it cannot be read any more"
                    .to_owned(),
            },
            kind: Kind::Call,
            deadline_ms: None,
            spec: None,
            start_time: String::new(),
            active_deadline_ms: 0,
            output_max_bytes: 0,
            started: false,
            next_row: 1,
            kept_bytes: 0,
            digest: Default::default(),
            pending: Vec::new(),
            known_rows: Default::default(),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // At most 167 bytes: the claim machine takes no longer names.
        write!(f, "{}_{}_{}.json", self.claim, self.job_uid, self.job)
    }
}

/// Why a file of the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
enum UnusableEntry {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("it is about another claim than its name")]
    OtherClaim,
    #[error("its row {0} is not whole")]
    Row(u32),
}

fn entry(path: &Path, named: &Named, spool: &Spool) -> Result<Entry, UnusableEntry> {
    let bytes = read(path)?;
    let entry: Entry = serde_json::from_slice(&bytes)?;
    if entry.claim != named.claim || entry.job_uid != named.job_uid || entry.job != named.job {
        return Err(UnusableEntry::OtherClaim);
    }
    for row in &entry.pending {
        if let Some(token) = row.spool
            && spool.length(token).is_none_or(|length| length < row.bytes)
        {
            return Err(UnusableEntry::Row(row.number));
        }
    }
    Ok(entry)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
