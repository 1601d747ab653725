//! Rows of output. A row is stored first; what it ends is said in the same write as the row.

use super::{Draft, NotNow, held_by, phase};
use crate::job::conditions::Is;
use crate::job::output::{encode, first_chars, fits_inline, hex, preview};
use crate::job::times;
use crate::text::untrusted_text;
use jiff::Timestamp;
use patchbay_api::job_status::{Encoding, MAX_PREVIEW, MAX_ROWS, OutputRow, Phase};
use patchbay_api::{ConditionType, Job, JobStatus, Reason};

/// A row whose content is stored, or is small enough to stand in the Job itself.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// Its number within the claim, from 1.
    pub row: u32,
    pub bytes: u64,
    /// Whether the plugin gave text.
    pub text: bool,
    /// Its content, when it goes into the Job: only if
    /// [`fits_inline`](crate::job::output::fits_inline) said so.
    pub inline: Option<Vec<u8>>,
    /// How many objects of kind JobOutput hold it otherwise.
    pub chunks: u32,
    /// SHA-256 of everything that the plugin gave in this attempt up to and with this row.
    pub sha256_of_all: [u8; 32],
    /// Length of that.
    pub total_bytes: u64,
    /// Its beginning, made by [`preview`](crate::job::output::preview()); may be empty for a row
    /// with `inline`.
    pub preview: String,
    /// What it means for the job.
    pub outcome: RowOutcome,
    /// Whether more was given than is kept.
    pub truncated: bool,
}

/// What a row means for the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowOutcome {
    /// More may follow.
    More,
    /// The job is done.
    Succeeded,
    /// The job went wrong.
    Failed {
        /// PluginError, CallFailed, OutputTooLarge, UnknownCommand or DeadlineExceeded.
        reason: Reason,
        /// For people. Foreign: escaped and bounded here.
        message: String,
    },
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFate {
    /// It came after the end of the job. It is kept, and the phase with it.
    pub late: bool,
    /// It is stored already; the status is as it was and need not be written.
    pub repeated: bool,
}

/// Adds a row to the output of the attempt that this claim holds, or held last. `outcome` is
/// carried out in the same write. `spread` is the draw for the wait before a further attempt.
///
/// A row after the end is kept as a late one and changes neither phase nor digest. A row that is
/// there already is answered with the status as it is.
///
/// # Errors
/// [`NotNow::Stale`] when the claim is not, and was not last, the job's: the row will never be
/// wanted. [`NotNow::NotEligible`] when a row before it is missing, or `inline` does not fit.
pub fn store_row(
    job: &Job,
    claim_id: &str,
    row: &StoredRow,
    now: Timestamp,
    spread: f64,
) -> Result<(JobStatus, RowFate), NotNow> {
    let late = match held_by(job, claim_id) {
        Ok(_) => false,
        Err(NotNow::Ended(_)) if held_last(job, claim_id) => true,
        Err(_) => return Err(NotNow::Stale),
    };
    let status = job.status.as_ref().ok_or(NotNow::Stale)?;
    let stored = status.output.as_ref().map_or(0, |output| output.row_count);
    let number = i32::try_from(row.row).unwrap_or(i32::MAX);
    if number <= stored {
        let fate = RowFate {
            late,
            repeated: true,
        };
        return Ok((status.clone(), fate));
    }
    if number > stored + 1 {
        return Err(NotNow::NotEligible("a row before this one is missing"));
    }
    if row.inline.is_some() && !fits_inline(job, row.bytes) {
        return Err(NotNow::NotEligible("the row is too large for the Job"));
    }
    let mut draft = Draft::new(job, now);
    draft.add(number, row, late);
    if !late {
        draft.follow(row, spread);
    }
    let fate = RowFate {
        late,
        repeated: false,
    };
    Ok((draft.done(), fate))
}

/// Whether the job has ended with this claim.
fn held_last(job: &Job, claim_id: &str) -> bool {
    phase(job).is_some_and(Phase::is_terminal)
        && job
            .status
            .as_ref()
            .and_then(|status| status.claim.as_ref())
            .is_some_and(|claim| claim.claim_id == claim_id)
}

impl Draft<'_> {
    fn add(&mut self, number: i32, row: &StoredRow, late: bool) {
        let bytes = i64::try_from(row.bytes).unwrap_or(i64::MAX);
        let chunks = i32::try_from(row.chunks).unwrap_or(i32::MAX);
        let plain = if row.text {
            Encoding::Text
        } else {
            Encoding::Base64
        };
        let (encoding, content) = match &row.inline {
            Some(content) => {
                let (encoding, content) = encode(content, row.text);
                (encoding, Some(content))
            }
            None => (plain, None),
        };
        let output = self.status.output.get_or_insert_default();
        output.row_count = number;
        output.chunks = output.chunks.saturating_add(chunks);
        output.truncated |= row.truncated;
        if late {
            output.late_count = output.late_count.saturating_add(1);
        } else {
            output.bytes = i64::try_from(row.total_bytes).unwrap_or(i64::MAX);
            output.sha256 = hex(&row.sha256_of_all);
            output.encoding = encoding;
            output.preview = match &row.inline {
                Some(content) if row.preview.is_empty() => {
                    preview(content, encoding == Encoding::Text)
                }
                _ => first_chars(&row.preview, MAX_PREVIEW).to_owned(),
            };
        }
        if output.rows.len() < MAX_ROWS {
            output.rows.push(OutputRow {
                row: number,
                bytes,
                encoding,
                content,
                chunks,
                late,
            });
        }
    }

    /// Carries out what the row means.
    fn follow(&mut self, row: &StoredRow, spread: f64) {
        self.begin();
        let most = u64::try_from(self.job.spec.output_policy.max_bytes).unwrap_or_default();
        if row.total_bytes > most {
            if let Some(output) = &mut self.status.output {
                output.truncated = true;
            }
            let message = format!(
                "the plugin gave {} bytes; spec.outputPolicy.maxBytes allows {most}",
                row.total_bytes
            );
            return self.fail(Reason::OutputTooLarge, &message);
        }
        match &row.outcome {
            RowOutcome::More => {}
            RowOutcome::Succeeded => self.succeed(),
            RowOutcome::Failed { reason, message } => {
                let said = match message.as_str() {
                    "" => self
                        .status
                        .output
                        .as_ref()
                        .map_or("", |o| o.preview.as_str()),
                    message => message,
                };
                let said = untrusted_text(said);
                self.attempt_over(*reason, &said, spread);
            }
        }
    }

    fn succeed(&mut self) {
        let now = self.now();
        self.phase(Phase::Succeeded, Reason::Completed);
        self.status.completion_time = Some(times::micro(now));
        self.set(
            ConditionType::Complete,
            Is::True,
            Reason::Completed,
            "the plugin answered and its output is stored",
        );
    }
}
