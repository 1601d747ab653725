use super::entry::{Kind, ProcessEnd, RowEnd};
use super::event::*;
use super::*;
use patchbay_launcher::control::Exit;
use patchbay_protocol::session::{
    Cancel, ClaimName, ClaimQuery, Grant, LedgerEntry, NoWork, RowStored,
};

/// A claim machine with a clock, a disk and a record of everything that was said.
pub(super) struct Bench {
    pub(super) machine: ClaimMachine,
    pub(super) now: u64,
    minted: u128,
    pub(super) disk: BTreeMap<ClaimId, Entry>,
    session: u64,
    caller: u64,
}

pub(super) const PLUGIN: StartId = StartId(7);

impl Bench {
    /// Without a session and a plugin.
    pub(super) fn empty() -> Bench {
        Bench {
            machine: ClaimMachine::new(Vec::new()),
            now: 1_000_000,
            minted: 0,
            disk: BTreeMap::new(),
            session: 0,
            caller: 0,
        }
    }

    fn new() -> Bench {
        let mut bench = Bench::empty();
        bench.handle(Event::PluginStarted(PLUGIN));
        bench.open();
        bench
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut fresh = || {
            self.minted += 1;
            ClaimId(self.minted)
        };
        let now = Now {
            mono_ms: self.now,
            fresh: &mut fresh,
        };
        self.machine.handle(now, event, &mut effects);
        for effect in &effects {
            match effect {
                Effect::WriteEntry(entry) => {
                    self.disk.insert(entry.claim, (**entry).clone());
                }
                Effect::RemoveEntry(claim) => {
                    self.disk.remove(claim);
                }
                _ => {}
            }
        }
        effects
    }

    fn open(&mut self) -> Vec<Effect> {
        self.session += 1;
        let session = self.session;
        self.handle(Event::SessionOpened {
            session,
            jobs: true,
        })
    }

    fn operator_message(&mut self, message: Down) -> Vec<Effect> {
        let session = self.session;
        self.handle(Event::Down(session, message))
    }

    fn tick(&mut self, millis: u64) -> Vec<Effect> {
        self.now += millis;
        self.handle(Event::Tick)
    }

    /// What is left of it after the process has died.
    fn restart(&mut self) {
        self.machine = ClaimMachine::new(self.disk.values().cloned().collect());
    }

    /// A request, and the work request that came of it.
    fn request(&mut self, id: u128) -> (Vec<Effect>, Option<ClaimId>) {
        let effects = self.handle(Event::Request(RequestId(id), Filter::default()));
        let claim = asked(&effects).first().copied();
        (effects, claim)
    }

    /// A job in the plugin's hands.
    fn delivered(&mut self, id: u128) -> ClaimId {
        let (_, claim) = self.request(id);
        let claim = claim.unwrap();
        let effects = self.operator_message(grant(claim, &format!("uid-{id}"), 0));
        assert_eq!(deliveries(&effects), [(RequestId(id), claim)]);
        claim
    }

    fn row(&mut self, uid: &str, id: u128, bytes: u64, end: RowEnd) -> (Vec<Effect>, RowAnswer) {
        let whose = RowOwner::Job(uid.to_owned());
        let digest = match self.machine.room(&whose, RowId(id)) {
            Room::Bytes { digest, .. } => digest,
            _ => entry::Digest::default(),
        };
        self.caller += 1;
        let caller = self.caller;
        let effects = self.handle(Event::RowGiven(Box::new(RowGiven {
            caller,
            whose,
            id: RowId(id),
            text: true,
            spool: Some(caller),
            kept: bytes,
            given: bytes,
            digest: entry::Digest {
                bytes: digest.bytes + bytes,
                ..Default::default()
            },
            end,
            at_ms: 5,
        })));
        let answers: Vec<RowAnswer> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::AnswerRow(to, answer) if *to == caller => Some(*answer),
                _ => None,
            })
            .collect();
        let [answer] = answers.as_slice() else {
            panic!("{effects:?}")
        };
        (effects, *answer)
    }

    fn stored(&mut self, claim: ClaimId, row: u32, phase: Option<&str>) -> Vec<Effect> {
        self.operator_message(Down::RowStored(RowStored {
            claim: Some(name(claim, "")),
            row,
            settled: phase.is_some(),
            phase: phase.unwrap_or("Running").to_owned(),
        }))
    }
}

fn name(claim: ClaimId, uid: &str) -> ClaimName {
    ClaimName {
        claim_id: claim.to_string(),
        job_uid: uid.to_owned(),
    }
}

pub(super) fn grant(claim: ClaimId, uid: &str, remaining_ms: u64) -> Down {
    Down::Grant(Grant {
        claim: Some(name(claim, uid)),
        job: "job".to_owned(),
        spec_json: b"{}".to_vec(),
        remaining_ms,
        waited_ms: 10,
        attempt: 1,
        active_deadline_ms: 0,
        output_max_bytes: 1000,
        start_time: "2026-01-01T00:00:00.000000Z".to_owned(),
    })
}

pub(super) fn asked(effects: &[Effect]) -> Vec<ClaimId> {
    let work_requests = effects.iter().filter_map(|effect| match effect {
        Effect::Send(Up::WorkRequest(work_request)) => ClaimId::parse(&work_request.claim_id),
        _ => None,
    });
    work_requests.collect()
}

/// Who got which claim, and that the ledger knew before.
pub(super) fn deliveries(effects: &[Effect]) -> Vec<(RequestId, ClaimId)> {
    let deliveries = effects.iter().filter_map(|effect| match effect {
        Effect::Deliver { request, entry, .. } => Some((*request, entry.claim)),
        _ => None,
    });
    deliveries.collect()
}

fn claim_returned(effects: &[Effect]) -> Vec<String> {
    let claim_returned = effects.iter().filter_map(|effect| match effect {
        Effect::Send(Up::ClaimReturned(claim_returned)) => Some(claim_returned.why.clone()),
        _ => None,
    });
    claim_returned.collect()
}

fn no_work(effects: &[Effect]) -> Vec<RequestId> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::AnswerNoWork(request) => Some(*request),
        _ => None,
    });
    answers.collect()
}

fn sent_rows(effects: &[Effect]) -> Vec<u32> {
    let rows = effects.iter().filter_map(|effect| match effect {
        Effect::SendRow(row) => Some(row.row.number),
        _ => None,
    });
    rows.collect()
}

fn lost(effects: &[Effect]) -> Vec<&patchbay_protocol::session::Lost> {
    let lost = effects.iter().filter_map(|effect| match effect {
        Effect::Send(Up::Lost(lost)) => Some(lost),
        _ => None,
    });
    lost.collect()
}

#[test]
fn ids_are_32_hexadecimal_digits_and_nothing_else() {
    let id = ClaimId(0xab);
    assert_eq!(id.to_string(), "000000000000000000000000000000ab");
    assert_eq!(ClaimId::parse(&id.to_string().to_uppercase()), Some(id));
    for text in [
        "",
        "ab",
        "+00000000000000000000000000000ab",
        &"g".repeat(32),
    ] {
        assert_eq!(ClaimId::parse(text), None, "{text}");
    }
}

#[test]
fn a_job_is_in_the_ledger_before_the_plugin_has_it() {
    let mut bench = Bench::new();
    let (effects, claim) = bench.request(1);
    assert!(
        matches!(&effects[..], [Effect::Send(Up::WorkRequest(work_request))] if work_request.wait_ms == 200)
    );
    let claim = claim.unwrap();
    let effects = bench.operator_message(grant(claim, "uid", 0));
    match &effects[..] {
        [
            Effect::WriteEntry(entry),
            Effect::Deliver {
                request,
                before_ms,
                count,
                ..
            },
        ] => {
            assert!(entry.is_delivered());
            assert_eq!((*request, *before_ms, *count), (RequestId(1), None, 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.machine.ledger()[0].delivered);
    assert_eq!(
        bench.machine.of_job("uid").unwrap().pcp_status(),
        Some("Pending")
    );
}

#[test]
fn grant_deadline_counts_from_the_work_request() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.now += 109;
    // Asked at 0, held for 10, 100 left: the deadline is 110.
    let effects = bench.operator_message(grant(claim, "uid", 100));
    assert!(
        matches!(&effects[1], Effect::Deliver { before_ms: Some(at), .. } if *at == bench.now + 1),
        "{effects:?}"
    );

    let claim = bench.request(2).1.unwrap();
    bench.now += 110;
    let effects = bench.operator_message(grant(claim, "uid-2", 100));
    assert_eq!(claim_returned(&effects), ["it came too late"]);
    assert_eq!(deliveries(&effects), []);
    assert_eq!(bench.disk.len(), 1);
}

#[test]
fn grant_needs_an_open_work_request_of_this_session() {
    let mut bench = Bench::new();
    let effects = bench.operator_message(grant(ClaimId(99), "uid", 0));
    assert_eq!(claim_returned(&effects), ["the ask is over"]);

    let old = bench.request(1).1.unwrap();
    let effects = bench.open();
    let new = asked(&effects)[0];
    assert_ne!(old, new);
    // What the old session says is not heard.
    let effects = bench.handle(Event::Down(1, grant(old, "uid", 0)));
    assert!(effects.is_empty(), "{effects:?}");
    // The new leader found the claim in the API and grants it once more: it is not ours any more.
    let effects = bench.operator_message(grant(old, "uid", 0));
    assert_eq!(claim_returned(&effects), ["the ask is over"]);
    assert_eq!(
        deliveries(&bench.operator_message(grant(new, "uid-2", 0))).len(),
        1
    );
}

#[test]
fn pcp_19_a_claim_whose_write_took_long_reaches_the_same_sidecar_once() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    // The outcome was unknown for two seconds; the plugin was told "no job" in the meantime.
    let effects = bench.tick(450);
    assert_eq!(no_work(&effects), [RequestId(1)]);
    assert!(bench.tick(1_550).is_empty());
    let (effects, again) = bench.request(2);
    assert_eq!((again, effects.len()), (None, 0), "the ask still stands");
    let effects = bench.operator_message(grant(claim, "uid", 0));
    assert_eq!(deliveries(&effects), [(RequestId(2), claim)]);
    // The leader, unsure whether its answer arrived, repeats it.
    assert!(bench.operator_message(grant(claim, "uid", 0)).is_empty());
    assert_eq!(bench.machine.entries().count(), 1);
}

#[test]
fn job_without_a_request_is_kept_briefly_and_returned() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.handle(Event::RequestGone(RequestId(1)));
    let effects = bench.operator_message(grant(claim, "uid", 0));
    assert!(matches!(&effects[..], [Effect::WriteEntry(entry)] if !entry.is_delivered()));
    assert!(!bench.machine.ledger()[0].delivered);
    let (effects, _) = bench.request(2);
    assert_eq!(deliveries(&effects), [(RequestId(2), claim)]);
    assert!(matches!(&effects[0], Effect::WriteEntry(entry) if entry.is_delivered()));

    let claim = bench.request(3).1.unwrap();
    bench.handle(Event::RequestGone(RequestId(3)));
    bench.operator_message(grant(claim, "uid-3", 0));
    assert!(claim_returned(&bench.tick(1_999)).is_empty());
    let effects = bench.tick(1);
    assert!(
        matches!(
            &effects[..],
            [Effect::RemoveEntry(_), Effect::Send(Up::ClaimReturned(_))]
        ),
        "{effects:?}"
    );
    // Another kind of request does not get what was asked for somebody else.
    let claim = bench.request(4).1.unwrap();
    bench.handle(Event::RequestGone(RequestId(4)));
    bench.operator_message(grant(claim, "uid-4", 0));
    let filter = Filter {
        client: Some("10.0.0.1".to_owned()),
        port: None,
    };
    assert_eq!(
        deliveries(&bench.handle(Event::Request(RequestId(5), filter))),
        []
    );
}

#[test]
fn the_same_request_gets_the_same_job_also_from_the_next_process() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let effects = bench.request(1).0;
    assert!(matches!(&effects[..], [Effect::Deliver { count: 2, .. }]));
    bench.restart();
    bench.handle(Event::PluginStarted(PLUGIN));
    assert_eq!(deliveries(&bench.request(1).0), [(RequestId(1), claim)]);
    // A row shows that it has it: from then on the same id is a new request.
    bench.row("uid-1", 1, 5, RowEnd::More);
    assert_eq!(deliveries(&bench.request(1).0), []);
}

#[test]
fn a_repeated_request_does_not_get_what_has_expired() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.operator_message(grant(claim, "uid", 100));
    bench.now += 200;
    let (effects, _) = bench.request(1);
    assert_eq!(deliveries(&effects), []);
    assert_eq!(no_work(&effects), [RequestId(1)]);
    assert!(lost(&effects)[0].message.contains("expireTime"));
}

#[test]
fn claim_is_returned_when_delivery_surely_reached_nobody() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let effects = bench.handle(Event::NotDelivered(claim, 1));
    assert_eq!(
        claim_returned(&effects),
        ["the plugin did not wait for it any more"]
    );
    // Once it went out twice, nobody knows.
    let claim = bench.delivered(2);
    bench.request(2);
    assert!(bench.handle(Event::NotDelivered(claim, 1)).is_empty());
    assert!(bench.handle(Event::NotDelivered(claim, 2)).is_empty());
    // Nor after a restart.
    let claim = bench.delivered(3);
    bench.restart();
    bench.handle(Event::PluginStarted(PLUGIN));
    bench.open();
    bench.request(3);
    assert!(claim_returned(&bench.handle(Event::NotDelivered(claim, 1))).is_empty());
}

#[test]
fn request_gets_no_job_within_a_second_without_an_operator() {
    let mut bench = Bench::empty();
    bench.handle(Event::PluginStarted(PLUGIN));
    let mut waits = Vec::new();
    for id in 0..5 {
        bench.request(id);
        let due = bench.machine.wake_at().unwrap();
        waits.push(due - bench.now);
        bench.now = due;
        assert_eq!(no_work(&bench.handle(Event::Tick)), [RequestId(id)]);
    }
    assert_eq!(waits, [450, 650, 1000, 1000, 1000]);
    // One that comes while a request waits is asked at once.
    bench.request(9);
    assert_eq!(asked(&bench.open()).len(), 1);
}

#[test]
fn pcp_43_loop_without_sleep_sends_few_requests() {
    let mut bench = Bench::new();
    let (end, mut work_requests, mut id) = (bench.now + 10_000, 0, 0);
    while bench.now < end {
        id += 1;
        let (effects, claim) = bench.request(id);
        work_requests += asked(&effects).len();
        let Effect::Send(Up::WorkRequest(work_request)) = &effects[0] else {
            panic!("{effects:?}")
        };
        bench.now += u64::from(work_request.wait_ms);
        let claim_id = claim.unwrap().to_string();
        let effects = bench.operator_message(Down::NoWork(NoWork { claim_id }));
        assert_eq!(no_work(&effects), [RequestId(id)]);
    }
    assert!(work_requests <= 15, "{work_requests}");
    // An operator in need of rest, which answers at once, is not asked more often.
    let end = bench.now + 10_000;
    work_requests = 0;
    while bench.now < end {
        id += 1;
        let (effects, claim) = bench.request(id);
        work_requests += asked(&effects).len();
        let claim_id = claim.unwrap().to_string();
        assert!(
            bench
                .operator_message(Down::NoWork(NoWork { claim_id }))
                .is_empty()
        );
        bench.now = bench.machine.wake_at().unwrap();
        assert_eq!(no_work(&bench.handle(Event::Tick)), [RequestId(id)]);
    }
    assert!(work_requests <= 15, "{work_requests}");
}

#[test]
fn work_request_wait_is_short_again_after_a_job() {
    let mut bench = Bench::new();
    for (id, hold) in [(1, 200), (2, 400), (3, 750), (4, 750)] {
        let (effects, claim) = bench.request(id);
        assert!(
            matches!(&effects[0], Effect::Send(Up::WorkRequest(work_request)) if work_request.wait_ms == hold)
        );
        bench.now += u64::from(hold);
        let claim_id = claim.unwrap().to_string();
        bench.operator_message(Down::NoWork(NoWork { claim_id }));
    }
    bench.delivered(5);
    let (effects, _) = bench.request(6);
    assert!(
        matches!(&effects[0], Effect::Send(Up::WorkRequest(work_request)) if work_request.wait_ms == 200)
    );
}

#[test]
fn pcp_28_rows_keep_their_order_and_few_are_on_their_way() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let mut sent = Vec::new();
    for id in 1..=5 {
        let (effects, answer) = bench.row("uid-1", id, 10, RowEnd::More);
        assert!(matches!(&effects[0], Effect::WriteEntry(_)));
        let row = u32::try_from(id).unwrap();
        assert_eq!(answer, RowAnswer::Kept { row, late: false });
        sent.extend(sent_rows(&effects));
    }
    assert_eq!(sent, [1, 2, 3, 4]);
    assert_eq!(
        bench.machine.of_job("uid-1").unwrap().pcp_status(),
        Some("Active")
    );
    let effects = bench.stored(claim, 1, None);
    assert_eq!(sent_rows(&effects), [5]);
    assert!(
        effects
            .iter()
            .any(|effects| matches!(effects, Effect::RemoveSpool(1))),
        "{effects:?}"
    );
    let (effects, _) = bench.row("uid-1", 6, 10, RowEnd::Succeeded);
    assert!(sent_rows(&effects).is_empty());
    assert_eq!(
        bench.machine.of_job("uid-1").unwrap().pcp_status(),
        Some("Done")
    );
    for row in 2..=5 {
        sent.extend(sent_rows(&bench.stored(claim, row, None)));
    }
    assert_eq!(sent, [1, 2, 3, 4, 6]);
    bench.stored(claim, 6, Some("Succeeded"));
    assert!(bench.disk.is_empty() && bench.machine.ledger().is_empty());
    assert_eq!(
        bench.machine.of_job("uid-1").unwrap().pcp_status(),
        Some("Done")
    );
}

#[test]
fn pcp_23_the_next_process_sends_what_was_not_stored_and_numbers_on() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    bench.row("uid-1", 1, 10, RowEnd::More);
    bench.row("uid-1", 2, 10, RowEnd::More);
    bench.stored(claim, 1, None);
    bench.restart();
    bench.handle(Event::PluginStarted(PLUGIN));
    // The plugin did not get the answer and gives the row again.
    let (effects, answer) = bench.row("uid-1", 2, 10, RowEnd::More);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 2,
            late: false
        }
    );
    assert!(
        !effects
            .iter()
            .any(|effects| matches!(effects, Effect::WriteEntry(_)))
    );
    assert_eq!(sent_rows(&bench.open()), [2]);
    let (effects, answer) = bench.row("uid-1", 3, 10, RowEnd::Succeeded);
    assert_eq!(sent_rows(&effects), [3]);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 3,
            late: false
        }
    );
    bench.stored(claim, 2, None);
    bench.stored(claim, 3, Some("Succeeded"));
    assert!(bench.disk.is_empty());
}

#[test]
fn pcp_30_what_comes_after_the_end_is_kept_as_late() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let failed = RowEnd::Failed {
        reason: "PluginError".into(),
        message: "x".into(),
    };
    bench.row("uid-1", 1, 1, failed);
    let (effects, answer) = bench.row("uid-1", 2, 7, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 2, late: true });
    let Some(Effect::SendRow(late)) = effects
        .iter()
        .find(|effects| matches!(effects, Effect::SendRow(_)))
    else {
        panic!("{effects:?}")
    };
    assert_eq!(late.row.end, RowEnd::More);
    assert_eq!(
        bench.machine.of_job("uid-1").unwrap().pcp_status(),
        Some("Error")
    );
    bench.stored(claim, 1, Some("Failed"));
    bench.stored(claim, 2, Some("Failed"));
    assert!(bench.disk.is_empty());
    // And after the claim is settled.
    let (effects, answer) = bench.row("uid-1", 3, 7, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 3, late: true });
    assert_eq!(sent_rows(&effects), [3]);
    assert_eq!(bench.machine.ledger(), []);
    bench.stored(claim, 3, None);
    assert!(bench.disk.is_empty());
    assert_eq!(bench.machine.of_job("uid-1").unwrap().next_row, 4);
}

#[test]
fn pcp_37_a_new_job_of_the_same_name_never_gets_the_old_answer() {
    let mut bench = Bench::new();
    let old = bench.delivered(1);
    // Deleted, created again, handed out again: another uid.
    bench.delivered(2);
    bench.row("uid-1", 1, 3, RowEnd::More);
    bench.stored(old, 1, Some(""));
    let (effects, answer) = bench.row("uid-1", 2, 3, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Dropped);
    assert!(matches!(
        &effects[..],
        [Effect::RemoveSpool(_), Effect::AnswerRow(..)]
    ));
    assert_eq!(
        bench.machine.of_job("uid-2").unwrap().pcp_status(),
        Some("Pending")
    );
    assert_eq!(
        bench.row("uid-9", 2, 3, RowEnd::Succeeded).1,
        RowAnswer::Dropped
    );
}

#[test]
fn output_beyond_the_limit_fails_the_job_with_what_came_before() {
    let mut bench = Bench::new();
    bench.delivered(1);
    bench.row("uid-1", 1, 600, RowEnd::More);
    assert_eq!(
        bench.machine.room(&RowOwner::Job("uid-1".into()), RowId(2)),
        Room::Bytes {
            most: 400,
            digest: entry::Digest {
                bytes: 600,
                ..Default::default()
            }
        }
    );
    let (effects, answer) = bench.row("uid-1", 2, 500, RowEnd::More);
    assert_eq!(answer, RowAnswer::TooLarge);
    let Some(Effect::SendRow(row)) = effects
        .iter()
        .find(|effects| matches!(effects, Effect::SendRow(_)))
    else {
        panic!("{effects:?}")
    };
    assert_eq!((row.row.bytes, row.row.number), (400, 2));
    assert!(matches!(&row.row.end, RowEnd::Failed { reason, .. } if reason == "OutputTooLarge"));
    assert_eq!(row.row.whole.as_ref().unwrap().0, 1100);
    let (_, answer) = bench.row("uid-1", 3, 1, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::TooLarge);
}

#[test]
fn a_job_of_a_dead_process_is_lost_after_the_grace_with_its_exit() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    bench.row("uid-1", 1, 4, RowEnd::More);
    bench.handle(Event::PluginEnded(PLUGIN, Some(Exit::Signal(9))));
    assert_eq!(bench.machine.wake_at(), Some(bench.now + 30_000));
    assert!(lost(&bench.tick(29_999)).is_empty());
    // Its row is not stored yet, and belongs to the job before it is lost.
    assert!(lost(&bench.tick(1)).is_empty());
    let effects = bench.stored(claim, 1, None);
    let told = lost(&effects)[0];
    assert!(told.message.contains("signal 9"), "{}", told.message);
    assert!(told.exit.is_some());
    // Until it is known, every session hears it.
    assert_eq!(lost(&bench.open()).len(), 1);
    bench.restart();
    assert_eq!(lost(&bench.open()).len(), 1);
    bench.stored(claim, 0, Some("Failed"));
    assert!(bench.disk.is_empty());
}

#[test]
fn pcp_41_a_restarted_process_answers_within_the_grace() {
    let mut bench = Bench::new();
    bench.delivered(1);
    bench.delivered(2);
    bench.handle(Event::PluginEnded(PLUGIN, Some(Exit::Code(1))));
    bench.tick(10_000);
    bench.handle(Event::PluginStarted(StartId(8)));
    // One is answered, of the other there is a sign of life.
    let (_, answer) = bench.row("uid-1", 1, 4, RowEnd::Succeeded);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 1,
            late: false
        }
    );
    let effects = bench.handle(Event::Active(1, "uid-2".into()));
    assert!(
        effects
            .iter()
            .any(|effects| matches!(effects, Effect::AnswerStatus(1, Some("Active"))))
    );
    assert!(lost(&bench.tick(60_000)).is_empty());
    // And now it is the new process that has it.
    bench.handle(Event::PluginEnded(StartId(8), None));
    let effects = bench.tick(30_000);
    assert_eq!(lost(&effects).len(), 1);
    assert_eq!(lost(&effects)[0].exit, None);
}

#[test]
fn a_process_that_ended_while_the_sidecar_was_away_is_noticed() {
    let mut bench = Bench::new();
    bench.delivered(1);
    bench.restart();
    bench.open();
    bench.handle(Event::PluginStarted(StartId(8)));
    // Its exit becomes known later; the grace does not begin again.
    bench.now += 10_000;
    bench.handle(Event::PluginEnded(PLUGIN, Some(Exit::Code(3))));
    let effects = bench.tick(20_000);
    assert!(lost(&effects)[0].message.contains("exit code 3"));
}

#[test]
fn end_of_the_process_answers_requests_and_cancels_work_requests() {
    let mut bench = Bench::new();
    bench.request(1);
    bench.request(2);
    bench.handle(Event::RequestGone(RequestId(2)));
    let effects = bench.handle(Event::PluginEnded(PLUGIN, None));
    assert_eq!(no_work(&effects), [RequestId(1)]);
    let withdrawn = effects
        .iter()
        .filter(|effects| matches!(effects, Effect::Send(Up::CancelRequest(_))));
    assert_eq!(withdrawn.count(), 2);
    // Without a plugin nothing is asked.
    assert_eq!(asked(&bench.request(3).0), []);
    assert_eq!(asked(&bench.handle(Event::PluginStarted(PLUGIN))).len(), 1);
}

fn calling(per_pod: u32) -> (Bench, Vec<ClaimId>) {
    let mut bench = Bench::new();
    bench.handle(Event::Configured {
        per_pod,
        recover_ms: 30_000,
    });
    let effects = bench.handle(Event::Callable(PLUGIN, true));
    let claims = asked(&effects);
    (bench, claims)
}

#[test]
fn open_work_requests_match_the_allowed_calls() {
    let (mut bench, claims) = calling(2);
    assert_eq!(claims.len(), 2);
    let effects = bench.operator_message(grant(claims[0], "uid", 0));
    assert!(matches!(
        &effects[..],
        [Effect::WriteEntry(_), Effect::Call { .. }]
    ));
    let effects = bench.handle(Event::CallSent(claims[0]));
    assert!(
        effects
            .iter()
            .any(|effects| matches!(effects, Effect::Send(Up::Started(_))))
    );
    assert_eq!(bench.machine.calls(), 1);
    // Done: the place is free.
    bench.caller += 1;
    let effects = bench.handle(Event::RowGiven(Box::new(RowGiven {
        caller: 1,
        whose: RowOwner::Claim(claims[0]),
        id: RowId(1),
        text: true,
        spool: None,
        kept: 0,
        given: 0,
        digest: Default::default(),
        end: RowEnd::Succeeded,
        at_ms: 0,
    })));
    assert_eq!(asked(&effects).len(), 1);
    // An operator that has no place for it is asked again after a pause.
    let claim_id = asked(&effects)[0].to_string();
    assert!(asked(&bench.operator_message(Down::NoWork(NoWork { claim_id }))).is_empty());
    assert!(asked(&bench.tick(999)).is_empty());
    assert_eq!(asked(&bench.tick(1)).len(), 1);
    // A plugin that is not ready is not asked for.
    let effects = bench.handle(Event::Callable(PLUGIN, false));
    assert_eq!(effects.len(), 2, "{effects:?}");
}

#[test]
fn a_call_is_lost_at_once_with_its_process_or_ours() {
    let (mut bench, claims) = calling(2);
    for (claim, uid) in claims.iter().zip(["uid-1", "uid-2"]) {
        bench.operator_message(grant(*claim, uid, 0));
    }
    let mut next = Bench::new();
    next.disk = bench.disk.clone();
    next.restart();
    let effects = next.open();
    assert_eq!(lost(&effects).len(), 2);
    assert!(lost(&effects)[0].message.contains("the sidecar ended"));

    let effects = bench.handle(Event::PluginEnded(PLUGIN, Some(Exit::Code(2))));
    assert_eq!(lost(&effects).len(), 2);
    assert!(lost(&effects)[0].message.contains("exit code 2"));
    assert!(
        effects
            .iter()
            .any(|effects| matches!(effects, Effect::CancelCall(_)))
    );
    let entry = bench.machine.of_job("uid-1").unwrap();
    assert!(
        matches!(
            &entry.state,
            State::Lost {
                ended: ProcessEnd::Code(2),
                ..
            }
        ) && entry.kind == Kind::Call
    );
}

#[test]
fn query_for_an_unknown_claim_ends_its_work_request() {
    let mut bench = Bench::new();
    let known = bench.delivered(1);
    let claim = bench.request(2).1.unwrap();
    let claim_queried = |claim: ClaimId| LedgerEntry {
        claim: Some(name(claim, "uid")),
        job: "job".into(),
        delivered: false,
    };
    let claims = vec![claim_queried(known), claim_queried(claim)];
    let effects = bench.operator_message(Down::ClaimQuery(ClaimQuery { claims }));
    let answers: Vec<(bool, bool)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(Up::ClaimQueryReply(answer)) => Some((answer.known, answer.delivered)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(true, true), (false, false)]);
    // The promise holds, and the request goes on with another claim.
    assert_eq!(asked(&effects).len(), 1);
    assert_ne!(asked(&effects)[0], claim);
    assert_eq!(
        claim_returned(&bench.operator_message(grant(claim, "uid-2", 0))),
        ["the ask is over"]
    );
    // A settled one is known to have been delivered.
    bench.row("uid-1", 1, 1, RowEnd::Succeeded);
    bench.stored(known, 1, Some("Succeeded"));
    let claims = vec![claim_queried(known)];
    let effects = bench.operator_message(Down::ClaimQuery(ClaimQuery { claims }));
    assert!(
        matches!(&effects[..], [Effect::Send(Up::ClaimQueryReply(answer))] if answer.known && answer.delivered)
    );
}

#[test]
fn a_cancelled_job_is_over_and_its_answer_late() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let cancel = |claim: ClaimId| {
        Down::Cancel(Cancel {
            claim: Some(name(claim, "uid-1")),
            reason: "Cancelled".into(),
        })
    };
    bench.operator_message(cancel(claim));
    assert!(bench.disk.is_empty());
    assert_eq!(
        bench.machine.of_job("uid-1").unwrap().pcp_status(),
        Some("Error")
    );
    let (_, answer) = bench.row("uid-1", 1, 3, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 1, late: true });

    let (mut bench, claims) = calling(1);
    bench.operator_message(grant(claims[0], "uid-1", 0));
    let effects = bench.operator_message(cancel(claims[0]));
    assert!(matches!(&effects[0], Effect::CancelCall(claim) if *claim == claims[0]));
    assert_eq!(bench.machine.calls(), 0);
}

#[test]
fn job_is_not_delivered_when_its_claim_was_not_written() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.operator_message(grant(claim, "uid", 0));
    let effects = bench.handle(Event::NotWritten(claim));
    assert_eq!(
        claim_returned(&effects),
        ["the ledger could not be written"]
    );
    assert_eq!(no_work(&effects), [RequestId(1)]);

    let claim = bench.delivered(2);
    let before = bench.machine.of_job("uid-2").unwrap().clone();
    bench.row("uid-2", 1, 3, RowEnd::Succeeded);
    bench.handle(Event::NotWritten(claim));
    assert_eq!(bench.machine.of_job("uid-2"), Some(&before));
    let (effects, answer) = bench.row("uid-2", 1, 3, RowEnd::Succeeded);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 1,
            late: false
        }
    );
    assert_eq!(sent_rows(&effects), [1]);
}

#[test]
fn job_is_lost_when_its_second_delivery_is_too_late() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.operator_message(grant(claim, "uid-1", 1_000));
    // The connection broke, and the plugin asks again just before the end.
    bench.now += 900;
    let (effects, _) = bench.request(1);
    assert_eq!(deliveries(&effects), [(RequestId(1), claim)]);
    bench.now += 200;
    let effects = bench.handle(Event::NotDelivered(claim, 2));
    assert!(
        lost(&effects)[0].message.contains("expireTime"),
        "{effects:?}"
    );
    assert!(claim_returned(&effects).is_empty());
}

#[test]
fn row_is_sent_again_when_its_acknowledgement_was_not_written() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    bench.row("uid-1", 1, 3, RowEnd::Succeeded);
    bench.row("uid-1", 2, 3, RowEnd::More);
    bench.stored(claim, 1, Some("Succeeded"));
    bench.handle(Event::NotWritten(claim));
    assert_eq!(sent_rows(&bench.tick(1)), [1, 2]);
    bench.stored(claim, 1, Some("Succeeded"));
    bench.stored(claim, 2, Some("Succeeded"));
    assert!(bench.disk.is_empty());
}

#[test]
fn unfit_job_ends_without_reaching_the_plugin() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let effects = bench.handle(Event::Unfit {
        claim,
        reason: "UnknownCommand",
        message: "no".into(),
        at_ms: 1,
    });
    let Some(Effect::SendRow(row)) = effects.last() else {
        panic!("{effects:?}")
    };
    assert!(matches!(&row.row.end, RowEnd::Failed { reason, .. } if reason == "UnknownCommand"));
    assert_eq!(row.row.spool, None);
}

#[test]
fn a_sidecar_that_leaves_takes_nothing_more() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    let effects = bench.handle(Event::ShuttingDown);
    assert_eq!(no_work(&effects), [RequestId(1)]);
    assert!(
        effects
            .iter()
            .any(|effects| matches!(effects, Effect::Send(Up::CancelRequest(_))))
    );
    assert_eq!(
        claim_returned(&bench.operator_message(grant(claim, "uid", 0))).len(),
        1
    );
    let (effects, _) = bench.request(2);
    assert_eq!(no_work(&effects), [RequestId(2)]);
}

#[test]
fn stopping_process_gets_no_job_and_the_next_one_does() {
    let mut bench = Bench::new();
    let held = bench.delivered(1);
    assert_eq!(bench.machine.unanswered(), 1);
    let claim = bench.request(2).1.unwrap();
    bench.handle(Event::Stopping(StartId(4242)));
    assert_eq!(
        no_work(&bench.handle(Event::Stopping(PLUGIN))),
        [RequestId(2)]
    );
    assert_eq!(
        claim_returned(&bench.operator_message(grant(claim, "uid", 0))).len(),
        1
    );
    // What it has it may still answer.
    assert!(bench.machine.ledger().iter().any(|entry| entry.delivered));
    bench.handle(Event::PluginEnded(PLUGIN, Some(Exit::Code(0))));
    assert_eq!(bench.machine.unanswered(), 0);
    bench.handle(Event::PluginStarted(StartId(7)));
    assert!(bench.request(3).1.is_some());
    assert_ne!(bench.request(4).1, Some(held));
}

#[test]
fn operator_without_jobs_gets_no_job_messages() {
    let mut bench = Bench::empty();
    bench.handle(Event::PluginStarted(PLUGIN));
    bench.handle(Event::Configured {
        per_pod: 4,
        recover_ms: 1,
    });
    bench.handle(Event::Callable(PLUGIN, true));
    let mut effects = bench.handle(Event::SessionOpened {
        session: 1,
        jobs: false,
    });
    effects.extend(bench.request(1).0);
    effects.extend(bench.handle(Event::Down(1, grant(ClaimId(1), "uid", 0))));
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn the_memory_of_settled_claims_has_an_end() {
    let mut bench = Bench::new();
    for id in 1..=(REMEMBERED as u128 + 5) {
        let claim = bench.delivered(id);
        bench.row(&format!("uid-{id}"), 1, 1, RowEnd::Succeeded);
        bench.stored(claim, 1, Some("Succeeded"));
    }
    assert_eq!(bench.machine.past.len(), REMEMBERED);
    assert!(bench.machine.of_job("uid-5").is_none());
    assert!(bench.machine.of_job("uid-6").is_some());
    assert!(bench.disk.is_empty());
}

#[test]
fn unsettled_claims_end_after_a_limit() {
    let mut bench = Bench::new();
    let mut id = 0;
    loop {
        id += 1;
        let (_, claim) = bench.request(id);
        let Some(claim) = claim else { break };
        bench.operator_message(grant(claim, &format!("uid-{id}"), 0));
    }
    assert_eq!(bench.machine.ledger().len(), 2048);
    let claim = bench.machine.ledger()[0].claim.clone().unwrap();
    bench.stored(ClaimId::parse(&claim.claim_id).unwrap(), 0, Some("Failed"));
    assert_eq!(asked(&bench.handle(Event::Tick)).len(), 0, "asked at once");
    assert_eq!(bench.machine.work_requests.len(), 1);
}
