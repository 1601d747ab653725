//! Output: from the plugin into the ledger, from there to the operator until it is stored.

use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{self, ClaimQuery, RowStored};

use super::entry::{Entry, Kind, KnownRow, Row, RowEnd, State};
use super::event::{
    CallerId, ClaimId, Effect, Room, RowAnswer, RowGiven, RowId, RowOwner, SendRow,
};
use super::{ClaimMachine, lifecycle};

/// Rows on their way to the operator at a time.
const FLYING: usize = 4;
/// Rows of one job that wait for the operator, at most. The plugin waits beyond.
const PENDING: usize = 256;
/// Rows of one job at most: each may become an object in the cluster.
const ROWS: u32 = 10_000;

impl ClaimMachine {
    /// Where a row of that name would go. Asked before its bytes are read.
    pub fn room(&self, whose: &RowOwner, id: RowId) -> Room {
        let Some(entry) = self.taker(whose) else {
            return Room::Answered(RowAnswer::Dropped);
        };
        if let Some(known) = entry.known_row(id) {
            return Room::Answered(answer(known));
        }
        if entry.pending.len() >= PENDING {
            return Room::Full;
        }
        Room::Bytes {
            most: room(entry),
            digest: entry.digest.clone(),
        }
    }

    /// Who would take a row; nobody when the Job is gone.
    fn taker(&self, whose: &RowOwner) -> Option<&Entry> {
        let found = match whose {
            RowOwner::Job(uid) => self.of_job(uid),
            RowOwner::Claim(claim) => self.entries.get(claim).or_else(|| {
                let mut past = self.past.iter();
                past.find(|entry| entry.claim == *claim)
            }),
        };
        found.filter(|entry| entry.is_delivered() && entry.pcp_status().is_some())
    }

    pub(super) fn row_given(&mut self, given: RowGiven, effects: &mut Vec<Effect>) {
        let Some(entry) = self.taker(&given.whose) else {
            return refuse(given.spool, given.caller, RowAnswer::Dropped, effects);
        };
        let claim = entry.claim;
        if let Some(known) = entry.known_row(given.id) {
            return refuse(given.spool, given.caller, answer(known), effects);
        }
        let late = entry.is_late();
        let room = room(entry);
        let cut = given.given > given.kept || given.kept > room || entry.next_row > ROWS;
        if late && cut {
            return refuse(given.spool, given.caller, RowAnswer::TooLarge, effects);
        }
        self.revive(claim);
        let current = self.current;
        let mut number = 0;
        self.change(claim, effects, |entry| {
            number = entry.next_row;
            let end = match given.end {
                _ if late => RowEnd::More,
                _ if cut => RowEnd::Failed {
                    reason: "OutputTooLarge".to_owned(),
                    message: format!(
                        "the output has {} bytes so far; at most {} are kept in at most {ROWS} rows",
                        given.digest.bytes, entry.output_max_bytes
                    ),
                },
                end => end,
            };
            let row = Row {
                number,
                spool: given.spool,
                bytes: given.kept.min(room),
                text: given.text,
                end: end.clone(),
                at_ms: given.at_ms,
                whole: cut.then(|| (given.digest.bytes, given.digest.sha256.clone())),
            };
            entry.spec = None;
            entry.next_row += 1;
            entry.kept_bytes += row.bytes;
            entry.pending.push(row);
            entry.remember_row(KnownRow {
                id: given.id,
                number,
                late,
            });
            if !late {
                entry.digest = given.digest;
                lifecycle::mark_alive(entry, current);
                end_with(entry, &end);
            }
        });
        self.queue(claim, number);
        let answer = match cut {
            true => RowAnswer::TooLarge,
            false => RowAnswer::Kept { row: number, late },
        };
        effects.push(Effect::AnswerRow(given.caller, answer));
    }

    /// A settled claim gets its late row kept as a living one does.
    fn revive(&mut self, claim: ClaimId) {
        if let Some(index) = self.past.iter().position(|past| past.claim == claim)
            && let Some(entry) = self.past.remove(index)
        {
            self.entries.insert(claim, entry);
        }
    }

    /// The job does not fit the plugin: it ends without having been seen.
    pub(super) fn unfit(
        &mut self,
        claim: ClaimId,
        reason: &str,
        message: String,
        at_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if self.entries.get(&claim).is_none_or(Entry::is_late) {
            return;
        }
        let mut number = 0;
        self.change(claim, effects, |entry| {
            number = entry.next_row;
            let end = RowEnd::Failed {
                reason: reason.to_owned(),
                message,
            };
            entry.next_row += 1;
            entry.pending.push(Row {
                number,
                spool: None,
                bytes: 0,
                text: true,
                end: end.clone(),
                at_ms,
                whole: None,
            });
            entry.spec = None;
            end_with(entry, &end);
        });
        self.queue(claim, number);
    }

    fn queue(&mut self, claim: ClaimId, number: u32) {
        if self.session.is_some() {
            self.unsent.push_back((claim, number));
        }
    }

    /// Sends as many rows as may be on their way.
    pub(super) fn send_rows(&mut self, effects: &mut Vec<Effect>) {
        while self.unacknowledged.len() < FLYING
            && let Some((claim, number)) = self.unsent.pop_front()
        {
            let Some(entry) = self.entries.get(&claim) else {
                continue;
            };
            if let Some(row) = entry.pending.iter().find(|row| row.number == number) {
                self.unacknowledged.insert((claim, number));
                effects.push(Effect::SendRow(Box::new(SendRow {
                    claim,
                    job_uid: entry.job_uid.clone(),
                    job: entry.job.clone(),
                    row: row.clone(),
                })));
            }
        }
    }

    pub(super) fn row_stored(&mut self, stored: RowStored, effects: &mut Vec<Effect>) {
        let claim = stored.claim.as_ref();
        let Some(claim) = claim.and_then(|name| ClaimId::parse(&name.claim_id)) else {
            return;
        };
        self.unacknowledged.remove(&(claim, stored.row));
        let Some(entry) = self.entries.get(&claim) else {
            return;
        };
        let found = entry.pending.iter().find(|row| row.number == stored.row);
        if found.is_none() && !stored.settled {
            return;
        }
        let spool = found.and_then(|row| row.spool);
        let rest = entry.pending.len() - usize::from(found.is_some());
        let over = stored.settled || entry.is_over();
        let phase = match &entry.state {
            State::Over { phase } if !stored.settled => phase.clone(),
            _ => stored.phase,
        };
        if over {
            self.stop_call(claim, effects);
        }
        if over && rest == 0 {
            self.settle(claim, phase, effects);
        } else {
            let entry = self.change(claim, effects, |entry| {
                entry.pending.retain(|row| row.number != stored.row);
                if over {
                    entry.state = State::Over { phase };
                }
            });
            let said = entry
                .filter(|_| rest == 0)
                .and_then(lifecycle::state_message);
            if let Some(said @ Up::Lost(_)) = said {
                self.say(said, effects);
            }
        }
        effects.extend(spool.map(Effect::RemoveSpool));
    }

    /// A call whose job is over need not go on.
    pub(super) fn stop_call(&mut self, claim: ClaimId, effects: &mut Vec<Effect>) {
        let runs = self
            .entries
            .get(&claim)
            .is_some_and(|entry| entry.kind == Kind::Call && entry.holder().is_some());
        if runs {
            effects.push(Effect::CancelCall(claim));
        }
    }

    /// Each query is answered; an unknown claim will never be delivered.
    pub(super) fn claim_queried(&mut self, query: ClaimQuery, effects: &mut Vec<Effect>) {
        for told in query.claims {
            let claim = told.claim.as_ref();
            let claim = claim.and_then(|name| ClaimId::parse(&name.claim_id));
            let living = claim.and_then(|claim| self.entries.get(&claim));
            let settled = self.past.iter().any(|past| Some(past.claim) == claim);
            let (known, delivered) = match living {
                Some(entry) => (true, entry.is_delivered()),
                None => (settled, settled),
            };
            if let (Some(claim), false) = (claim, known) {
                self.forget_work_request(claim);
            }
            let answer = session::ClaimQueryReply {
                claim: told.claim,
                known,
                delivered,
                job: told.job,
            };
            self.say(Up::ClaimQueryReply(answer), effects);
        }
    }
}

fn refuse(spool: Option<u64>, caller: CallerId, answer: RowAnswer, effects: &mut Vec<Effect>) {
    effects.extend(spool.map(Effect::RemoveSpool));
    effects.push(Effect::AnswerRow(caller, answer));
}

fn answer(known: KnownRow) -> RowAnswer {
    RowAnswer::Kept {
        row: known.number,
        late: known.late,
    }
}

fn room(entry: &Entry) -> u64 {
    entry.output_max_bytes.saturating_sub(entry.kept_bytes)
}

fn end_with(entry: &mut Entry, end: &RowEnd) {
    match end {
        RowEnd::More => {}
        RowEnd::Succeeded => entry.state = State::Answered { succeeded: true },
        RowEnd::Failed { .. } => entry.state = State::Answered { succeeded: false },
    }
}
