//! One claim as the ledger keeps it.

use std::collections::VecDeque;
use std::sync::Arc;

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::session::{self, ClaimName, LedgerEntry};
use serde::{Deserialize, Serialize};

use super::event::{ClaimId, RequestId, RowId};

/// Number of row ids that are remembered, to recognize a repeated call.
const ROW_IDS: usize = 64;

/// A claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub claim: ClaimId,
    /// Uid of the Job.
    pub job_uid: String,
    /// Name of the Job.
    pub job: String,
    /// 1 with the first.
    pub attempt: u32,
    pub state: State,
    /// How the job is done.
    pub kind: Kind,
    /// Delivered strictly before this moment, in milliseconds on the claim machine's clock.
    pub deadline_ms: Option<u64>,
    /// The Job's spec as JSON, until the plugin has shown that it got it.
    #[serde(with = "shared_text")]
    pub spec: Option<Arc<str>>,
    /// The effective start, RFC 3339.
    pub start_time: String,
    /// Limit of the whole job from its grant, 0 for none.
    pub active_deadline_ms: u64,
    /// Where output is cut, in bytes.
    pub output_max_bytes: u64,
    /// The plugin is known to work on it.
    pub started: bool,
    /// Number of the next row.
    pub next_row: u32,
    /// Bytes kept of all rows.
    pub kept_bytes: u64,
    /// Of all rows that are not late.
    pub digest: Digest,
    /// Rows that the operator has not stored yet, ascending.
    pub pending: Vec<Row>,
    /// Rows that may be given again.
    pub known_rows: VecDeque<KnownRow>,
}

/// How a job is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The plugin asked for it and answers in its own time.
    Command { request: RequestId },
    /// The sidecar calls the plugin.
    Call,
}

/// Where a claim stands. Only [`State::Granted`] may still be returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The plugin has not seen it.
    Granted {
        /// Given back at this moment at the latest.
        keep_until_ms: u64,
    },
    /// The plugin may have it.
    Delivered {
        /// The process that does.
        start_id: u64,
        /// That process is gone.
        gone: Option<ProcessGone>,
    },
    /// The plugin has ended it; the operator has not said that it knows.
    Answered { succeeded: bool },
    /// Nobody will answer.
    Lost {
        /// How the process ended.
        ended: ProcessEnd,
        message: String,
    },
    /// The operator knows its end. What follows is late.
    Over {
        /// Phase of the Job; empty when the Job is gone.
        phase: String,
    },
}

/// The process is gone, and this is when its job is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessGone {
    pub ended: ProcessEnd,
    /// On the claim machine's clock.
    pub lost_at_ms: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessEnd {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw it.
    Unseen,
}

impl ProcessEnd {
    pub(super) fn new(exit: Option<Exit>) -> ProcessEnd {
        match exit {
            Some(Exit::Code(code)) => ProcessEnd::Code(code),
            Some(Exit::Signal(signal)) => ProcessEnd::Signal(signal),
            None => ProcessEnd::Unseen,
        }
    }

    pub(super) fn to_exit(self) -> Option<session::Exit> {
        let how = match self {
            ProcessEnd::Code(code) => session::exit::How::Code(code),
            ProcessEnd::Signal(signal) => session::exit::How::Signal(signal),
            ProcessEnd::Unseen => return None,
        };
        Some(session::Exit {
            how: Some(how),
            ended_by: String::new(),
            at_ms: 0,
        })
    }
}

impl std::fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProcessEnd::Code(code) => write!(f, "ended with exit code {code}"),
            ProcessEnd::Signal(signal) => write!(f, "was ended by signal {signal}"),
            ProcessEnd::Unseen => f.write_str("is gone"),
        }
    }
}

/// A running digest. Only the code that computes it interprets it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// Bytes that went in.
    pub bytes: u64,
    /// SHA-256 of them, hexadecimal; empty before the first row.
    pub sha256: String,
    /// What is needed to go on.
    pub state: String,
}

/// A row of output that is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub number: u32,
    /// Its file in the spool; absent for an empty row.
    pub spool: Option<u64>,
    /// Length of that file in bytes.
    pub bytes: u64,
    /// Whether the plugin gave text.
    pub text: bool,
    /// Whether the job ends with it.
    pub end: RowEnd,
    /// Wall clock in milliseconds, for people.
    pub at_ms: u64,
    /// Of everything that the plugin gave, when it was cut: how long it was and its SHA-256.
    pub whole: Option<(u64, String)>,
}

/// What a row that is given again is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownRow {
    pub id: RowId,
    pub number: u32,
    /// Whether it was late.
    pub late: bool,
}

/// Whether a job ends with a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RowEnd {
    /// More may follow.
    More,
    /// It is done.
    Succeeded,
    Failed {
        reason: String,
        /// For people, at most 1024 bytes.
        message: String,
    },
}

impl Entry {
    pub(super) fn name(&self) -> ClaimName {
        ClaimName {
            claim_id: self.claim.to_string(),
            job_uid: self.job_uid.clone(),
        }
    }

    pub(super) fn to_ledger_entry(&self) -> LedgerEntry {
        LedgerEntry {
            claim: Some(self.name()),
            job: self.job.clone(),
            delivered: self.is_delivered(),
        }
    }

    /// Whether the plugin may have it.
    pub fn is_delivered(&self) -> bool {
        !matches!(self.state, State::Granted { .. })
    }

    /// Whether rows of it are late.
    pub fn is_late(&self) -> bool {
        !matches!(self.state, State::Granted { .. } | State::Delivered { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// The state in the words of PCP; `None` when the Job is gone.
    pub fn pcp_status(&self) -> Option<&'static str> {
        Some(match &self.state {
            State::Granted { .. } => "Ready",
            State::Delivered { .. } if self.started || self.next_row > 1 => "Active",
            State::Delivered { .. } => "Pending",
            State::Answered { succeeded: true } => "Done",
            State::Answered { succeeded: false } | State::Lost { .. } => "Error",
            State::Over { phase } => match phase.as_str() {
                "" => return None,
                "Invalid" => "Invalid",
                "Waiting" => "Waiting",
                "Ready" => "Ready",
                "Suspended" => "Stopped",
                "Claimed" => "Pending",
                "Running" => "Active",
                "Succeeded" => "Done",
                _ => "Error",
            },
        })
    }

    pub(super) fn request(&self) -> Option<RequestId> {
        match self.kind {
            Kind::Command { request } => Some(request),
            Kind::Call => None,
        }
    }

    pub(super) fn known_row(&self, id: RowId) -> Option<KnownRow> {
        self.known_rows.iter().find(|known| known.id == id).copied()
    }

    pub(super) fn remember_row(&mut self, row: KnownRow) {
        if self.known_rows.len() >= ROW_IDS.max(self.pending.len() + 1) {
            self.known_rows.pop_front();
        }
        self.known_rows.push_back(row);
    }

    /// The process that has it, if it is still to answer.
    pub(super) fn holder(&self) -> Option<StartId> {
        match self.state {
            State::Delivered { start_id, .. } => Some(StartId(start_id)),
            _ => None,
        }
    }
}

/// Whether these are the uid and the name of a Job. They become part of a file's name, and a
/// greeting with others is not read.
pub fn names_a_job(uid: &str, name: &str) -> bool {
    let uid_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let name_letter = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    (1..=64).contains(&uid.len())
        && uid.bytes().all(uid_letter)
        && (1..=63).contains(&name.len())
        && name.bytes().all(name_letter)
        && !name.starts_with(['-', '.'])
}

/// Serde's own support for shared text is a feature of the whole build.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        text: &Option<Arc<str>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Arc::from))
    }
}
