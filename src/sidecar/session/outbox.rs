//! What Jobs have to say to the operator: small messages first, rows of output in pieces.

use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{ClaimName, FromSidecar, Outcome, Row};
use tokio::sync::mpsc;
use tonic::Status;

use crate::jobs::claims::entry::RowEnd;
use crate::jobs::claims::event::SendRow;
use crate::jobs::spool::Spool;

/// Largest piece of a row in bytes.
pub(super) const PIECE: usize = 256 * 1024;

type Sending = mpsc::Sender<Result<FromSidecar, Status>>;

/// Sends until the session is over. An ask never waits behind more than one piece of a row.
pub(super) async fn empty(
    mut messages: mpsc::UnboundedReceiver<Up>,
    mut rows: mpsc::UnboundedReceiver<SendRow>,
    spool: Spool,
    up: Sending,
) {
    loop {
        let sent = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(message) => send(&up, message).await,
                None => return,
            },
            row = rows.recv() => match row {
                Some(row) => in_pieces(&mut messages, &row, &spool, &up).await,
                None => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Nobody takes messages any more.
struct Closed;

async fn send(up: &Sending, message: Up) -> Result<(), Closed> {
    let message = FromSidecar {
        message: Some(message),
    };
    up.send(Ok(message)).await.map_err(|_| Closed)
}

async fn in_pieces(
    messages: &mut mpsc::UnboundedReceiver<Up>,
    row: &SendRow,
    spool: &Spool,
    up: &Sending,
) -> Result<(), Closed> {
    let mut offset = 0;
    loop {
        let piece = piece(row, spool, offset);
        let last = piece.last;
        offset += piece.data.len() as u64;
        send(up, Up::Row(piece)).await?;
        if last {
            return Ok(());
        }
        while let Ok(message) = messages.try_recv() {
            send(up, message).await?;
        }
        if messages.is_closed() {
            return Err(Closed);
        }
    }
}

/// The piece of a row that begins there.
fn piece(sent: &SendRow, spool: &Spool, offset: u64) -> Row {
    let row = &sent.row;
    let left = row.bytes.saturating_sub(offset);
    let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let read = match row.spool {
        Some(token) if length > 0 => spool.piece(token, offset, length),
        _ => Ok(Vec::new()),
    };
    let mut piece = Row {
        claim: Some(ClaimName {
            claim_id: sent.claim.to_string(),
            job_uid: sent.job_uid.clone(),
        }),
        job: sent.job.clone(),
        row: row.number,
        offset,
        ..Row::default()
    };
    let end = match read {
        Ok(data) => {
            piece.last = left == data.len() as u64;
            piece.data = data;
            row.end.clone()
        }
        // The volume is broken. A job whose output is incomplete has not succeeded.
        Err(error) => {
            tracing::error!(job = sent.job, row = row.number, %error, "output cannot be read back");
            piece.last = true;
            RowEnd::Failed {
                reason: "OutputTooLarge".to_owned(),
                message: format!("the sidecar could not read its output back: {error}"),
            }
        }
    };
    if piece.last {
        piece.text = row.text;
        piece.at_ms = row.at_ms;
        if let Some((bytes, sha256)) = &row.whole {
            piece.whole_bytes = *bytes;
            piece.whole_sha256.clone_from(sha256);
        }
        match end {
            RowEnd::More => {}
            RowEnd::Succeeded => piece.set_outcome(Outcome::Succeeded),
            RowEnd::Failed { reason, message } => {
                piece.set_outcome(Outcome::Failed);
                (piece.reason, piece.message) = (reason, message);
            }
        }
    }
    piece
}
