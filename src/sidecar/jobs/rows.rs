//! The way of an output row from the plugin into the spool and the claim machine.

use std::time::Duration;

use super::claims::entry::RowEnd;
use super::claims::event::{Room, RowAnswer, RowGiven, RowId, RowOwner};
use super::spool::{SpoolError, Writing};
use super::{Jobs, clock};

/// A row waits so long for the operator to store others.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a row was not taken. It may be given again, under the same name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// Files.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The claim machine's limit of rows.
    #[error("keep the row: too many rows of this job wait for the operator already")]
    Full,
    /// The ledger.
    #[error("keep the row: the ledger could not be written")]
    NotWritten,
}

/// Where a row goes.
pub(crate) enum Begun {
    /// Nowhere: there it is already, or nobody wants it.
    Answered(RowAnswer),
    Writing(Writing),
}

/// Finds the place of a row; waits for one.
pub(crate) async fn begin(jobs: &Jobs, whose: &RowOwner, id: RowId) -> Result<Begun, RowError> {
    let place = async {
        loop {
            let freed = jobs.0.freed.notified();
            match jobs.room(whose, id) {
                Room::Answered(answer) => return Ok(Begun::Answered(answer)),
                Room::Bytes { most, digest } => {
                    return Ok(Begun::Writing(jobs.spool().begin(most, &digest)?));
                }
                Room::Full => freed.await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, place)
        .await
        .unwrap_or(Err(RowError::Full))
}

/// The row is whole.
pub(crate) fn end(
    jobs: &Jobs,
    whose: &RowOwner,
    id: RowId,
    writing: Writing,
    text: bool,
    end: RowEnd,
) -> Result<RowAnswer, RowError> {
    let row = writing.finish();
    let token = row.token;
    let answer = jobs.give_row(|caller| RowGiven {
        caller,
        whose: whose.clone(),
        id,
        text,
        spool: row.token,
        kept: row.kept,
        given: row.given,
        digest: row.digest,
        end,
        at_ms: clock::unix_millis(),
    });
    answer.ok_or_else(|| {
        if let Some(token) = token {
            jobs.spool().remove(token);
        }
        RowError::NotWritten
    })
}
