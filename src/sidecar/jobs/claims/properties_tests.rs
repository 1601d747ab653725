//! What must hold whatever happens, in whichever order: a leader that is late, repeats itself, dies
//! and is replaced; a plugin that is restarted; a sidecar that is killed between any two steps.

use super::entry::RowEnd;
use super::event::*;
use super::*;
use patchbay_launcher::control::Exit;
use patchbay_protocol::session::{
    Cancel, ClaimName, ClaimQuery, Grant, LedgerEntry, NoWork, RowStored,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Request(u8),
    ProcessGone(u8),
    /// Grants one of the work requests that were ever heard, with this time left.
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
    /// Killed after this number of effects of the next step.
    Kill(u8),
    /// The next write fails.
    Full,
    /// The next delivery finds nobody.
    Deaf,
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..6_u8;
    let step = prop_oneof![
        6 => (0..900_u64).prop_map(Step::Wait),
        8 => which.clone().prop_map(Step::Request),
        1 => which.clone().prop_map(Step::ProcessGone),
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
    claim_returned: bool,
    disowned: bool,
    /// The leader knows its end.
    over: bool,
    rows: Vec<u32>,
}

#[derive(Default)]
struct World {
    machine: Option<ClaimMachine>,
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
    fn handle(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let mut effects = Vec::new();
            let mut minted = self.minted;
            let mut fresh = || {
                minted += 1;
                ClaimId(minted)
            };
            let now = Now {
                mono_ms: self.now,
                fresh: &mut fresh,
            };
            if let Some(machine) = &mut self.machine {
                machine.handle(now, event, &mut effects);
            }
            self.minted = minted;
            let mut failed: Vec<ClaimId> = Vec::new();
            for effect in effects {
                if failed.iter().any(|claim| effect.needs(*claim)) {
                    continue;
                }
                if self.kill_after == Some(0) {
                    return self.kill();
                }
                self.kill_after = self.kill_after.map(|left| left - 1);
                failed.extend(self.carry_out(effect, &mut queue).err());
            }
            for claim in failed {
                queue.push_front(Event::NotWritten(claim));
            }
        }
        let machine = self.machine.as_ref().unwrap();
        // What it knows and what is on the disk are the same.
        let living: BTreeMap<ClaimId, Entry> = machine
            .entries()
            .map(|entry| (entry.claim, entry.clone()))
            .collect();
        let woken: BTreeMap<ClaimId, Entry> = self
            .disk
            .iter()
            .map(|(claim, entry)| {
                let mut entry = entry.clone();
                if !living.contains_key(claim) || living[claim].state != entry.state {
                    lifecycle::wake(&mut entry);
                }
                (*claim, entry)
            })
            .collect();
        assert_eq!(living, woken);
        assert!(machine.unacknowledged.len() <= 4 && machine.past.len() <= REMEMBERED);
    }

    fn kill(&mut self) {
        self.kill_after = None;
        self.machine = Some(ClaimMachine::new(self.disk.values().cloned().collect()));
    }

    fn carry_out(&mut self, effect: Effect, queue: &mut VecDeque<Event>) -> Result<(), ClaimId> {
        match effect {
            Effect::WriteEntry(entry) => {
                if std::mem::take(&mut self.full) {
                    return Err(entry.claim);
                }
                self.disk.insert(entry.claim, *entry);
            }
            Effect::RemoveEntry(claim) => {
                self.disk.remove(&claim);
            }
            Effect::Deliver {
                request,
                before_ms,
                count,
                entry,
            } => {
                if std::mem::take(&mut self.deaf) {
                    queue.push_back(Event::NotDelivered(entry.claim, count));
                    return Ok(());
                }
                let seen = self.claims.get_mut(&entry.claim).unwrap();
                assert!(self.disk[&entry.claim].is_delivered(), "not in the ledger");
                assert!(!seen.claim_returned && !seen.disowned, "given back before");
                assert!(seen.to.is_none_or(|to| to == request), "two got it");
                assert_eq!((seen.called, before_ms), (0, seen.deadline));
                assert!(seen.deadline.is_none_or(|at| self.now < at), "expired");
                seen.to = Some(request);
            }
            Effect::Call { before_ms, entry } => {
                let seen = self.claims.get_mut(&entry.claim).unwrap();
                assert!(self.disk[&entry.claim].is_delivered(), "not in the ledger");
                assert!(!seen.claim_returned && !seen.disowned && seen.to.is_none());
                assert_eq!((seen.called, before_ms), (0, seen.deadline));
                assert!(seen.deadline.is_none_or(|at| self.now < at), "expired");
                seen.called += 1;
            }
            Effect::Send(Up::WorkRequest(work_request)) => {
                let claim = ClaimId::parse(&work_request.claim_id).unwrap();
                let seen = Seen {
                    session: self.session,
                    asked_at: self.now,
                    ..Seen::default()
                };
                assert!(self.claims.insert(claim, seen).is_none(), "asked twice");
                self.asked.push(claim);
            }
            Effect::Send(Up::ClaimReturned(claim_returned)) => {
                let claim = ClaimId::parse(&claim_returned.claim.unwrap().claim_id).unwrap();
                let seen = self.claims.get_mut(&claim).unwrap();
                assert!(seen.to.is_none() && seen.called == 0, "it was handed over");
                assert!(!self.disk.contains_key(&claim), "it is still in the ledger");
                seen.claim_returned = true;
            }
            Effect::Send(Up::ClaimQueryReply(answer)) => {
                let claim = ClaimId::parse(&answer.claim.unwrap().claim_id).unwrap();
                let seen = self.claims.get_mut(&claim).unwrap();
                if !answer.delivered && !answer.known {
                    // Settled claims are forgotten with the process; the leader knows their end.
                    seen.disowned = true;
                }
            }
            Effect::SendRow(row) => {
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
                self.handle(Event::Tick);
            }
            Step::Request(which) => {
                let filter = Filter {
                    client: (which % 2 == 0).then(|| "a".to_owned()),
                    port: None,
                };
                self.handle(Event::Request(RequestId(which.into()), filter));
            }
            Step::ProcessGone(which) => self.handle(Event::RequestGone(RequestId(which.into()))),
            Step::Grant(which, remaining_ms) => {
                let Some(claim) = pick(&self.asked, which) else {
                    return;
                };
                let seen = self.claims.get_mut(&claim).unwrap();
                // A leader grants a claim once, and repeats itself word for word. What it was told
                // is free, or over, it does not grant again.
                if seen.claim_returned || seen.disowned || seen.over {
                    return;
                }
                if !seen.granted {
                    seen.granted = true;
                    seen.deadline = (remaining_ms > 0).then(|| seen.asked_at + remaining_ms);
                }
                let remaining_ms = seen.deadline.map_or(0, |at| at - seen.asked_at);
                let event = session;
                let grant = Grant {
                    claim: Some(name(claim)),
                    job: "job".to_owned(),
                    spec_json: b"{}".to_vec(),
                    remaining_ms,
                    waited_ms: 0,
                    attempt: 1,
                    active_deadline_ms: 0,
                    output_max_bytes: 100,
                    start_time: String::new(),
                };
                self.handle(Event::Down(event, Down::Grant(grant)));
            }
            Step::Nothing(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    let claim_id = claim.to_string();
                    self.handle(Event::Down(session, Down::NoWork(NoWork { claim_id })));
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
                self.handle(Event::Down(
                    session,
                    Down::ClaimQuery(ClaimQuery { claims }),
                ));
            }
            Step::Cancel(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    self.claims.get_mut(&claim).unwrap().over = true;
                    let cancel = Cancel {
                        claim: Some(name(claim)),
                        reason: "Cancelled".to_owned(),
                    };
                    self.handle(Event::Down(session, Down::Cancel(cancel)));
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
                    whose: RowOwner::Claim(claim),
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
                self.handle(Event::RowGiven(Box::new(row)));
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
                    self.handle(Event::Down(session, Down::RowStored(stored)));
                }
            }
            Step::Active(which) => {
                if let Some(claim) = pick(&self.asked, which) {
                    self.callers += 1;
                    self.handle(Event::Active(self.callers, name(claim).job_uid));
                }
            }
            Step::Open => {
                self.session += 1;
                self.behind = 0;
                let session = self.session;
                self.handle(Event::SessionOpened {
                    session,
                    jobs: true,
                });
            }
            Step::Close => self.handle(Event::SessionClosed(session)),
            Step::Behind(sessions) => self.behind = u64::from(sessions % 2),
            Step::Start(which) => self.handle(Event::PluginStarted(StartId(which.into()))),
            Step::End(which) => {
                self.handle(Event::PluginEnded(
                    StartId(which.into()),
                    Some(Exit::Code(1)),
                ));
            }
            Step::Callable(yes) => {
                self.handle(Event::Configured {
                    per_pod: 2,
                    recover_ms: 500,
                });
                self.handle(Event::Callable(StartId(0), yes));
            }
            Step::Kill(after) => self.kill_after = Some(after),
            Step::Full => self.full = true,
            Step::Deaf => self.deaf = true,
            Step::Leave => {
                self.handle(Event::ShuttingDown);
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
            machine: Some(ClaimMachine::new(Vec::new())),
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
