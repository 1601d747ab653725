use super::entry::{Ended, Kind, RowEnd};
use super::words::*;
use super::*;
use patchbay_launcher::control::Exit;
use patchbay_protocol::session::{
    Cancel, ClaimName, Doubt, Grant, LedgerEntry, Nothing, RowStored,
};

/// A book with a clock, a disk and a record of everything that was said.
pub(super) struct Bench {
    pub(super) book: Book,
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
            book: Book::new(Vec::new()),
            now: 1_000_000,
            minted: 0,
            disk: BTreeMap::new(),
            session: 0,
            caller: 0,
        }
    }

    /// With both.
    fn new() -> Bench {
        let mut bench = Bench::empty();
        bench.hear(Heard::PluginStarted(PLUGIN));
        bench.open();
        bench
    }

    pub(super) fn hear(&mut self, heard: Heard) -> Vec<Todo> {
        let mut todo = Vec::new();
        let mut fresh = || {
            self.minted += 1;
            ClaimId(self.minted)
        };
        let now = Now {
            mono_ms: self.now,
            fresh: &mut fresh,
        };
        self.book.hear(now, heard, &mut todo);
        for todo in &todo {
            match todo {
                Todo::WriteEntry(entry) => {
                    self.disk.insert(entry.claim, (**entry).clone());
                }
                Todo::RemoveEntry(claim) => {
                    self.disk.remove(claim);
                }
                _ => {}
            }
        }
        todo
    }

    fn open(&mut self) -> Vec<Todo> {
        self.session += 1;
        let session = self.session;
        self.hear(Heard::SessionOpened {
            session,
            jobs: true,
        })
    }

    fn down(&mut self, message: Down) -> Vec<Todo> {
        let session = self.session;
        self.hear(Heard::Down(session, message))
    }

    fn tick(&mut self, millis: u64) -> Vec<Todo> {
        self.now += millis;
        self.hear(Heard::Tick)
    }

    /// What is left of it after the process has died.
    fn restart(&mut self) {
        self.book = Book::new(self.disk.values().cloned().collect());
    }

    /// A request, and the ask that came of it.
    fn request(&mut self, id: u128) -> (Vec<Todo>, Option<ClaimId>) {
        let todo = self.hear(Heard::Request(RequestId(id), Filter::default()));
        let claim = asked(&todo).first().copied();
        (todo, claim)
    }

    /// A job in the plugin's hands.
    fn delivered(&mut self, id: u128) -> ClaimId {
        let (_, claim) = self.request(id);
        let claim = claim.unwrap();
        let todo = self.down(grant(claim, &format!("uid-{id}"), 0));
        assert_eq!(handed(&todo), [(RequestId(id), claim)]);
        claim
    }

    fn row(&mut self, uid: &str, id: u128, bytes: u64, end: RowEnd) -> (Vec<Todo>, RowAnswer) {
        let whose = Whose::Job(uid.to_owned());
        let digest = match self.book.room(&whose, RowId(id)) {
            Room::Bytes { digest, .. } => digest,
            _ => entry::Digest::default(),
        };
        self.caller += 1;
        let caller = self.caller;
        let todo = self.hear(Heard::RowGiven(Box::new(RowGiven {
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
        let answers: Vec<RowAnswer> = todo
            .iter()
            .filter_map(|todo| match todo {
                Todo::AnswerRow(to, answer) if *to == caller => Some(*answer),
                _ => None,
            })
            .collect();
        let [answer] = answers.as_slice() else {
            panic!("{todo:?}")
        };
        (todo, *answer)
    }

    fn stored(&mut self, claim: ClaimId, row: u32, phase: Option<&str>) -> Vec<Todo> {
        self.down(Down::RowStored(RowStored {
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
        held_ms: 10,
        attempt: 1,
        active_deadline_ms: 0,
        output_max_bytes: 1000,
        start_time: "2026-01-01T00:00:00.000000Z".to_owned(),
    })
}

pub(super) fn asked(todo: &[Todo]) -> Vec<ClaimId> {
    let asks = todo.iter().filter_map(|todo| match todo {
        Todo::Send(Up::Ask(ask)) => ClaimId::parse(&ask.claim_id),
        _ => None,
    });
    asks.collect()
}

/// Who got which claim, and that the ledger knew before.
pub(super) fn handed(todo: &[Todo]) -> Vec<(RequestId, ClaimId)> {
    let handed = todo.iter().filter_map(|todo| match todo {
        Todo::HandOver { request, entry, .. } => Some((*request, entry.claim)),
        _ => None,
    });
    handed.collect()
}

fn released(todo: &[Todo]) -> Vec<String> {
    let released = todo.iter().filter_map(|todo| match todo {
        Todo::Send(Up::Released(released)) => Some(released.why.clone()),
        _ => None,
    });
    released.collect()
}

fn nothing(todo: &[Todo]) -> Vec<RequestId> {
    let answers = todo.iter().filter_map(|todo| match todo {
        Todo::AnswerNothing(request) => Some(*request),
        _ => None,
    });
    answers.collect()
}

fn sent_rows(todo: &[Todo]) -> Vec<u32> {
    let rows = todo.iter().filter_map(|todo| match todo {
        Todo::SendRow(row) => Some(row.row.number),
        _ => None,
    });
    rows.collect()
}

fn lost(todo: &[Todo]) -> Vec<&patchbay_protocol::session::Lost> {
    let lost = todo.iter().filter_map(|todo| match todo {
        Todo::Send(Up::Lost(lost)) => Some(lost),
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
    let (todo, claim) = bench.request(1);
    assert!(matches!(&todo[..], [Todo::Send(Up::Ask(ask))] if ask.hold_ms == 200));
    let claim = claim.unwrap();
    let todo = bench.down(grant(claim, "uid", 0));
    match &todo[..] {
        [
            Todo::WriteEntry(entry),
            Todo::HandOver {
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
    assert!(bench.book.ledger()[0].delivered);
    assert_eq!(bench.book.of_job("uid").unwrap().word(), Some("Pending"));
}

#[test]
fn a_grant_counts_from_the_moment_of_its_ask() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.now += 109;
    // Asked at 0, held for 10, 100 left: the deadline is 110.
    let todo = bench.down(grant(claim, "uid", 100));
    assert!(
        matches!(&todo[1], Todo::HandOver { before_ms: Some(at), .. } if *at == bench.now + 1),
        "{todo:?}"
    );

    let claim = bench.request(2).1.unwrap();
    bench.now += 110;
    let todo = bench.down(grant(claim, "uid-2", 100));
    assert_eq!(released(&todo), ["it came too late"]);
    assert_eq!(handed(&todo), []);
    assert_eq!(bench.disk.len(), 1);
}

#[test]
fn only_a_waiting_ask_of_this_session_takes_a_grant() {
    let mut bench = Bench::new();
    let todo = bench.down(grant(ClaimId(99), "uid", 0));
    assert_eq!(released(&todo), ["the ask is over"]);

    let old = bench.request(1).1.unwrap();
    let todo = bench.open();
    let new = asked(&todo)[0];
    assert_ne!(old, new);
    // What the old session says is not heard.
    let todo = bench.hear(Heard::Down(1, grant(old, "uid", 0)));
    assert!(todo.is_empty(), "{todo:?}");
    // The new leader found the claim in the API and grants it once more: it is not ours any more.
    let todo = bench.down(grant(old, "uid", 0));
    assert_eq!(released(&todo), ["the ask is over"]);
    assert_eq!(handed(&bench.down(grant(new, "uid-2", 0))).len(), 1);
}

#[test]
fn pcp_19_a_claim_whose_write_took_long_reaches_the_same_sidecar_once() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    // The outcome was unknown for two seconds; the plugin was told "no job" in the meantime.
    let todo = bench.tick(450);
    assert_eq!(nothing(&todo), [RequestId(1)]);
    assert!(bench.tick(1_550).is_empty());
    let (todo, again) = bench.request(2);
    assert_eq!((again, todo.len()), (None, 0), "the ask still stands");
    let todo = bench.down(grant(claim, "uid", 0));
    assert_eq!(handed(&todo), [(RequestId(2), claim)]);
    // The leader, unsure whether its answer arrived, repeats it.
    assert!(bench.down(grant(claim, "uid", 0)).is_empty());
    assert_eq!(bench.book.entries().count(), 1);
}

#[test]
fn a_job_that_finds_nobody_waits_a_moment_and_is_given_back() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.hear(Heard::RequestGone(RequestId(1)));
    let todo = bench.down(grant(claim, "uid", 0));
    assert!(matches!(&todo[..], [Todo::WriteEntry(entry)] if !entry.is_delivered()));
    assert!(!bench.book.ledger()[0].delivered);
    let (todo, _) = bench.request(2);
    assert_eq!(handed(&todo), [(RequestId(2), claim)]);
    assert!(matches!(&todo[0], Todo::WriteEntry(entry) if entry.is_delivered()));

    let claim = bench.request(3).1.unwrap();
    bench.hear(Heard::RequestGone(RequestId(3)));
    bench.down(grant(claim, "uid-3", 0));
    assert!(released(&bench.tick(1_999)).is_empty());
    let todo = bench.tick(1);
    assert!(
        matches!(
            &todo[..],
            [Todo::RemoveEntry(_), Todo::Send(Up::Released(_))]
        ),
        "{todo:?}"
    );
    // Another kind of request does not get what was asked for somebody else.
    let claim = bench.request(4).1.unwrap();
    bench.hear(Heard::RequestGone(RequestId(4)));
    bench.down(grant(claim, "uid-4", 0));
    let filter = Filter {
        location: Some("10.0.0.1".to_owned()),
        port: None,
    };
    assert_eq!(
        handed(&bench.hear(Heard::Request(RequestId(5), filter))),
        []
    );
}

#[test]
fn the_same_request_gets_the_same_job_also_from_the_next_process() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let todo = bench.request(1).0;
    assert!(matches!(&todo[..], [Todo::HandOver { count: 2, .. }]));
    bench.restart();
    bench.hear(Heard::PluginStarted(PLUGIN));
    assert_eq!(handed(&bench.request(1).0), [(RequestId(1), claim)]);
    // A row shows that it has it: from then on the same id is a new request.
    bench.row("uid-1", 1, 5, RowEnd::More);
    assert_eq!(handed(&bench.request(1).0), []);
}

#[test]
fn a_repeated_request_does_not_get_what_has_expired() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.down(grant(claim, "uid", 100));
    bench.now += 200;
    let (todo, _) = bench.request(1);
    assert_eq!(handed(&todo), []);
    assert_eq!(nothing(&todo), [RequestId(1)]);
    assert!(lost(&todo)[0].message.contains("expireTime"));
}

#[test]
fn a_hand_over_that_surely_found_nobody_is_given_back() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let todo = bench.hear(Heard::NotHanded(claim, 1));
    assert_eq!(released(&todo), ["the plugin did not wait for it any more"]);
    // Once it went out twice, nobody knows.
    let claim = bench.delivered(2);
    bench.request(2);
    assert!(bench.hear(Heard::NotHanded(claim, 1)).is_empty());
    assert!(bench.hear(Heard::NotHanded(claim, 2)).is_empty());
    // Nor after a restart.
    let claim = bench.delivered(3);
    bench.restart();
    bench.hear(Heard::PluginStarted(PLUGIN));
    bench.open();
    bench.request(3);
    assert!(released(&bench.hear(Heard::NotHanded(claim, 1))).is_empty());
}

#[test]
fn without_an_operator_there_is_no_job_within_a_second() {
    let mut bench = Bench::empty();
    bench.hear(Heard::PluginStarted(PLUGIN));
    let mut waits = Vec::new();
    for id in 0..5 {
        bench.request(id);
        let due = bench.book.wake_at().unwrap();
        waits.push(due - bench.now);
        bench.now = due;
        assert_eq!(nothing(&bench.hear(Heard::Tick)), [RequestId(id)]);
    }
    assert_eq!(waits, [450, 650, 1000, 1000, 1000]);
    // One that comes while a request waits is asked at once.
    bench.request(9);
    assert_eq!(asked(&bench.open()).len(), 1);
}

#[test]
fn pcp_43_a_loop_without_sleep_asks_little() {
    let mut bench = Bench::new();
    let (end, mut asks, mut id) = (bench.now + 10_000, 0, 0);
    while bench.now < end {
        id += 1;
        let (todo, claim) = bench.request(id);
        asks += asked(&todo).len();
        let Todo::Send(Up::Ask(ask)) = &todo[0] else {
            panic!("{todo:?}")
        };
        bench.now += u64::from(ask.hold_ms);
        let claim_id = claim.unwrap().to_string();
        let todo = bench.down(Down::Nothing(Nothing { claim_id }));
        assert_eq!(nothing(&todo), [RequestId(id)]);
    }
    assert!(asks <= 15, "{asks}");
    // An operator in need of rest, which answers at once, is not asked more often.
    let end = bench.now + 10_000;
    asks = 0;
    while bench.now < end {
        id += 1;
        let (todo, claim) = bench.request(id);
        asks += asked(&todo).len();
        let claim_id = claim.unwrap().to_string();
        assert!(bench.down(Down::Nothing(Nothing { claim_id })).is_empty());
        bench.now = bench.book.wake_at().unwrap();
        assert_eq!(nothing(&bench.hear(Heard::Tick)), [RequestId(id)]);
    }
    assert!(asks <= 15, "{asks}");
}

#[test]
fn a_job_makes_the_next_ask_short_again() {
    let mut bench = Bench::new();
    for (id, hold) in [(1, 200), (2, 400), (3, 750), (4, 750)] {
        let (todo, claim) = bench.request(id);
        assert!(matches!(&todo[0], Todo::Send(Up::Ask(ask)) if ask.hold_ms == hold));
        bench.now += u64::from(hold);
        let claim_id = claim.unwrap().to_string();
        bench.down(Down::Nothing(Nothing { claim_id }));
    }
    bench.delivered(5);
    let (todo, _) = bench.request(6);
    assert!(matches!(&todo[0], Todo::Send(Up::Ask(ask)) if ask.hold_ms == 200));
}

#[test]
fn pcp_28_rows_keep_their_order_and_few_are_on_their_way() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let mut sent = Vec::new();
    for id in 1..=5 {
        let (todo, answer) = bench.row("uid-1", id, 10, RowEnd::More);
        assert!(matches!(&todo[0], Todo::WriteEntry(_)));
        let row = u32::try_from(id).unwrap();
        assert_eq!(answer, RowAnswer::Kept { row, late: false });
        sent.extend(sent_rows(&todo));
    }
    assert_eq!(sent, [1, 2, 3, 4]);
    assert_eq!(bench.book.of_job("uid-1").unwrap().word(), Some("Active"));
    let todo = bench.stored(claim, 1, None);
    assert_eq!(sent_rows(&todo), [5]);
    assert!(
        todo.iter().any(|todo| matches!(todo, Todo::RemoveSpool(1))),
        "{todo:?}"
    );
    let (todo, _) = bench.row("uid-1", 6, 10, RowEnd::Succeeded);
    assert!(sent_rows(&todo).is_empty());
    assert_eq!(bench.book.of_job("uid-1").unwrap().word(), Some("Done"));
    for row in 2..=5 {
        sent.extend(sent_rows(&bench.stored(claim, row, None)));
    }
    assert_eq!(sent, [1, 2, 3, 4, 6]);
    bench.stored(claim, 6, Some("Succeeded"));
    assert!(bench.disk.is_empty() && bench.book.ledger().is_empty());
    assert_eq!(bench.book.of_job("uid-1").unwrap().word(), Some("Done"));
}

#[test]
fn pcp_23_the_next_process_sends_what_was_not_stored_and_numbers_on() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    bench.row("uid-1", 1, 10, RowEnd::More);
    bench.row("uid-1", 2, 10, RowEnd::More);
    bench.stored(claim, 1, None);
    bench.restart();
    bench.hear(Heard::PluginStarted(PLUGIN));
    // The plugin did not get the answer and gives the row again.
    let (todo, answer) = bench.row("uid-1", 2, 10, RowEnd::More);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 2,
            late: false
        }
    );
    assert!(!todo.iter().any(|todo| matches!(todo, Todo::WriteEntry(_))));
    assert_eq!(sent_rows(&bench.open()), [2]);
    let (todo, answer) = bench.row("uid-1", 3, 10, RowEnd::Succeeded);
    assert_eq!(sent_rows(&todo), [3]);
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
    let (todo, answer) = bench.row("uid-1", 2, 7, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 2, late: true });
    let Some(Todo::SendRow(late)) = todo.iter().find(|todo| matches!(todo, Todo::SendRow(_)))
    else {
        panic!("{todo:?}")
    };
    assert_eq!(late.row.end, RowEnd::More);
    assert_eq!(bench.book.of_job("uid-1").unwrap().word(), Some("Error"));
    bench.stored(claim, 1, Some("Failed"));
    bench.stored(claim, 2, Some("Failed"));
    assert!(bench.disk.is_empty());
    // And after the claim is settled.
    let (todo, answer) = bench.row("uid-1", 3, 7, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 3, late: true });
    assert_eq!(sent_rows(&todo), [3]);
    assert_eq!(bench.book.ledger(), []);
    bench.stored(claim, 3, None);
    assert!(bench.disk.is_empty());
    assert_eq!(bench.book.of_job("uid-1").unwrap().next_row, 4);
}

#[test]
fn pcp_37_a_new_job_of_the_same_name_never_gets_the_old_answer() {
    let mut bench = Bench::new();
    let old = bench.delivered(1);
    // Deleted, created again, handed out again: another uid.
    bench.delivered(2);
    bench.row("uid-1", 1, 3, RowEnd::More);
    bench.stored(old, 1, Some(""));
    let (todo, answer) = bench.row("uid-1", 2, 3, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Dropped);
    assert!(matches!(
        &todo[..],
        [Todo::RemoveSpool(_), Todo::AnswerRow(..)]
    ));
    assert_eq!(bench.book.of_job("uid-2").unwrap().word(), Some("Pending"));
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
        bench.book.room(&Whose::Job("uid-1".into()), RowId(2)),
        Room::Bytes {
            most: 400,
            digest: entry::Digest {
                bytes: 600,
                ..Default::default()
            }
        }
    );
    let (todo, answer) = bench.row("uid-1", 2, 500, RowEnd::More);
    assert_eq!(answer, RowAnswer::TooLarge);
    let Some(Todo::SendRow(row)) = todo.iter().find(|todo| matches!(todo, Todo::SendRow(_))) else {
        panic!("{todo:?}")
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
    bench.hear(Heard::PluginEnded(PLUGIN, Some(Exit::Signal(9))));
    assert_eq!(bench.book.wake_at(), Some(bench.now + 30_000));
    assert!(lost(&bench.tick(29_999)).is_empty());
    // Its row is not stored yet, and belongs to the job before it is lost.
    assert!(lost(&bench.tick(1)).is_empty());
    let todo = bench.stored(claim, 1, None);
    let told = lost(&todo)[0];
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
    bench.hear(Heard::PluginEnded(PLUGIN, Some(Exit::Code(1))));
    bench.tick(10_000);
    bench.hear(Heard::PluginStarted(StartId(8)));
    // One is answered, of the other there is a sign of life.
    let (_, answer) = bench.row("uid-1", 1, 4, RowEnd::Succeeded);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 1,
            late: false
        }
    );
    let todo = bench.hear(Heard::Active(1, "uid-2".into()));
    assert!(
        todo.iter()
            .any(|todo| matches!(todo, Todo::AnswerStatus(1, Some("Active"))))
    );
    assert!(lost(&bench.tick(60_000)).is_empty());
    // And now it is the new process that has it.
    bench.hear(Heard::PluginEnded(StartId(8), None));
    let todo = bench.tick(30_000);
    assert_eq!(lost(&todo).len(), 1);
    assert_eq!(lost(&todo)[0].exit, None);
}

#[test]
fn a_process_that_ended_while_the_sidecar_was_away_is_noticed() {
    let mut bench = Bench::new();
    bench.delivered(1);
    bench.restart();
    bench.open();
    bench.hear(Heard::PluginStarted(StartId(8)));
    // Its exit becomes known later; the grace does not begin anew.
    bench.now += 10_000;
    bench.hear(Heard::PluginEnded(PLUGIN, Some(Exit::Code(3))));
    let todo = bench.tick(20_000);
    assert!(lost(&todo)[0].message.contains("exit code 3"));
}

#[test]
fn an_end_of_the_process_answers_and_withdraws_everything() {
    let mut bench = Bench::new();
    bench.request(1);
    bench.request(2);
    bench.hear(Heard::RequestGone(RequestId(2)));
    let todo = bench.hear(Heard::PluginEnded(PLUGIN, None));
    assert_eq!(nothing(&todo), [RequestId(1)]);
    let withdrawn = todo
        .iter()
        .filter(|todo| matches!(todo, Todo::Send(Up::Withdraw(_))));
    assert_eq!(withdrawn.count(), 2);
    // Without a plugin nothing is asked.
    assert_eq!(asked(&bench.request(3).0), []);
    assert_eq!(asked(&bench.hear(Heard::PluginStarted(PLUGIN))).len(), 1);
}

fn calling(per_pod: u32) -> (Bench, Vec<ClaimId>) {
    let mut bench = Bench::new();
    bench.hear(Heard::Configured {
        per_pod,
        recover_ms: 30_000,
    });
    let todo = bench.hear(Heard::Callable(PLUGIN, true));
    let claims = asked(&todo);
    (bench, claims)
}

#[test]
fn as_many_asks_stand_as_calls_may_be_under_way() {
    let (mut bench, claims) = calling(2);
    assert_eq!(claims.len(), 2);
    let todo = bench.down(grant(claims[0], "uid", 0));
    assert!(matches!(
        &todo[..],
        [Todo::WriteEntry(_), Todo::Call { .. }]
    ));
    let todo = bench.hear(Heard::CallSent(claims[0]));
    assert!(
        todo.iter()
            .any(|todo| matches!(todo, Todo::Send(Up::Started(_))))
    );
    assert_eq!(bench.book.calls(), 1);
    // Done: the place is free.
    bench.caller += 1;
    let todo = bench.hear(Heard::RowGiven(Box::new(RowGiven {
        caller: 1,
        whose: Whose::Claim(claims[0]),
        id: RowId(1),
        text: true,
        spool: None,
        kept: 0,
        given: 0,
        digest: Default::default(),
        end: RowEnd::Succeeded,
        at_ms: 0,
    })));
    assert_eq!(asked(&todo).len(), 1);
    // An operator that has no place for it is asked again after a pause.
    let claim_id = asked(&todo)[0].to_string();
    assert!(asked(&bench.down(Down::Nothing(Nothing { claim_id }))).is_empty());
    assert!(asked(&bench.tick(999)).is_empty());
    assert_eq!(asked(&bench.tick(1)).len(), 1);
    // A plugin that is not ready is not asked for.
    let todo = bench.hear(Heard::Callable(PLUGIN, false));
    assert_eq!(todo.len(), 2, "{todo:?}");
}

#[test]
fn a_call_is_lost_at_once_with_its_process_or_ours() {
    let (mut bench, claims) = calling(2);
    for (claim, uid) in claims.iter().zip(["uid-1", "uid-2"]) {
        bench.down(grant(*claim, uid, 0));
    }
    let mut next = Bench::new();
    next.disk = bench.disk.clone();
    next.restart();
    let todo = next.open();
    assert_eq!(lost(&todo).len(), 2);
    assert!(lost(&todo)[0].message.contains("the sidecar ended"));

    let todo = bench.hear(Heard::PluginEnded(PLUGIN, Some(Exit::Code(2))));
    assert_eq!(lost(&todo).len(), 2);
    assert!(lost(&todo)[0].message.contains("exit code 2"));
    assert!(todo.iter().any(|todo| matches!(todo, Todo::CancelCall(_))));
    let entry = bench.book.of_job("uid-1").unwrap();
    assert!(
        matches!(
            &entry.state,
            State::Lost {
                ended: Ended::Code(2),
                ..
            }
        ) && entry.kind == Kind::Call
    );
}

#[test]
fn a_doubt_about_an_unknown_claim_ends_its_ask() {
    let mut bench = Bench::new();
    let known = bench.delivered(1);
    let claim = bench.request(2).1.unwrap();
    let doubted = |claim: ClaimId| LedgerEntry {
        claim: Some(name(claim, "uid")),
        job: "job".into(),
        delivered: false,
    };
    let claims = vec![doubted(known), doubted(claim)];
    let todo = bench.down(Down::Doubt(Doubt { claims }));
    let answers: Vec<(bool, bool)> = todo
        .iter()
        .filter_map(|todo| match todo {
            Todo::Send(Up::LedgerAnswer(answer)) => Some((answer.known, answer.delivered)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(true, true), (false, false)]);
    // The promise holds, and the request goes on with another claim.
    assert_eq!(asked(&todo).len(), 1);
    assert_ne!(asked(&todo)[0], claim);
    assert_eq!(
        released(&bench.down(grant(claim, "uid-2", 0))),
        ["the ask is over"]
    );
    // A settled one is known to have been handed over.
    bench.row("uid-1", 1, 1, RowEnd::Succeeded);
    bench.stored(known, 1, Some("Succeeded"));
    let claims = vec![doubted(known)];
    let todo = bench.down(Down::Doubt(Doubt { claims }));
    assert!(
        matches!(&todo[..], [Todo::Send(Up::LedgerAnswer(answer))] if answer.known && answer.delivered)
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
    bench.down(cancel(claim));
    assert!(bench.disk.is_empty());
    assert_eq!(bench.book.of_job("uid-1").unwrap().word(), Some("Error"));
    let (_, answer) = bench.row("uid-1", 1, 3, RowEnd::Succeeded);
    assert_eq!(answer, RowAnswer::Kept { row: 1, late: true });

    let (mut bench, claims) = calling(1);
    bench.down(grant(claims[0], "uid-1", 0));
    let todo = bench.down(cancel(claims[0]));
    assert!(matches!(&todo[0], Todo::CancelCall(claim) if *claim == claims[0]));
    assert_eq!(bench.book.calls(), 0);
}

#[test]
fn nothing_is_handed_over_that_could_not_be_written() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.down(grant(claim, "uid", 0));
    let todo = bench.hear(Heard::NotWritten(claim));
    assert_eq!(released(&todo), ["the ledger could not be written"]);
    assert_eq!(nothing(&todo), [RequestId(1)]);

    let claim = bench.delivered(2);
    let before = bench.book.of_job("uid-2").unwrap().clone();
    bench.row("uid-2", 1, 3, RowEnd::Succeeded);
    bench.hear(Heard::NotWritten(claim));
    assert_eq!(bench.book.of_job("uid-2"), Some(&before));
    let (todo, answer) = bench.row("uid-2", 1, 3, RowEnd::Succeeded);
    assert_eq!(
        answer,
        RowAnswer::Kept {
            row: 1,
            late: false
        }
    );
    assert_eq!(sent_rows(&todo), [1]);
}

#[test]
fn a_job_that_went_out_before_and_is_too_late_the_second_time_is_lost() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    bench.down(grant(claim, "uid-1", 1_000));
    // The connection broke, and the plugin asks again just before the end.
    bench.now += 900;
    let (todo, _) = bench.request(1);
    assert_eq!(handed(&todo), [(RequestId(1), claim)]);
    bench.now += 200;
    let todo = bench.hear(Heard::NotHanded(claim, 2));
    assert!(lost(&todo)[0].message.contains("expireTime"), "{todo:?}");
    assert!(released(&todo).is_empty());
}

#[test]
fn an_acknowledgement_that_could_not_be_written_is_asked_for_again() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    bench.row("uid-1", 1, 3, RowEnd::Succeeded);
    bench.row("uid-1", 2, 3, RowEnd::More);
    bench.stored(claim, 1, Some("Succeeded"));
    bench.hear(Heard::NotWritten(claim));
    assert_eq!(sent_rows(&bench.tick(1)), [1, 2]);
    bench.stored(claim, 1, Some("Succeeded"));
    bench.stored(claim, 2, Some("Succeeded"));
    assert!(bench.disk.is_empty());
}

#[test]
fn a_job_that_does_not_fit_ends_unseen() {
    let mut bench = Bench::new();
    let claim = bench.delivered(1);
    let todo = bench.hear(Heard::Unfit {
        claim,
        reason: "UnknownCommand",
        message: "no".into(),
        at_ms: 1,
    });
    let Some(Todo::SendRow(row)) = todo.last() else {
        panic!("{todo:?}")
    };
    assert!(matches!(&row.row.end, RowEnd::Failed { reason, .. } if reason == "UnknownCommand"));
    assert_eq!(row.row.spool, None);
}

#[test]
fn a_sidecar_that_leaves_takes_nothing_more() {
    let mut bench = Bench::new();
    let claim = bench.request(1).1.unwrap();
    let todo = bench.hear(Heard::Leaving);
    assert_eq!(nothing(&todo), [RequestId(1)]);
    assert!(
        todo.iter()
            .any(|todo| matches!(todo, Todo::Send(Up::Withdraw(_))))
    );
    assert_eq!(released(&bench.down(grant(claim, "uid", 0))).len(), 1);
    let (todo, _) = bench.request(2);
    assert_eq!(nothing(&todo), [RequestId(2)]);
}

#[test]
fn a_process_that_is_being_stopped_takes_nothing_more_and_the_next_one_does() {
    let mut bench = Bench::new();
    let held = bench.delivered(1);
    assert_eq!(bench.book.held(), 1);
    let claim = bench.request(2).1.unwrap();
    bench.hear(Heard::Stopping(StartId(4242)));
    assert_eq!(
        nothing(&bench.hear(Heard::Stopping(PLUGIN))),
        [RequestId(2)]
    );
    assert_eq!(released(&bench.down(grant(claim, "uid", 0))).len(), 1);
    // What it has it may still answer.
    assert!(bench.book.ledger().iter().any(|entry| entry.delivered));
    bench.hear(Heard::PluginEnded(PLUGIN, Some(Exit::Code(0))));
    assert_eq!(bench.book.held(), 0);
    bench.hear(Heard::PluginStarted(StartId(7)));
    assert!(bench.request(3).1.is_some());
    assert_ne!(bench.request(4).1, Some(held));
}

#[test]
fn an_operator_that_knows_no_jobs_gets_no_word_of_them() {
    let mut bench = Bench::empty();
    bench.hear(Heard::PluginStarted(PLUGIN));
    bench.hear(Heard::Configured {
        per_pod: 4,
        recover_ms: 1,
    });
    bench.hear(Heard::Callable(PLUGIN, true));
    let mut todo = bench.hear(Heard::SessionOpened {
        session: 1,
        jobs: false,
    });
    todo.extend(bench.request(1).0);
    todo.extend(bench.hear(Heard::Down(1, grant(ClaimId(1), "uid", 0))));
    assert!(todo.is_empty(), "{todo:?}");
}

#[test]
fn the_memory_of_settled_claims_has_an_end() {
    let mut bench = Bench::new();
    for id in 1..=(REMEMBERED as u128 + 5) {
        let claim = bench.delivered(id);
        bench.row(&format!("uid-{id}"), 1, 1, RowEnd::Succeeded);
        bench.stored(claim, 1, Some("Succeeded"));
    }
    assert_eq!(bench.book.past.len(), REMEMBERED);
    assert!(bench.book.of_job("uid-5").is_none());
    assert!(bench.book.of_job("uid-6").is_some());
    assert!(bench.disk.is_empty());
}

#[test]
fn claims_that_nobody_settles_have_an_end() {
    let mut bench = Bench::new();
    let mut id = 0;
    loop {
        id += 1;
        let (_, claim) = bench.request(id);
        let Some(claim) = claim else { break };
        bench.down(grant(claim, &format!("uid-{id}"), 0));
    }
    assert_eq!(bench.book.ledger().len(), 2048);
    let claim = bench.book.ledger()[0].claim.clone().unwrap();
    bench.stored(ClaimId::parse(&claim.claim_id).unwrap(), 0, Some("Failed"));
    assert_eq!(asked(&bench.hear(Heard::Tick)).len(), 0, "asked at once");
    assert_eq!(bench.book.asks.len(), 1);
}
