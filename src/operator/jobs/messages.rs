//! Validated job messages from a sidecar: requests to the dispatcher, and updates of jobs that it has.
//!
//! The pod is whom we dialled; no message names it.

use crate::key::PluginKey;

/// The pod at the other end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub plugin: PluginKey,
    pub pod: String,
    pub uid: String,
}

/// One claim of one Job of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimOf {
    /// 32 hexadecimal digits.
    pub claim_id: String,
    /// Name of the Job.
    pub job: String,
    pub uid: String,
}

/// An entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub claim: ClaimOf,
    /// Whether the plugin may have got the job.
    pub delivered: bool,
}

/// For the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispatchMessage {
    /// The session is open.
    Attached {
        holder: Holder,
        /// Names the pod's ledger.
        ledger_epoch: String,
        /// What is in it and not settled.
        ledger: Vec<Entry>,
    },
    /// A request for work.
    WorkRequest {
        claim_id: String,
        /// Only jobs for this client, or for any.
        client: Option<String>,
        /// Only jobs for this port, or for any.
        port: Option<String>,
        /// How long it waits, in milliseconds.
        wait_ms: u32,
    },
    /// The request is over.
    CancelRequest { claim_id: String },
    /// A claim that was not handed over and never will be.
    ClaimReturned { claim: ClaimOf, why: String },
    /// The answer to a doubt.
    ClaimQueryReply {
        claim: ClaimOf,
        /// Whether the ledger has it.
        known: bool,
    },
}

/// JobUpdate of a job that the pod has; in order for each claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobUpdate {
    /// The plugin works on it.
    Started,
    OutputChunk(OutputChunk),
    /// The plugin process is gone.
    Lost {
        /// How it ended, as text; empty when nobody knows.
        exit: String,
        message: String,
    },
}

/// A piece of one row of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    pub row: u32,
    /// Bytes of the row before this piece.
    pub offset: u64,
    pub data: Vec<u8>,
    /// Set on the last piece of the row.
    pub end: Option<RowEnd>,
}

/// What the last piece of a row says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowEnd {
    /// Whether the plugin gave text.
    pub text: bool,
    /// What it means for the job.
    pub outcome: RowEnding,
    /// When output was cut by the sidecar: its whole length and SHA-256.
    pub cut: Option<(u64, [u8; 32])>,
}

/// What a row means for its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowEnding {
    /// Others may follow.
    More,
    /// The job is done.
    Succeeded,
    /// The job has failed.
    Failed {
        /// A reason of the catalogue.
        reason: String,
        message: String,
    },
}

impl JobUpdate {
    /// Bytes that it takes while it waits, about.
    pub fn size(&self) -> usize {
        match self {
            JobUpdate::OutputChunk(piece) => 256 + piece.data.len(),
            JobUpdate::Started | JobUpdate::Lost { .. } => 256,
        }
    }
}
