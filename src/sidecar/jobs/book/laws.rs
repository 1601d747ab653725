//! What must hold whatever happens, in whichever order: a leader that is late, repeats itself, dies
//! and is replaced; a plugin that is restarted; a sidecar that is killed between any two steps.

use super::entry::RowEnd;
use super::words::*;
use super::*;
use patchbay_launcher::control::Exit;
use patchbay_protocol::session::{
    Cancel, ClaimName, Doubt, Grant, LedgerEntry, Nothing, RowStored,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Request(u8),
    Gone(u8),
    /// Grants one of the asks that were ever heard, with this time left.
    Grant(u8, u64),
    Nothing(u8),
    Doubt(u8),
    Cancel(u8),
    Row(u8, bool),
    Stored(bool),
    Active(u8),
    Open,
    Close,
    /// From this session on, perhaps an older one.
    Behind(u8),
    Start(u8),
    End(u8),
    Callable(bool),
    /// Killed after so many things were done of what the next step asks for.
    Kill(u8),
    /// The next write fails.
    Full,
    /// The next hand-over finds nobody.
    Deaf,
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..6_u8;
    let step = prop_oneof![
        6 => (0..900_u64).prop_map(Step::Wait),
        8 => which.clone().prop_map(Step::Request),
        1 => which.clone().prop_map(Step::Gone),
        8 => (which.clone(), prop_oneof![Just(0_u64), 1..1500_u64]).prop_map(|(n, left)| Step::Grant(n, left)),
        2 => which.clone().prop_map(Step::Nothing),
        2 => which.clone().prop_map(Step::Doubt),
        1 => which.clone().prop_map(Step::Cancel),
        5 => (which.clone(), any::<bool>()).prop_map(|(n, last)| Step::Row(n, last)),
        4 => any::<bool>().prop_map(Step::Stored),
        1 => which.clone().prop_map(Step::Active),
        3 => Just(Step::Open),
        1 => Just(Step::Close),
        1 => which.clone().prop_map(Step::Behind),
        2 => (0..3_u8).prop_map(Step::Start),
        1 => (0..3_u8).prop_map(Step::End),
        1 => any::<bool>().prop_map(Step::Callable),
        2 => (0..5_u8).prop_map(Step::Kill),
        1 => Just(Step::Full),
        1 => Just(Step::Deaf),
        1 => Just(Step::Leave),
    ];
    proptest::collection::vec(step, 0..60)
}

/// What the world has seen of one claim.
#[derive(Debug, Default)]
struct Seen {
    /// Asked for in this session.
    session: u64,
    asked_at: u64,
    /// Strictly before, by the leader's first grant.
    deadline: Option<u64>,
    granted: bool,
    /// Who got it.
    to: Option<RequestId>,
    called: u32,
    released: bool,
    disowned: bool,
    /// The leader knows its end.
    over: bool,
    rows: Vec<u32>,
}

#[derive(Default)]
struct World {
    book: Option<Book>,
    now: u64,
    minted: u128,
    disk: BTreeMap<ClaimId, Entry>,
    claims: BTreeMap<ClaimId, Seen>,
    asked: Vec<ClaimId>,
    sent: Vec<(ClaimId, u32)>,
    session: u64,
    behind: u64,
    callers: u64,
    rows: u128,
    kill_after: Option<u8>,
    full: bool,
    deaf: bool,
}

impl World {
    fn hear(&mut self, heard: Heard) {
        let mut queue = VecDeque::from([heard]);
        while let Some(heard) = queue.pop_front() {
            let mut todo = Vec::new();
            let mut minted = self.minted;
            let mut fresh = || {
                minted += 1;
                ClaimId(minted)
            };
            let now = Now {
                mono_ms: self.now,
                fresh: &mut fresh,
            };
            if let Some(book) = &mut self.book {
                book.hear(now, heard, &mut todo);
            }
            self.minted = minted;
            let mut failed: Vec<ClaimId> = Vec::new();
            for todo in todo {
                if failed.iter().any(|claim| todo.needs(*claim)) {
                    continue;
                }
                if self.kill_after == Some(0) {
                    return self.kill();
                }
                self.kill_after = self.kill_after.map(|left| left - 1);
                failed.extend(self.carry_out(todo, &mut queue).err());
            }
            for claim in failed {
                queue.push_front(Heard::NotWritten(claim));
            }
        }
        let book = self.book.as_ref().unwrap();
        // What it knows and what is on the disk are the same.
        let living: BTreeMap<ClaimId, Entry> = book
            .entries()
            .map(|entry| (entry.claim, entry.clone()))
            .collect();
        let woken: BTreeMap<ClaimId, Entry> = self
            .disk
            .iter()
            .map(|(claim, entry)| {
                let mut entry = entry.clone();
                if !living.contains_key(claim) || living[claim].state != entry.state {
                    life::wake(&mut entry);
                }
                (*claim, entry)
            })
            .collect();
        assert_eq!(living, woken);
        assert!(book.flying.len() <= 4 && book.past.len() <= REMEMBERED);
    }

    fn kill(&mut self) {
        self.kill_after = None;
        self.book = Some(Book::new(self.disk.values().cloned().collect()));
    }

    fn carry_out(&mut self, todo: Todo, queue: &mut VecDeque<Heard>) -> Result<(), ClaimId> {
        match todo {
            Todo::WriteEntry(entry) => {
                if std::mem::take(&mut self.full) {
                    return Err(entry.claim);
                }
                self.disk.insert(entry.claim, *entry);
            }
            Todo::RemoveEntry(claim) => {
                self.disk.remove(&claim);
            }
            Todo::HandOver {
                request,
                before_ms,
                count,
                entry,
            } => {
                if std::mem::take(&mut self.deaf) {
                    queue.push_back(Heard::NotHanded(entry.claim, count));
                    return Ok(());
                }
                let seen = self.claims.get_mut(&entry.claim).unwrap();
                assert!(self.disk[&entry.claim].is_delivered(), "not in the ledger");
                assert!(!seen.released && !seen.disowned, "given back before");
                assert!(seen.to.is_none_or(|to| to == request), "two got it");
                assert_eq!((seen.called, before_ms), (0, seen.deadline));
                assert!(seen.deadline.is_none_or(|at| self.now < at), "expired");
                seen.to = Some(request);
            }
            Todo::Call { before_ms, entry } => {
                let seen = self.claims.get_mut(&entry.claim).unwrap();
                assert!(self.disk[&entry.claim].is_delivered(), "not in the ledger");
                assert!(!seen.released && !seen.disowned && seen.to.is_none());
                assert_eq!((seen.called, before_ms), (0, seen.deadline));
                assert!(seen.deadline.is_none_or(|at| self.now < at), "expired");
                seen.called += 1;
            }
            Todo::Send(Up::Ask(ask)) => {
                let claim = ClaimId::parse(&ask.claim_id).unwrap();
                let seen = Seen {
                    session: self.session,
                    asked_at: self.now,
                    ..Seen::default()
                };
                assert!(self.claims.insert(claim, seen).is_none(), "asked twice");
                self.asked.push(claim);
            }
            Todo::Send(Up::Released(released)) => {
                let claim = ClaimId::parse(&released.claim.unwrap().claim_id).unwrap();
                let seen = self.claims.get_mut(&claim).unwrap();
                assert!(seen.to.is_none() && seen.called == 0, "it was handed over");
                assert!(!self.disk.contains_key(&claim), "it is still in the ledger");
                seen.released = true;
            }
            Todo::Send(Up::LedgerAnswer(answer)) => {
                let claim = ClaimId::parse(&answer.claim.unwrap().claim_id).unwrap();
                let seen = self.claims.get_mut(&claim).unwrap();
                if !answer.delivered && !answer.known {
                    // Settled claims are forgotten with the process; the leader knows their end.
                    seen.disowned = true;
                }
            }
            Todo::SendRow(row) => {
                let seen = self.claims.get_mut(&row.claim).unwrap();
                // Again after a break, else one after the other.
                let next = seen.rows.iter().max().map_or(1, |last| last + 1);
                assert!(row.row.number <= next, "a row was passed over");
                seen.rows.push(row.row.number);
                self.sent.push((row.claim, row.row.number));
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, step: Step) {
        let pick = |list: &[ClaimId], which: u8| {
            // The newest are the likeliest to matter.
            let index = list.len().checked_sub(1 + usize::from(which))?;
            list.get(index).copied()
        };
        let session = self.session - self.behind.min(self.session);
        let name = |claim: ClaimId| ClaimName {
            claim_id: claim.to_string(),
            job_uid: format!("uid-{}", claim.0),
        };
        match step {
            Step::Wait(millis) => {
                self.now += millis;
                self.hear(Heard::Tick);
            }
            Step::Request(which) => {
                let filter = Filter {
                    location: (which % 2 == 0).then(|| "a".to_owned()),
                    port: None,
                };
                self.hear(Heard::Request(RequestId(which.into()), filter));
            }
            Step::Gone(which) => self.hear(Heard::RequestGone(RequestId(which.into()))),
            Step::Grant(which, remaining_ms) => {
                let Some(claim) = pick(&self.asked, which) else {
                    return;
                };
                let seen = self.claims.get_mut(&claim).unwrap();
                // A leader grants a claim once, and repeats itself word for word. What it was told
                // is free, or over, it does not grant again.
                if seen.released || seen.disowned || seen.over {
                    return;
                }
                if !seen.granted {
                    seen.granted = true;
                    seen.deadline = (remaining_ms > 0).then(|| seen.asked_at + remaining_ms);
                }
                let remaining_ms = seen.deadline.map_or(0, |at| at - seen.asked_at);
                let heard = session;
                let grant = Grant {
                    claim: Some(name(claim)),
                    job: "job".to_owned(),
                    spec_json: b"{}".to_vec(),
                    remaining_ms,
                    held_ms: 0,
                    attempt: 1,
                    active_deadline_ms: 0,
                    output_max_bytes: 100,
                    start_time: String::new(),
                };
                self.hear(Heard::Down(heard, Down::Grant(grant)));
            }
            Step::Nothing(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    let claim_id = claim.to_string();
                    self.hear(Heard::Down(session, Down::Nothing(Nothing { claim_id })));
                }
            }
            Step::Doubt(which) => {
                let Some(claim) = pick(&self.asked, which) else {
                    return;
                };
                let claims = vec![LedgerEntry {
                    claim: Some(name(claim)),
                    job: "job".to_owned(),
                    delivered: false,
                }];
                self.hear(Heard::Down(session, Down::Doubt(Doubt { claims })));
            }
            Step::Cancel(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    self.claims.get_mut(&claim).unwrap().over = true;
                    let cancel = Cancel {
                        claim: Some(name(claim)),
                        reason: "Cancelled".to_owned(),
                    };
                    self.hear(Heard::Down(session, Down::Cancel(cancel)));
                }
            }
            Step::Row(which, last) => {
                let Some(claim) = pick(&self.asked, which) else {
                    return;
                };
                self.callers += 1;
                self.rows += 1;
                let row = RowGiven {
                    caller: self.callers,
                    whose: Whose::Claim(claim),
                    // Sometimes one that was given before.
                    id: RowId(self.rows / 2),
                    text: true,
                    spool: None,
                    kept: 10,
                    given: 10,
                    digest: Default::default(),
                    end: if last {
                        RowEnd::Succeeded
                    } else {
                        RowEnd::More
                    },
                    at_ms: 0,
                };
                self.hear(Heard::RowGiven(Box::new(row)));
            }
            Step::Stored(settled) => {
                if let Some((claim, row)) = self.sent.pop() {
                    self.claims.get_mut(&claim).unwrap().over |= settled;
                    let stored = RowStored {
                        claim: Some(name(claim)),
                        row,
                        settled,
                        phase: "Failed".to_owned(),
                    };
                    self.hear(Heard::Down(session, Down::RowStored(stored)));
                }
            }
            Step::Active(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    self.callers += 1;
                    self.hear(Heard::Active(self.callers, name(claim).job_uid));
                }
            }
            Step::Open => {
                self.session += 1;
                self.behind = 0;
                let session = self.session;
                self.hear(Heard::SessionOpened {
                    session,
                    jobs: true,
                });
            }
            Step::Close => self.hear(Heard::SessionClosed(session)),
            Step::Behind(sessions) => self.behind = u64::from(sessions % 2),
            Step::Start(which) => self.hear(Heard::PluginStarted(StartId(which.into()))),
            Step::End(which) => {
                self.hear(Heard::PluginEnded(
                    StartId(which.into()),
                    Some(Exit::Code(1)),
                ));
            }
            Step::Callable(yes) => {
                self.hear(Heard::Configured {
                    per_pod: 2,
                    recover_ms: 500,
                });
                self.hear(Heard::Callable(StartId(0), yes));
            }
            Step::Kill(after) => self.kill_after = Some(after),
            Step::Full => self.full = true,
            Step::Deaf => self.deaf = true,
            Step::Leave => {
                self.hear(Heard::Leaving);
                self.kill();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn at_most_once_in_time_and_written_down_before(steps in steps()) {
        let mut world = World {
            book: Some(Book::new(Vec::new())),
            now: 1000,
            ..World::default()
        };
        // Most runs begin with everything in place.
        world.step(Step::Start(0));
        world.step(Step::Open);
        for step in steps {
            world.step(step);
        }
        let waits = world.claims.values().filter(|seen| seen.session > world.session).count();
        prop_assert_eq!(waits, 0);
    }
}
