//! The rows of output in a Job's history, from its status and the names of its JobOutputs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use patchbay_api::job_status::{Encoding, OutputRow, Phase};
use patchbay_api::{ConditionType, JobStatus};
use serde::Serialize;

use super::JobObjects;
use super::history::{HistoryEntry, HistoryStep, find, since};

/// At most this many rows of output are listed for one attempt: the first and the last ones.
const MAX_ROWS: usize = 20;

/// One row of output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OutputEntry {
    pub(super) row: i32,
    /// Absent if only its JobOutputs are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<i64>,
    /// JobOutputs that hold the row; 0 if it is in the Job's status.
    pub(super) chunks: i32,
    /// Beginning of the row, if it is text in the Job's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) preview: Option<String>,
    /// Rows after this one that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) omitted: usize,
}

// serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Rows of output of all attempts.
pub(super) fn rows(status: &JobStatus, objects: &JobObjects) -> Vec<HistoryEntry> {
    let mut rows: BTreeMap<(i32, i32), HistoryEntry> = BTreeMap::new();
    let started = find(status, ConditionType::Started)
        .filter(|started| started.status == "True")
        .and_then(since);
    let mut not_before = started.max(status.claim.as_ref().map(|claim| claim.claimed_at.0));
    // From the names and times of JobOutputs, also of earlier attempts.
    for object in &objects.outputs {
        let Some((attempt, row)) = object.name.as_deref().and_then(attempt_and_row) else {
            continue;
        };
        let stored = object.creation_timestamp.as_ref().map(|time| time.0);
        let entry = rows.entry((attempt, row)).or_insert_with(|| {
            let mut entry = HistoryEntry::new(stored, HistoryStep::Output).attempt(attempt);
            entry.output = Some(OutputEntry {
                row,
                ..OutputEntry::default()
            });
            entry
        });
        // A row is there when its last piece is.
        entry.time = entry.time.max(stored);
        entry.not_before = entry.time;
        if let Some(output) = &mut entry.output {
            output.chunks += 1;
        }
    }
    // From the status, with lengths. The rows in it belong to the current attempt.
    let current = status.output.as_ref();
    for row in current.map_or(&[][..], |output| &output.rows) {
        let key = (status.attempt, row.row);
        let entry = rows.entry(key).or_insert_with(|| {
            HistoryEntry::new(None, HistoryStep::Output).attempt(status.attempt)
        });
        entry.output = Some(OutputEntry {
            row: row.row,
            bytes: Some(row.bytes),
            chunks: row.chunks,
            preview: preview(row),
            omitted: 0,
        });
        if row.late {
            entry.step = HistoryStep::LateOutput;
        }
    }
    let ended = status.completion_time.as_ref().map(|time| time.0);
    let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
    for ((attempt, _), entry) in &mut rows {
        // `late` is only recorded for rows that the status lists.
        let is_late = *attempt == status.attempt && second(entry.time) > second(ended);
        if ended.is_some() && is_late {
            entry.step = HistoryStep::LateOutput;
        }
    }
    // The row of a result, and that of an expiry, is stored in the same write as the end.
    let ends_with_row = status.phase == Some(Phase::Succeeded) || status.claim.is_none();
    let last = rows
        .iter()
        .rfind(|(_, entry)| entry.step == HistoryStep::Output)
        .map(|(key, _)| *key)
        .filter(|_| ends_with_row);
    for (key, entry) in &mut rows {
        if entry.step == HistoryStep::LateOutput {
            not_before = not_before.max(ended);
        } else if Some(*key) == last {
            entry.time = entry.time.or(ended);
        }
        not_before = not_before.max(entry.time);
        entry.not_before = entry.time.or(not_before);
    }
    let mut entries: Vec<HistoryEntry> = rows.into_values().collect();
    if current.is_some_and(|output| output.truncated)
        && let Some(last) = entries.last_mut()
    {
        last.message = "the plugin gave more output than is kept".to_owned();
    }
    shorten(entries)
}

/// `NAME-ATTEMPT-ROW-CHUNK`.
fn attempt_and_row(name: &str) -> Option<(i32, i32)> {
    let mut parts = name.rsplitn(4, '-').skip(1);
    let row = parts.next()?.parse().ok()?;
    let attempt = parts.next()?.parse().ok()?;
    Some((attempt, row))
}

fn preview(row: &OutputRow) -> Option<String> {
    const MAX: usize = 60;
    let content = row.content.as_deref()?;
    if row.encoding != Encoding::Text {
        return None;
    }
    let mut preview: String = content.chars().take(MAX).collect();
    if preview.len() < content.len() {
        preview.push('…');
    }
    Some(preview)
}

/// Leaves out the rows in the middle of each attempt with many rows.
fn shorten(entries: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
    let mut by_attempt: BTreeMap<Option<i32>, Vec<HistoryEntry>> = BTreeMap::new();
    for entry in entries {
        by_attempt.entry(entry.attempt).or_default().push(entry);
    }
    let mut kept = Vec::new();
    for mut rows in by_attempt.into_values() {
        let omitted = rows.len().saturating_sub(MAX_ROWS);
        if omitted > 0 {
            rows.drain(MAX_ROWS / 2..MAX_ROWS / 2 + omitted);
            if let Some(output) = &mut rows[MAX_ROWS / 2 - 1].output {
                output.omitted = omitted;
            }
        }
        kept.append(&mut rows);
    }
    kept
}
