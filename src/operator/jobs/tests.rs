//! Jobs on their whole way: from the ask of a sidecar to its answer, over the fake API server.

use super::desk::Clerk;
use super::doors::Visit;
use super::feed::Seen;
use super::held::Held;
use super::letters::{ClaimOf, Entry, Letter, Piece, RowEnd, RowEnding, Word};
use super::rig::{Fault, Rig, chunk_path, claimed, holder, job_path, ready, spec};
use super::{JobSettings, write::ChangeError};
use crate::health::ProcessHealth;
use crate::key::JobKey;
use crate::leader::LeaderError;
use crate::leader::skew::Sample;
use patchbay_api::Job;
use patchbay_api::job_status::{Encoding, Phase};
use patchbay_protocol::session::{FromOperator, Grant, RowStored, from_operator::Message};
use patchbay_reconcile::job::transition;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const CLAIM: &str = "0123456789abcdef0123456789abcdef";

/// A rig whose clerk works, and a sidecar that speaks to it.
struct Desk {
    rig: Rig,
    clerk: JoinHandle<LeaderError>,
}

struct Sidecar {
    visit: Visit,
    held: Held,
    heard: mpsc::Receiver<FromOperator>,
}

impl Desk {
    async fn open(rig: Rig) -> Self {
        let mut rig = rig;
        let jobs = ["a", "b", "c"].iter().filter_map(|name| rig.stored(name));
        let jobs: Vec<Job> = jobs.collect();
        let (inbox, seen) = (rig.inbox.take().unwrap(), rig.seen.take().unwrap());
        let clerk = Clerk::new(
            Arc::clone(&rig.jobs),
            Arc::new(ProcessHealth::default()),
            inbox,
            seen,
        );
        let clerk = tokio::spawn(clerk.run());
        for job in jobs {
            rig.jobs.feed.tell(Seen::Job(Box::new(job))).await;
        }
        rig.fill();
        Self { rig, clerk }
    }

    async fn attach(&self, ledger: Vec<Entry>) -> Sidecar {
        let (stream, heard) = mpsc::channel(64);
        let visit = self.rig.doors.enter("pod-uid", stream);
        visit
            .write(Letter::Attached {
                holder: holder(),
                ledger_epoch: "e".into(),
                ledger,
            })
            .await;
        let held = Held::new(Arc::clone(&self.rig.jobs), holder(), visit.session());
        Sidecar { visit, held, heard }
    }

    /// Waits until the Job is in this phase.
    async fn until(&self, name: &str, phase: Phase) {
        let wait = async {
            while self.rig.status(name).phase != Some(phase) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("{name} is {:?}", self.rig.status(name)));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.clerk.abort();
    }
}

impl Sidecar {
    async fn ask(&self, claim_id: &str, hold_ms: u32) {
        self.visit
            .write(Letter::Ask {
                claim_id: claim_id.into(),
                location: None,
                port: None,
                hold_ms,
            })
            .await;
    }

    async fn hears(&mut self) -> Message {
        let wait = tokio::time::timeout(Duration::from_secs(60), self.heard.recv());
        wait.await.unwrap().unwrap().message.unwrap()
    }

    /// Answers every doubt: the ledger does not have it.
    async fn knows_nothing(&mut self, doubted: &mut Vec<String>) {
        loop {
            let Message::Doubt(doubt) = self.hears().await else {
                panic!("no doubt");
            };
            for entry in doubt.claims {
                let claim = entry.claim.unwrap();
                doubted.push(entry.job.clone());
                let claim = ClaimOf {
                    claim_id: claim.claim_id,
                    job: entry.job,
                    uid: claim.job_uid,
                };
                let answer = Letter::LedgerAnswer {
                    claim,
                    known: false,
                    delivered: false,
                };
                self.visit.write(answer).await;
            }
        }
    }

    async fn grant(&mut self) -> Grant {
        match self.hears().await {
            Message::Grant(grant) => grant,
            other => panic!("no grant: {other:?}"),
        }
    }

    /// Says something about a job and waits for the word that a row is stored.
    async fn row(&mut self, of: &ClaimOf, word: Word) -> RowStored {
        self.held.add(of.clone(), word);
        let wait = async {
            loop {
                tokio::select! {
                    worked = self.held.work() => worked.unwrap(),
                    message = self.heard.recv() => match message.unwrap().message.unwrap() {
                        Message::RowStored(stored) => return stored,
                        other => panic!("not about a row: {other:?}"),
                    },
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(600), wait)
            .await
            .unwrap()
    }
}

fn of(job: &Job, claim_id: &str) -> ClaimOf {
    ClaimOf {
        claim_id: claim_id.into(),
        job: job.metadata.name.clone().unwrap(),
        uid: job.metadata.uid.clone().unwrap(),
    }
}

fn row(row: u32, data: &[u8], outcome: RowEnding) -> Word {
    Word::Piece(Piece {
        row,
        offset: 0,
        data: data.to_vec(),
        end: Some(RowEnd {
            text: true,
            outcome,
            cut: None,
        }),
    })
}

fn hex(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_the_whole_way_with_two_writes() {
    let rig = Rig::new();
    let job = rig.add("a", spec(), Some(ready()));
    let desk = Desk::open(rig).await;
    let mut sidecar = desk.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 1000).await;
    let grant = sidecar.grant().await;
    assert_eq!(grant.job, "a");
    assert_eq!((grant.attempt, grant.remaining_ms), (1, 0));
    assert_eq!(grant.start_time, "2026-11-22T12:00:00.000000Z");
    assert_eq!(grant.output_max_bytes, 16_777_216);
    let spec: serde_json::Value = serde_json::from_slice(&grant.spec_json).unwrap();
    assert_eq!(spec["command"]["name"], "echo");
    assert_eq!(
        desk.rig.status("a").phase,
        Some(Phase::Claimed),
        "written first"
    );
    let claim = of(&job, &grant.claim.unwrap().claim_id);
    sidecar.held.add(claim.clone(), Word::Started);
    let stored = sidecar
        .row(&claim, row(1, b"42.42", RowEnding::Succeeded))
        .await;
    assert_eq!(
        (stored.row, stored.settled, stored.phase.as_str()),
        (1, true, "Succeeded")
    );
    let status = desk.rig.status("a");
    let output = status.output.unwrap();
    assert_eq!(
        (output.preview.as_str(), output.sha256),
        ("42.42", hex(b"42.42"))
    );
    assert_eq!(desk.rig.api.log(), ["PUT jobs/a/status"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_a_while_is_seen_running() {
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    sidecar.held.add(claim, Word::Started);
    sidecar.held.work().await.unwrap();
    sidecar.held.work().await.unwrap();
    assert_eq!(desk.rig.status("a").phase, Some(Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_finds_nothing_is_answered_and_one_that_waits_gets_what_comes() {
    let desk = Desk::open(Rig::new()).await;
    let mut sidecar = desk.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 200).await;
    let nothing = sidecar.hears().await;
    assert!(matches!(nothing, Message::Nothing(nothing) if nothing.claim_id == CLAIM));
    sidecar.ask(&"f".repeat(32), 60_000).await;
    let job = desk.rig.add("a", spec(), Some(ready()));
    desk.rig.jobs.feed.tell(Seen::Job(Box::new(job))).await;
    assert_eq!(
        sidecar.grant().await.claim.unwrap().claim_id,
        "f".repeat(32)
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_session_is_gone_before_the_grant_is_given_back() {
    let rig = Rig::new();
    rig.add("a", spec(), Some(ready()));
    // The answer of the claim is lost, and reading it back takes a while.
    rig.api.faults([Fault::Lost]);
    let desk = Desk::open(rig).await;
    let sidecar = desk.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 1000).await;
    desk.until("a", Phase::Claimed).await;
    drop(sidecar);
    desk.until("a", Phase::Ready).await;
    let mut again = desk.attach(Vec::new()).await;
    again.ask(&"f".repeat(32), 1000).await;
    assert_eq!(again.grant().await.attempt, 1, "a release does not count");
}

#[tokio::test(start_paused = true)]
async fn what_a_new_session_does_not_know_is_released_and_what_it_knows_is_not() {
    let rig = Rig::new();
    rig.add("a", spec(), Some(claimed(CLAIM)));
    let known = rig.add("b", spec(), Some(claimed(&"b".repeat(32))));
    let mut other = claimed(&"c".repeat(32));
    other["claim"]["ledgerEpoch"] = "before".into();
    rig.add("c", spec(), Some(other));
    let desk = Desk::open(rig).await;
    let entry = Entry {
        claim: of(&known, &"b".repeat(32)),
        delivered: true,
    };
    let mut sidecar = desk.attach(vec![entry]).await;
    let mut doubts = Vec::new();
    let settled = async {
        desk.until("a", Phase::Ready).await;
        desk.until("c", Phase::Failed).await;
    };
    tokio::select! {
        () = settled => {}
        () = sidecar.knows_nothing(&mut doubts) => {}
    }
    assert!(!doubts.contains(&"b".to_owned()), "it was named");
    assert_eq!(desk.rig.status("c").reason, "PluginLost");
    assert_eq!(desk.rig.status("b").phase, Some(Phase::Claimed));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_told_to_its_holder_when_it_comes_back() {
    let rig = Rig::new();
    let mut status = claimed(CLAIM);
    status["phase"] = "Failed".into();
    status["reason"] = "Cancelled".into();
    let job = rig.add("a", spec(), Some(status));
    let desk = Desk::open(rig).await;
    let entry = Entry {
        claim: of(&job, CLAIM),
        delivered: true,
    };
    let mut sidecar = desk.attach(vec![entry]).await;
    let cancel = sidecar.hears().await;
    assert!(matches!(cancel, Message::Cancel(cancel) if cancel.reason == "Cancelled"));
}

/// A job that the sidecar has.
async fn working(
    settings: Option<JobSettings>,
    spec: serde_json::Value,
) -> (Desk, Sidecar, ClaimOf) {
    let rig = settings.map_or_else(Rig::new, Rig::with);
    let job = rig.add("a", spec, Some(claimed(CLAIM)));
    let claim = of(&job, CLAIM);
    let desk = Desk::open(rig).await;
    let entry = Entry {
        claim: claim.clone(),
        delivered: true,
    };
    let sidecar = desk.attach(vec![entry]).await;
    (desk, sidecar, claim)
}

#[tokio::test(start_paused = true)]
async fn rows_are_stored_in_order_and_a_repeated_one_once() {
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    let stored = sidecar.row(&claim, row(1, b"ab", RowEnding::More)).await;
    assert_eq!((stored.settled, stored.phase.as_str()), (false, "Running"));
    desk.rig.api.faults([Fault::Lost]);
    sidecar.row(&claim, row(2, b"c", RowEnding::More)).await;
    sidecar.row(&claim, row(2, b"c", RowEnding::More)).await;
    let stored = sidecar
        .row(&claim, row(3, b"d", RowEnding::Succeeded))
        .await;
    assert!(stored.settled);
    let output = desk.rig.status("a").output.unwrap();
    assert_eq!((output.row_count, output.bytes), (3, 4));
    assert_eq!(output.sha256, hex(b"abcd"));
    // The word that it is stored was lost: the same row again.
    let again = sidecar
        .row(&claim, row(3, b"d", RowEnding::Succeeded))
        .await;
    assert_eq!((again.settled, again.phase.as_str()), (true, "Succeeded"));
    assert_eq!(desk.rig.status("a").output.unwrap().row_count, 3);
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_the_digest_of_what_is_stored() {
    let mut spec = spec();
    spec["outputPolicy"] = json!({"inlineMaxBytes": 3, "maxBytes": 1000});
    let (desk, mut sidecar, claim) = working(None, spec).await;
    sidecar.row(&claim, row(1, b"ab", RowEnding::More)).await;
    sidecar.row(&claim, row(2, b"cdef", RowEnding::More)).await;
    assert_eq!(desk.rig.status("a").output.unwrap().chunks, 1);
    desk.rig.jobs.turns.digests.forget(CLAIM);
    sidecar
        .row(&claim, row(3, b"g", RowEnding::Succeeded))
        .await;
    let output = desk.rig.status("a").output.unwrap();
    assert_eq!((output.bytes, output.sha256), (7, hex(b"abcdefg")));
}

#[tokio::test(start_paused = true)]
async fn pcp_26_large_output_lies_beside_the_job_before_the_job_is_done() {
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    let content = "añb\n".repeat(300_000).into_bytes();
    let half = content.len() / 2;
    let first = Word::Piece(Piece {
        row: 1,
        offset: 0,
        data: content[..half].to_vec(),
        end: None,
    });
    let second = Word::Piece(Piece {
        row: 1,
        offset: half as u64,
        data: content[half..].to_vec(),
        end: Some(RowEnd {
            text: true,
            outcome: RowEnding::Succeeded,
            cut: None,
        }),
    });
    // The answer to the first chunk is lost: it is found there.
    desk.rig.api.faults([Fault::Lost]);
    sidecar.held.add(claim.clone(), first);
    let stored = sidecar.row(&claim, second).await;
    assert!(stored.settled);
    let status = desk.rig.status("a");
    let output = status.output.unwrap();
    assert_eq!((output.chunks, output.bytes), (3, content.len() as i64));
    assert_eq!(output.sha256, hex(&content));
    assert_eq!(output.preview.chars().count(), 1024);
    assert_eq!(output.rows[0].content, None);
    let mut read = Vec::new();
    for chunk in 0..3 {
        let object = desk
            .rig
            .api
            .get(&chunk_path(&format!("a-1-1-{chunk}")))
            .unwrap();
        assert_eq!(object["spec"]["encoding"], json!(Encoding::Text));
        let piece = object["spec"]["content"].as_str().unwrap();
        assert!(piece.len() <= 512 * 1024);
        read.extend_from_slice(piece.as_bytes());
    }
    assert!(read == content);
    let log = desk.rig.api.log();
    assert_eq!(log.last().unwrap(), "PUT jobs/a/status", "{log:?}");
    assert_eq!(log.iter().filter(|l| l.starts_with("PUT")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn output_of_an_earlier_job_of_the_same_name_makes_room() {
    let mut spec = spec();
    spec["outputPolicy"] = json!({"inlineMaxBytes": 0, "maxBytes": 1000});
    let (desk, mut sidecar, claim) = working(None, spec).await;
    desk.rig.api.put(
        &chunk_path("a-1-1-0"),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v", "kind": "Job", "name": "a", "uid": "old"}]},
               "spec": {"job": "a", "attempt": 1, "row": 1, "chunk": 0, "bytes": 1, "sha256": hex(b"new"),
                        "encoding": "Text", "content": "x"}}),
    );
    sidecar
        .row(&claim, row(1, b"new", RowEnding::Succeeded))
        .await;
    let chunk = desk.rig.api.get(&chunk_path("a-1-1-0")).unwrap();
    assert_eq!(chunk["spec"]["content"], "new");
    assert_eq!(chunk["metadata"]["ownerReferences"][0]["uid"], claim.uid);
}

#[tokio::test(start_paused = true)]
async fn pcp_27_too_much_output_fails_the_job_with_digest_and_beginning() {
    let mut small = spec();
    small["outputPolicy"] = json!({"inlineMaxBytes": 0, "maxBytes": 10});
    let full = JobSettings {
        namespace_output: 10,
    };
    let mut beside = spec();
    beside["outputPolicy"] = json!({"inlineMaxBytes": 0, "maxBytes": 1000});
    for (settings, spec, word) in [(None, small, "maxBytes"), (Some(full), beside, "namespace")] {
        let (desk, mut sidecar, claim) = working(settings, spec).await;
        let stored = sidecar
            .row(&claim, row(1, b"0123456789x", RowEnding::Succeeded))
            .await;
        assert_eq!((stored.settled, stored.phase.as_str()), (true, "Failed"));
        let status = desk.rig.status("a");
        assert_eq!(status.reason, "OutputTooLarge");
        let failed = status
            .conditions
            .iter()
            .find(|c| c.type_ == "Failed")
            .unwrap();
        assert!(failed.message.contains(word), "{}", failed.message);
        let output = status.output.unwrap();
        assert!(output.truncated);
        assert_eq!((output.preview.as_str(), output.chunks), ("0123456789x", 0));
        assert_eq!(output.sha256, hex(b"0123456789x"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_the_api_server_refuses_fails_the_job() {
    let mut spec = spec();
    spec["outputPolicy"] = json!({"inlineMaxBytes": 0, "maxBytes": 1000});
    let (desk, mut sidecar, claim) = working(None, spec).await;
    // A quota says so too, and for good.
    desk.rig.api.faults([Fault::Code(403); 7]);
    sidecar
        .row(&claim, row(1, b"abc", RowEnding::Succeeded))
        .await;
    let status = desk.rig.status("a");
    assert_eq!(
        (status.phase, status.reason.as_str()),
        (Some(Phase::Failed), "OutputTooLarge")
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_has_just_started_and_forbids_everything_costs_no_output() {
    for inline in [0, 100] {
        let mut spec = spec();
        spec["outputPolicy"] = json!({"inlineMaxBytes": inline, "maxBytes": 1000});
        let (desk, mut sidecar, claim) = working(None, spec).await;
        desk.rig.api.faults([Fault::Code(403); 3]);
        sidecar
            .row(&claim, row(1, b"abc", RowEnding::Succeeded))
            .await;
        let status = desk.rig.status("a");
        assert_eq!(status.phase, Some(Phase::Succeeded));
        assert!(!status.output.unwrap().truncated);
    }
}

#[tokio::test(start_paused = true)]
async fn pcp_30_an_answer_after_the_end_is_kept_as_late() {
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    sidecar.row(&claim, row(1, b"a", RowEnding::More)).await;
    let key = JobKey::new("ns", "a");
    let cancelled = desk
        .rig
        .jobs
        .change(&key, &claim.uid, |job, now| {
            Ok((transition::cancel(job, now)?, ()))
        })
        .await;
    assert!(cancelled.is_ok());
    let stored = sidecar
        .row(&claim, row(2, b"late", RowEnding::Succeeded))
        .await;
    assert_eq!((stored.settled, stored.phase.as_str()), (true, "Failed"));
    let status = desk.rig.status("a");
    assert_eq!(status.reason, "Cancelled");
    let output = status.output.unwrap();
    assert_eq!((output.late_count, output.row_count), (1, 2));
    assert_eq!(
        (output.rows[1].late, output.rows[1].content.as_deref()),
        (true, Some("late"))
    );
    assert_eq!(
        output.sha256,
        hex(b"a"),
        "the digest is of what came in time"
    );
    assert_eq!(desk.rig.jobs.metrics.late_rows.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_a_job_that_is_gone_or_anothers_is_settled_and_changes_nothing() {
    // Deleted.
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    desk.rig.api.delete(&job_path("a"));
    let stored = sidecar
        .row(&claim, row(1, b"a", RowEnding::Succeeded))
        .await;
    assert_eq!((stored.settled, stored.phase.as_str()), (true, ""));
    // Deleted and created again.
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    desk.rig.api.delete(&job_path("a"));
    desk.rig.add("a", spec(), Some(claimed(CLAIM)));
    let stored = sidecar
        .row(&claim, row(1, b"a", RowEnding::Succeeded))
        .await;
    assert_eq!((stored.settled, stored.phase.as_str()), (true, ""));
    assert_eq!(desk.rig.status("a").output, None);
    // By a claim that another pod has.
    let rig = Rig::new();
    let mut status = claimed(CLAIM);
    status["claim"]["holderPodUID"] = "another".into();
    let job = rig.add("a", spec(), Some(status));
    let desk = Desk::open(rig).await;
    let mut sidecar = desk.attach(Vec::new()).await;
    let claim = of(&job, CLAIM);
    let lost = Word::Lost {
        exit: String::new(),
        message: String::new(),
    };
    for word in [row(1, b"a", RowEnding::Succeeded), Word::Started, lost] {
        if word == Word::Started {
            sidecar.held.add(claim.clone(), word);
            continue;
        }
        assert!(sidecar.row(&claim, word).await.settled);
    }
    let status = desk.rig.status("a");
    assert_eq!((status.phase, status.output), (Some(Phase::Claimed), None));
    assert_eq!(desk.rig.jobs.metrics.lost.get(), 0);
}

/// Another leader has claimed the job, and this one's watch has not shown it yet: what its holder
/// says of it is not thrown away.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_throws_no_answer_away() {
    let lost = || Word::Lost {
        exit: "exit code 1".into(),
        message: String::new(),
    };
    let two = || row(2, b"b", RowEnding::Succeeded);
    for (word, rows) in [
        (row(1, b"a", RowEnding::Succeeded), 0),
        (two(), 1),
        (lost(), 0),
    ] {
        let rig = Rig::new();
        let job = rig.add("a", spec(), Some(ready()));
        let desk = Desk::open(rig).await;
        let mut object = serde_json::to_value(&job).unwrap();
        object["status"] = claimed(CLAIM);
        if rows == 1 {
            object["status"]["output"] = json!({
                "bytes": 1, "rowCount": 1, "chunks": 0,
                "rows": [{"row": 1, "bytes": 1, "encoding": "Text", "content": "a"}],
            });
        }
        desk.rig.api.put(&job_path("a"), object);
        let entry = Entry {
            claim: of(&job, CLAIM),
            delivered: true,
        };
        let mut sidecar = desk.attach(vec![entry]).await;
        let stored = sidecar.row(&of(&job, CLAIM), word.clone()).await;
        let status = desk.rig.status("a");
        assert!(status.phase.unwrap().is_terminal(), "{word:?}: {status:?}");
        assert_eq!(stored.phase, status.phase.unwrap().as_str());
        if rows == 1 {
            assert_eq!(status.output.unwrap().sha256, hex(b"ab"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_plugin_fails_its_job_with_exit_code() {
    let (desk, mut sidecar, claim) = working(None, spec()).await;
    let lost = Word::Lost {
        exit: "signal 9".into(),
        message: "the plugin ended".into(),
    };
    let settled = sidecar.row(&claim, lost).await;
    assert_eq!(
        (settled.row, settled.settled, settled.phase.as_str()),
        (0, true, "Failed")
    );
    let status = desk.rig.status("a");
    assert_eq!(status.reason, "PluginLost");
    let failed = status
        .conditions
        .iter()
        .find(|c| c.type_ == "Failed")
        .unwrap();
    assert!(failed.message.contains("signal 9"), "{}", failed.message);
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_is_missing_ends_the_session() {
    let (_desk, mut sidecar, claim) = working(None, spec()).await;
    let piece = Word::Piece(Piece {
        row: 1,
        offset: 7,
        data: vec![1],
        end: None,
    });
    sidecar.held.add(claim.clone(), piece);
    assert!(sidecar.held.work().await.is_err());
    let (_desk, mut sidecar, claim) = working(None, spec()).await;
    sidecar.held.add(claim, row(2, b"x", RowEnding::More));
    assert!(sidecar.held.work().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn more_words_than_there_is_room_for_wait_in_the_stream() {
    let (_desk, mut sidecar, claim) = working(None, spec()).await;
    assert!(sidecar.held.has_room());
    let mut offset = 0;
    while sidecar.held.has_room() {
        let data = vec![b'x'; 100_000];
        let piece = Piece {
            row: 1,
            offset,
            end: None,
            data,
        };
        offset += 100_000;
        sidecar.held.add(claim.clone(), Word::Piece(piece));
    }
    assert!(offset <= 700_000);
    while !sidecar.held.has_room() {
        sidecar.held.work().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_apply_writes_nothing() {
    let rig = Rig::new();
    let job = rig.add("a", spec(), Some(ready()));
    let key = JobKey::new("ns", "a");
    let uid = job.metadata.uid.unwrap();
    let changed = rig
        .jobs
        .change(&key, &uid, |job, now| {
            Ok((transition::start(job, CLAIM, now)?, ()))
        })
        .await;
    assert!(matches!(changed, Err(ChangeError::NotNow { .. })));
    let changed = rig
        .jobs
        .change(&key, "other", |job, now| {
            Ok((transition::cancel(job, now)?, ()))
        })
        .await;
    assert!(matches!(changed, Err(ChangeError::Gone)));
    // That it does not apply was read, not remembered.
    assert_eq!(rig.api.log(), ["GET jobs/a"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_is_set_hands_out_nothing_more_and_ends() {
    let rig = Rig::new();
    let wall = rig.jobs.wall.clone();
    let now = wall.now();
    rig.jobs.clock.hear(&Sample {
        sent: now,
        received: now,
        date: now,
    });
    rig.add("a", spec(), Some(ready()));
    let mut desk = Desk::open(rig).await;
    let sidecar = desk.attach(Vec::new()).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::task::yield_now().await;
    assert!(!desk.clerk.is_finished());
    wall.shift(-600);
    sidecar.ask(CLAIM, 1000).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), &mut desk.clerk).await;
    assert!(matches!(ended, Ok(Ok(LeaderError::Clock { seconds })) if seconds > 500.0));
    assert_eq!(desk.rig.status("a").phase, Some(Phase::Ready));
    assert!(desk.rig.api.log().is_empty());
}
