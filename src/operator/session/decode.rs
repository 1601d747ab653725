//! From the wire to letters and words about jobs, bounded: what does not fit a bound is no message
//! at all, for a shortened name would be somebody else's.

use crate::jobs::messages::{
    ClaimOf, DispatchMessage, Entry, JobUpdate, OutputChunk, RowEnd, RowEnding,
};
use crate::text::bounded_text;
use patchbay_protocol::session as wire;
use wire::from_sidecar::Message;

/// Entries of a ledger; a longer one is not read in part, since what is missing in it counts as
/// never delivered.
const LEDGER: usize = 4096;
/// Longest name of a Job as the API server takes it.
const NAME: usize = 63;
/// A client's address or name; one that is longer can be nobody's.
const MAX_CLIENT: usize = 254;
/// A port; one that is longer can be nobody's.
const PORT: usize = 16;
/// Longest wait of an request.
const MAX_WAIT_MS: u32 = 60_000;
const MESSAGE: usize = 1024;

/// What a message about jobs says.
pub(super) enum JobMessage {
    /// To the dispatcher.
    DispatchMessage(DispatchMessage),
    /// About a job that the pod has.
    JobUpdate(ClaimOf, JobUpdate),
    /// Nothing that could be understood.
    Nonsense(&'static str),
}

/// The ledger of a greeting; nothing when it is not what a ledger can be.
pub(super) fn ledger(hello: &mut wire::SidecarHello) -> Option<(String, Vec<Entry>)> {
    let ledger = std::mem::take(&mut hello.ledger);
    if ledger.len() > LEDGER {
        return None;
    }
    let epoch = digits(&hello.ledger_epoch)?;
    let entries = ledger
        .into_iter()
        .map(|entry| {
            Some(Entry {
                claim: claim(entry.claim, entry.job)?,
                delivered: entry.delivered,
            })
        })
        .collect::<Option<Vec<Entry>>>()?;
    Some((epoch, entries))
}

/// Reads a message; nothing when it is not about jobs.
pub(super) fn read(message: Message) -> Option<JobMessage> {
    let said = match message {
        Message::Hello(_) | Message::Instance(_) | Message::Counters(_) | Message::Pong(_) => {
            return None;
        }
        Message::WorkRequest(request) => read_work_request(&request),
        Message::CancelRequest(wire::CancelRequest { claim_id }) => match digits(&claim_id) {
            Some(claim_id) => {
                JobMessage::DispatchMessage(DispatchMessage::CancelRequest { claim_id })
            }
            None => JobMessage::Nonsense("CancelRequest"),
        },
        Message::ClaimReturned(released) => match claim(released.claim, released.job) {
            Some(claim) => JobMessage::DispatchMessage(DispatchMessage::ClaimReturned {
                claim,
                why: bounded_text(&released.why, MESSAGE),
            }),
            None => JobMessage::Nonsense("ClaimReturned"),
        },
        Message::ClaimQueryReply(answer) => match claim(answer.claim, answer.job) {
            Some(claim) => JobMessage::DispatchMessage(DispatchMessage::ClaimQueryReply {
                claim,
                known: answer.known,
            }),
            None => JobMessage::Nonsense("ClaimQueryReply"),
        },
        Message::Started(started) => match claim(started.claim, started.job) {
            Some(claim) => JobMessage::JobUpdate(claim, JobUpdate::Started),
            None => JobMessage::Nonsense("Started"),
        },
        Message::Row(row) => read_row(row),
        Message::Lost(lost) => match claim(lost.claim, lost.job) {
            Some(claim) => JobMessage::JobUpdate(
                claim,
                JobUpdate::Lost {
                    exit: lost.exit.map(|exit| exit_text(&exit)).unwrap_or_default(),
                    message: bounded_text(&lost.message, MESSAGE),
                },
            ),
            None => JobMessage::Nonsense("Lost"),
        },
    };
    Some(said)
}

fn read_work_request(request: &wire::WorkRequest) -> JobMessage {
    let Some(claim_id) = digits(&request.claim_id) else {
        return JobMessage::Nonsense("WorkRequest");
    };
    JobMessage::DispatchMessage(DispatchMessage::WorkRequest {
        claim_id,
        client: request.client.as_deref().map(|text| cut(text, MAX_CLIENT)),
        port: request.port.as_deref().map(|text| cut(text, PORT)),
        wait_ms: request.wait_ms.min(MAX_WAIT_MS),
    })
}

fn read_row(row: wire::Row) -> JobMessage {
    let outcome = row.outcome();
    let Some(claim) = claim(row.claim, row.job) else {
        return JobMessage::Nonsense("Row");
    };
    if row.row == 0 || i32::try_from(row.row).is_err() {
        return JobMessage::Nonsense("Row");
    }
    let end = row.last.then(|| RowEnd {
        text: row.text,
        outcome: match outcome {
            wire::Outcome::Unspecified => RowEnding::More,
            wire::Outcome::Succeeded => RowEnding::Succeeded,
            wire::Outcome::Failed => RowEnding::Failed {
                reason: bounded_text(&row.reason, 64),
                message: bounded_text(&row.message, MESSAGE),
            },
        },
        cut: sha256(&row.whole_sha256).map(|sha256| (row.whole_bytes, sha256)),
    });
    let piece = OutputChunk {
        row: row.row,
        offset: row.offset,
        data: row.data,
        end,
    };
    JobMessage::JobUpdate(claim, JobUpdate::OutputChunk(piece))
}

fn claim(claim: Option<wire::ClaimName>, job: String) -> Option<ClaimOf> {
    let claim = claim?;
    Some(ClaimOf {
        claim_id: digits(&claim.claim_id)?,
        job: name(job)?,
        uid: uid(claim.job_uid)?,
    })
}

/// 32 hexadecimal digits in small letters.
fn digits(text: &str) -> Option<String> {
    let small_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 32 && text.bytes().all(small_hex)).then(|| text.to_owned())
}

/// It becomes a part of a path.
fn name(text: String) -> Option<String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let sound = (1..=NAME).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with(['-', '.']);
    sound.then_some(text)
}

fn uid(text: String) -> Option<String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    ((1..=64).contains(&text.len()) && text.bytes().all(inner)).then_some(text)
}

fn cut(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn exit_text(exit: &wire::Exit) -> String {
    match exit.how {
        Some(wire::exit::How::Code(code)) => format!("exit code {code}"),
        Some(wire::exit::How::Signal(signal)) => format!("signal {signal}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = "0123456789abcdef0123456789abcdef";

    fn wire_claim() -> wire::ClaimName {
        wire::ClaimName {
            claim_id: CLAIM.into(),
            job_uid: "0a1b-2c".into(),
        }
    }

    fn ours(claim: &ClaimOf) -> bool {
        claim.claim_id == CLAIM && claim.job == "j-1" && claim.uid == "0a1b-2c"
    }

    #[test]
    fn message_with_an_invalid_name_is_dropped() {
        let released = |claim_id: &str, job_uid: &str, job: &str| {
            read(Message::ClaimReturned(wire::ClaimReturned {
                claim: Some(wire::ClaimName {
                    claim_id: claim_id.into(),
                    job_uid: job_uid.into(),
                }),
                job: job.into(),
                why: "x".repeat(5000),
            }))
        };
        let Some(JobMessage::DispatchMessage(DispatchMessage::ClaimReturned { claim, why })) =
            released(CLAIM, "0a1b-2c", "j-1")
        else {
            panic!("a good letter");
        };
        assert!(ours(&claim));
        assert_eq!(why.len(), MESSAGE);
        let long = "a".repeat(64);
        for (claim_id, uid, job) in [
            ("", "u", "j"),
            ("0123456789ABCDEF0123456789ABCDEF", "u", "j"),
            (CLAIM, "", "j"),
            (CLAIM, "../u", "j"),
            (CLAIM, "u", ""),
            (CLAIM, "u", "../secrets"),
            (CLAIM, "u", "j/status"),
            (CLAIM, "u", &long),
        ] {
            let read = released(claim_id, uid, job);
            assert!(
                matches!(read, Some(JobMessage::Nonsense("ClaimReturned"))),
                "{job}"
            );
        }
    }

    #[test]
    fn an_address_that_is_too_long_stays_too_long() {
        let request = wire::WorkRequest {
            claim_id: CLAIM.into(),
            client: Some("ä".repeat(1000)),
            port: Some("8".repeat(1000)),
            wait_ms: u32::MAX,
        };
        let Some(JobMessage::DispatchMessage(DispatchMessage::WorkRequest {
            client,
            port,
            wait_ms,
            ..
        })) = read(Message::WorkRequest(request))
        else {
            panic!("an request");
        };
        assert_eq!(client.unwrap().len(), 254);
        assert_eq!(port.unwrap().len(), 16);
        assert_eq!(wait_ms, MAX_WAIT_MS);
    }

    #[test]
    fn a_ledger_is_read_whole_or_not_at_all() {
        let entry = |job: &str| wire::LedgerEntry {
            claim: Some(wire_claim()),
            job: job.into(),
            delivered: true,
        };
        let hello = |ledger| wire::SidecarHello {
            ledger_epoch: CLAIM.into(),
            ledger,
            ..wire::SidecarHello::default()
        };
        let (epoch, entries) = ledger(&mut hello(vec![entry("j-1")])).unwrap();
        assert_eq!(epoch, CLAIM);
        assert!(ours(&entries[0].claim) && entries[0].delivered);
        assert!(ledger(&mut hello(vec![entry("j-1"), entry("/")])).is_none());
        assert!(ledger(&mut hello(vec![entry("j-1"); LEDGER + 1])).is_none());
        assert!(ledger(&mut wire::SidecarHello::default()).is_none());
    }

    #[test]
    fn only_the_last_piece_of_a_row_says_what_it_means() {
        let row = |last| wire::Row {
            claim: Some(wire_claim()),
            job: "j-1".into(),
            row: 2,
            offset: 5,
            data: vec![1, 2],
            last,
            text: true,
            outcome: wire::Outcome::Failed.into(),
            reason: "PluginError".into(),
            message: "no\nway".into(),
            whole_bytes: 9,
            whole_sha256: "ff".repeat(32),
            ..wire::Row::default()
        };
        let piece = |last| match read(Message::Row(row(last))) {
            Some(JobMessage::JobUpdate(claim, JobUpdate::OutputChunk(piece))) if ours(&claim) => {
                piece
            }
            _ => panic!("a piece"),
        };
        assert_eq!(piece(false).end, None);
        let end = piece(true).end.unwrap();
        assert_eq!(end.cut, Some((9, [255; 32])));
        assert!(
            matches!(end.outcome, RowEnding::Failed { message, .. } if !message.contains('\n'))
        );
        let mut zero = row(true);
        zero.row = 0;
        assert!(matches!(
            read(Message::Row(zero)),
            Some(JobMessage::Nonsense(_))
        ));
    }
}
