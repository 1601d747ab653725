//! Jobs on their whole way: from the work request of a sidecar to its answer, over the fake API server.

use super::dispatch_task::DispatchTask;
use super::harness::{Harness, chunk_path, claimed, holder, job_path, ready, spec};
use super::messages::{ClaimOf, DispatchMessage, Entry, JobUpdate, OutputChunk, RowEnd, RowEnding};
use super::session_registry::SessionGuard;
use super::update_queue::UpdateQueue;
use super::{JobSettings, status_writer::ChangeError};
use crate::health::ProcessHealth;
use crate::key::JobKey;
use crate::leader::LeaderError;
use crate::skew::ClockSample;
use crate::watch::job_feed::WatchEvent;
use patchbay_api::Job;
use patchbay_api::job_status::{Encoding, Phase};
use patchbay_fake_api::Fault;
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
struct TestTerm {
    harness: Harness,
    task: JoinHandle<LeaderError>,
}

struct Sidecar {
    guard: SessionGuard,
    held: UpdateQueue,
    event: mpsc::Receiver<FromOperator>,
}

impl TestTerm {
    async fn open(harness: Harness) -> Self {
        let mut harness = harness;
        let jobs = ["a", "b", "c"]
            .iter()
            .filter_map(|name| harness.stored(name));
        let jobs: Vec<Job> = jobs.collect();
        let (inbox, seen) = (harness.inbox.take().unwrap(), harness.seen.take().unwrap());
        let task = DispatchTask::new(
            Arc::clone(&harness.jobs),
            Arc::new(ProcessHealth::default()),
            inbox,
            seen,
        );
        let task = tokio::spawn(task.run());
        for job in jobs {
            harness.jobs.feed.tell(WatchEvent::Job(Box::new(job))).await;
        }
        harness.fill();
        Self { harness, task }
    }

    async fn attach(&self, ledger: Vec<Entry>) -> Sidecar {
        let (stream, event) = mpsc::channel(64);
        let guard = self.harness.sessions.enter("pod-uid", stream);
        guard
            .write(DispatchMessage::Attached {
                holder: holder(),
                ledger_epoch: "e".into(),
                ledger,
            })
            .await;
        let held = UpdateQueue::new(Arc::clone(&self.harness.jobs), holder(), guard.session());
        Sidecar { guard, held, event }
    }

    /// Waits until the Job is in this phase.
    async fn until(&self, name: &str, phase: Phase) {
        let wait = async {
            while self.harness.status(name).phase != Some(phase) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("{name} is {:?}", self.harness.status(name)));
    }
}

impl Drop for TestTerm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sidecar {
    async fn ask(&self, claim_id: &str, wait_ms: u32) {
        self.guard
            .write(DispatchMessage::WorkRequest {
                claim_id: claim_id.into(),
                client: None,
                port: None,
                wait_ms,
            })
            .await;
    }

    async fn next_message(&mut self) -> Message {
        let wait = tokio::time::timeout(Duration::from_secs(60), self.event.recv());
        wait.await.unwrap().unwrap().message.unwrap()
    }

    /// Answers every doubt: the ledger does not have it.
    async fn knows_nothing(&mut self, doubted: &mut Vec<String>) {
        loop {
            let Message::ClaimQuery(query_claims) = self.next_message().await else {
                panic!("no doubt");
            };
            for entry in query_claims.claims {
                let claim = entry.claim.unwrap();
                doubted.push(entry.job.clone());
                let claim = ClaimOf {
                    claim_id: claim.claim_id,
                    job: entry.job,
                    uid: claim.job_uid,
                };
                let answer = DispatchMessage::ClaimQueryReply {
                    claim,
                    known: false,
                };
                self.guard.write(answer).await;
            }
        }
    }

    async fn grant(&mut self) -> Grant {
        match self.next_message().await {
            Message::Grant(grant) => grant,
            other => panic!("no grant: {other:?}"),
        }
    }

    /// Says something about a job and waits for the message that a row is stored.
    async fn row(&mut self, of: &ClaimOf, update: JobUpdate) -> RowStored {
        self.held.add(of.clone(), update);
        let wait = async {
            loop {
                tokio::select! {
                    worked = self.held.work() => worked.unwrap(),
                    message = self.event.recv() => match message.unwrap().message.unwrap() {
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

fn row(row: u32, data: &[u8], outcome: RowEnding) -> JobUpdate {
    JobUpdate::OutputChunk(OutputChunk {
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
    let harness = Harness::new();
    let job = harness.add("a", spec(), Some(ready()));
    let dispatcher = TestTerm::open(harness).await;
    let mut sidecar = dispatcher.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 1000).await;
    let grant = sidecar.grant().await;
    assert_eq!(grant.job, "a");
    assert_eq!((grant.attempt, grant.remaining_ms), (1, 0));
    assert_eq!(grant.start_time, "2026-11-22T12:00:00.000000Z");
    assert_eq!(grant.output_max_bytes, 16_777_216);
    let spec: serde_json::Value = serde_json::from_slice(&grant.spec_json).unwrap();
    assert_eq!(spec["command"]["name"], "echo");
    assert_eq!(
        dispatcher.harness.status("a").phase,
        Some(Phase::Claimed),
        "written first"
    );
    let claim = of(&job, &grant.claim.unwrap().claim_id);
    sidecar.held.add(claim.clone(), JobUpdate::Started);
    let stored = sidecar
        .row(&claim, row(1, b"42.42", RowEnding::Succeeded))
        .await;
    assert_eq!(
        (stored.row, stored.settled, stored.phase.as_str()),
        (1, true, "Succeeded")
    );
    let status = dispatcher.harness.status("a");
    let output = status.output.unwrap();
    assert_eq!(
        (output.preview.as_str(), output.sha256),
        ("42.42", hex(b"42.42"))
    );
    assert_eq!(dispatcher.harness.api.log(), ["PUT jobs/a/status"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_a_while_is_seen_running() {
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    sidecar.held.add(claim, JobUpdate::Started);
    sidecar.held.work().await.unwrap();
    sidecar.held.work().await.unwrap();
    assert_eq!(dispatcher.harness.status("a").phase, Some(Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_finds_nothing_is_answered_and_one_that_waits_gets_what_comes() {
    let dispatcher = TestTerm::open(Harness::new()).await;
    let mut sidecar = dispatcher.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 200).await;
    let nothing = sidecar.next_message().await;
    assert!(matches!(nothing, Message::NoWork(nothing) if nothing.claim_id == CLAIM));
    sidecar.ask(&"f".repeat(32), 60_000).await;
    let job = dispatcher.harness.add("a", spec(), Some(ready()));
    dispatcher
        .harness
        .jobs
        .feed
        .tell(WatchEvent::Job(Box::new(job)))
        .await;
    assert_eq!(
        sidecar.grant().await.claim.unwrap().claim_id,
        "f".repeat(32)
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_session_is_gone_before_the_grant_is_given_back() {
    let harness = Harness::new();
    harness.add("a", spec(), Some(ready()));
    // The answer of the claim is lost, and reading it back takes a while.
    harness.api.faults([Fault::Lost]);
    let dispatcher = TestTerm::open(harness).await;
    let sidecar = dispatcher.attach(Vec::new()).await;
    sidecar.ask(CLAIM, 1000).await;
    dispatcher.until("a", Phase::Claimed).await;
    drop(sidecar);
    dispatcher.until("a", Phase::Ready).await;
    let mut again = dispatcher.attach(Vec::new()).await;
    again.ask(&"f".repeat(32), 1000).await;
    assert_eq!(again.grant().await.attempt, 1, "a release does not count");
}

#[tokio::test(start_paused = true)]
async fn what_a_new_session_does_not_know_is_released_and_what_it_knows_is_not() {
    let harness = Harness::new();
    harness.add("a", spec(), Some(claimed(CLAIM)));
    let known = harness.add("b", spec(), Some(claimed(&"b".repeat(32))));
    let mut other = claimed(&"c".repeat(32));
    other["claim"]["ledgerEpoch"] = "before".into();
    harness.add("c", spec(), Some(other));
    let dispatcher = TestTerm::open(harness).await;
    let entry = Entry {
        claim: of(&known, &"b".repeat(32)),
        delivered: true,
    };
    let mut sidecar = dispatcher.attach(vec![entry]).await;
    let mut doubts = Vec::new();
    let settled = async {
        dispatcher.until("a", Phase::Ready).await;
        dispatcher.until("c", Phase::Failed).await;
    };
    tokio::select! {
        () = settled => {}
        () = sidecar.knows_nothing(&mut doubts) => {}
    }
    assert!(!doubts.contains(&"b".to_owned()), "it was named");
    assert_eq!(dispatcher.harness.status("c").reason, "PluginLost");
    assert_eq!(dispatcher.harness.status("b").phase, Some(Phase::Claimed));
}

#[tokio::test(start_paused = true)]
async fn holder_learns_of_a_cancelled_job_when_it_reconnects() {
    let harness = Harness::new();
    let mut status = claimed(CLAIM);
    status["phase"] = "Failed".into();
    status["reason"] = "Cancelled".into();
    let job = harness.add("a", spec(), Some(status));
    let dispatcher = TestTerm::open(harness).await;
    let entry = Entry {
        claim: of(&job, CLAIM),
        delivered: true,
    };
    let mut sidecar = dispatcher.attach(vec![entry]).await;
    let cancel = sidecar.next_message().await;
    assert!(matches!(cancel, Message::Cancel(cancel) if cancel.reason == "Cancelled"));
}

/// A job that the sidecar has.
async fn working(
    settings: Option<JobSettings>,
    spec: serde_json::Value,
) -> (TestTerm, Sidecar, ClaimOf) {
    let harness = settings.map_or_else(Harness::new, Harness::with);
    let job = harness.add("a", spec, Some(claimed(CLAIM)));
    let claim = of(&job, CLAIM);
    let dispatcher = TestTerm::open(harness).await;
    let entry = Entry {
        claim: claim.clone(),
        delivered: true,
    };
    let sidecar = dispatcher.attach(vec![entry]).await;
    (dispatcher, sidecar, claim)
}

#[tokio::test(start_paused = true)]
async fn rows_are_stored_in_order_and_a_repeated_one_once() {
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    let stored = sidecar.row(&claim, row(1, b"ab", RowEnding::More)).await;
    assert_eq!((stored.settled, stored.phase.as_str()), (false, "Running"));
    dispatcher.harness.api.faults([Fault::Lost]);
    sidecar.row(&claim, row(2, b"c", RowEnding::More)).await;
    sidecar.row(&claim, row(2, b"c", RowEnding::More)).await;
    let stored = sidecar
        .row(&claim, row(3, b"d", RowEnding::Succeeded))
        .await;
    assert!(stored.settled);
    let output = dispatcher.harness.status("a").output.unwrap();
    assert_eq!((output.row_count, output.bytes), (3, 4));
    assert_eq!(output.sha256, hex(b"abcd"));
    // The message that it is stored was lost: the same row again.
    let again = sidecar
        .row(&claim, row(3, b"d", RowEnding::Succeeded))
        .await;
    assert_eq!((again.settled, again.phase.as_str()), (true, "Succeeded"));
    assert_eq!(dispatcher.harness.status("a").output.unwrap().row_count, 3);
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_the_digest_of_what_is_stored() {
    let mut spec = spec();
    spec["outputPolicy"] = json!({"inlineMaxBytes": 3, "maxBytes": 1000});
    let (dispatcher, mut sidecar, claim) = working(None, spec).await;
    sidecar.row(&claim, row(1, b"ab", RowEnding::More)).await;
    sidecar.row(&claim, row(2, b"cdef", RowEnding::More)).await;
    assert_eq!(dispatcher.harness.status("a").output.unwrap().chunks, 1);
    dispatcher.harness.jobs.concurrency.digests.forget(CLAIM);
    sidecar
        .row(&claim, row(3, b"g", RowEnding::Succeeded))
        .await;
    let output = dispatcher.harness.status("a").output.unwrap();
    assert_eq!((output.bytes, output.sha256), (7, hex(b"abcdefg")));
}

#[tokio::test(start_paused = true)]
async fn pcp_26_large_output_lies_beside_the_job_before_the_job_is_done() {
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    let content = "añb\n".repeat(300_000).into_bytes();
    let half = content.len() / 2;
    let first = JobUpdate::OutputChunk(OutputChunk {
        row: 1,
        offset: 0,
        data: content[..half].to_vec(),
        end: None,
    });
    let second = JobUpdate::OutputChunk(OutputChunk {
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
    dispatcher.harness.api.faults([Fault::Lost]);
    sidecar.held.add(claim.clone(), first);
    let stored = sidecar.row(&claim, second).await;
    assert!(stored.settled);
    let status = dispatcher.harness.status("a");
    let output = status.output.unwrap();
    assert_eq!((output.chunks, output.bytes), (3, content.len() as i64));
    assert_eq!(output.sha256, hex(&content));
    assert_eq!(output.preview.chars().count(), 1024);
    assert_eq!(output.rows[0].content, None);
    let mut read = Vec::new();
    for chunk in 0..3 {
        let object = dispatcher
            .harness
            .api
            .get(&chunk_path(&format!("a-1-1-{chunk}")))
            .unwrap();
        assert_eq!(object["spec"]["encoding"], json!(Encoding::Text));
        let piece = object["spec"]["content"].as_str().unwrap();
        assert!(piece.len() <= 512 * 1024);
        read.extend_from_slice(piece.as_bytes());
    }
    assert!(read == content);
    let log = dispatcher.harness.api.log();
    assert_eq!(log.last().unwrap(), "PUT jobs/a/status", "{log:?}");
    assert_eq!(log.iter().filter(|l| l.starts_with("PUT")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn output_of_an_earlier_job_of_the_same_name_makes_room() {
    let mut spec = spec();
    spec["outputPolicy"] = json!({"inlineMaxBytes": 0, "maxBytes": 1000});
    let (dispatcher, mut sidecar, claim) = working(None, spec).await;
    dispatcher.harness.api.put(
        &chunk_path("a-1-1-0"),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v", "kind": "Job", "name": "a", "uid": "old"}]},
               "spec": {"job": "a", "attempt": 1, "row": 1, "chunk": 0, "bytes": 1, "sha256": hex(b"new"),
                        "encoding": "Text", "content": "x"}}),
    );
    sidecar
        .row(&claim, row(1, b"new", RowEnding::Succeeded))
        .await;
    let chunk = dispatcher.harness.api.get(&chunk_path("a-1-1-0")).unwrap();
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
    for (settings, spec, update) in [(None, small, "maxBytes"), (Some(full), beside, "namespace")] {
        let (dispatcher, mut sidecar, claim) = working(settings, spec).await;
        let stored = sidecar
            .row(&claim, row(1, b"0123456789x", RowEnding::Succeeded))
            .await;
        assert_eq!((stored.settled, stored.phase.as_str()), (true, "Failed"));
        let status = dispatcher.harness.status("a");
        assert_eq!(status.reason, "OutputTooLarge");
        let failed = status
            .conditions
            .iter()
            .find(|c| c.type_ == "Failed")
            .unwrap();
        assert!(failed.message.contains(update), "{}", failed.message);
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
    let (dispatcher, mut sidecar, claim) = working(None, spec).await;
    // A quota says so too, and for good.
    dispatcher.harness.api.faults([Fault::Code(403); 7]);
    sidecar
        .row(&claim, row(1, b"abc", RowEnding::Succeeded))
        .await;
    let status = dispatcher.harness.status("a");
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
        let (dispatcher, mut sidecar, claim) = working(None, spec).await;
        dispatcher.harness.api.faults([Fault::Code(403); 3]);
        sidecar
            .row(&claim, row(1, b"abc", RowEnding::Succeeded))
            .await;
        let status = dispatcher.harness.status("a");
        assert_eq!(status.phase, Some(Phase::Succeeded));
        assert!(!status.output.unwrap().truncated);
    }
}

#[tokio::test(start_paused = true)]
async fn pcp_30_an_answer_after_the_end_is_kept_as_late() {
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    sidecar.row(&claim, row(1, b"a", RowEnding::More)).await;
    let key = JobKey::new("ns", "a");
    let cancelled = dispatcher
        .harness
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
    let status = dispatcher.harness.status("a");
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
    assert_eq!(dispatcher.harness.jobs.metrics.late_rows.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_a_job_that_is_gone_or_anothers_is_settled_and_changes_nothing() {
    // Deleted.
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    dispatcher.harness.api.remove(&job_path("a"));
    let stored = sidecar
        .row(&claim, row(1, b"a", RowEnding::Succeeded))
        .await;
    assert_eq!((stored.settled, stored.phase.as_str()), (true, ""));
    // Deleted and created again.
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    dispatcher.harness.api.remove(&job_path("a"));
    dispatcher.harness.add("a", spec(), Some(claimed(CLAIM)));
    let stored = sidecar
        .row(&claim, row(1, b"a", RowEnding::Succeeded))
        .await;
    assert_eq!((stored.settled, stored.phase.as_str()), (true, ""));
    assert_eq!(dispatcher.harness.status("a").output, None);
    // By a claim that another pod has.
    let harness = Harness::new();
    let mut status = claimed(CLAIM);
    status["claim"]["holderPodUID"] = "another".into();
    let job = harness.add("a", spec(), Some(status));
    let dispatcher = TestTerm::open(harness).await;
    let mut sidecar = dispatcher.attach(Vec::new()).await;
    let claim = of(&job, CLAIM);
    let lost = JobUpdate::Lost {
        exit: String::new(),
        message: String::new(),
    };
    for update in [row(1, b"a", RowEnding::Succeeded), JobUpdate::Started, lost] {
        if update == JobUpdate::Started {
            sidecar.held.add(claim.clone(), update);
            continue;
        }
        assert!(sidecar.row(&claim, update).await.settled);
    }
    let status = dispatcher.harness.status("a");
    assert_eq!((status.phase, status.output), (Some(Phase::Claimed), None));
    assert_eq!(dispatcher.harness.jobs.metrics.lost.get(), 0);
}

/// Another leader has claimed the job, and this one's watch has not shown it yet: what its holder
/// says of it is not thrown away.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_throws_no_answer_away() {
    let lost = || JobUpdate::Lost {
        exit: "exit code 1".into(),
        message: String::new(),
    };
    let two = || row(2, b"b", RowEnding::Succeeded);
    for (update, rows) in [
        (row(1, b"a", RowEnding::Succeeded), 0),
        (two(), 1),
        (lost(), 0),
    ] {
        let harness = Harness::new();
        let job = harness.add("a", spec(), Some(ready()));
        let dispatcher = TestTerm::open(harness).await;
        let mut object = serde_json::to_value(&job).unwrap();
        object["status"] = claimed(CLAIM);
        if rows == 1 {
            object["status"]["output"] = json!({
                "bytes": 1, "rowCount": 1, "chunks": 0,
                "rows": [{"row": 1, "bytes": 1, "encoding": "Text", "content": "a"}],
            });
        }
        dispatcher.harness.api.put(&job_path("a"), object);
        let entry = Entry {
            claim: of(&job, CLAIM),
            delivered: true,
        };
        let mut sidecar = dispatcher.attach(vec![entry]).await;
        let stored = sidecar.row(&of(&job, CLAIM), update.clone()).await;
        let status = dispatcher.harness.status("a");
        assert!(
            status.phase.unwrap().is_terminal(),
            "{update:?}: {status:?}"
        );
        assert_eq!(stored.phase, status.phase.unwrap().as_str());
        if rows == 1 {
            assert_eq!(status.output.unwrap().sha256, hex(b"ab"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_plugin_fails_its_job_with_exit_code() {
    let (dispatcher, mut sidecar, claim) = working(None, spec()).await;
    let lost = JobUpdate::Lost {
        exit: "signal 9".into(),
        message: "the plugin ended".into(),
    };
    let settled = sidecar.row(&claim, lost).await;
    assert_eq!(
        (settled.row, settled.settled, settled.phase.as_str()),
        (0, true, "Failed")
    );
    let status = dispatcher.harness.status("a");
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
    let piece = JobUpdate::OutputChunk(OutputChunk {
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
async fn job_messages_beyond_the_queue_wait_in_the_stream() {
    let (_desk, mut sidecar, claim) = working(None, spec()).await;
    assert!(sidecar.held.has_room());
    let mut offset = 0;
    while sidecar.held.has_room() {
        let data = vec![b'x'; 100_000];
        let piece = OutputChunk {
            row: 1,
            offset,
            end: None,
            data,
        };
        offset += 100_000;
        sidecar
            .held
            .add(claim.clone(), JobUpdate::OutputChunk(piece));
    }
    assert!(offset <= 700_000);
    while !sidecar.held.has_room() {
        sidecar.held.work().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_apply_writes_nothing() {
    let harness = Harness::new();
    let job = harness.add("a", spec(), Some(ready()));
    let key = JobKey::new("ns", "a");
    let uid = job.metadata.uid.unwrap();
    let changed = harness
        .jobs
        .change(&key, &uid, |job, now| {
            Ok((transition::start(job, CLAIM, now)?, ()))
        })
        .await;
    assert!(matches!(changed, Err(ChangeError::NotNow { .. })));
    let changed = harness
        .jobs
        .change(&key, "other", |job, now| {
            Ok((transition::cancel(job, now)?, ()))
        })
        .await;
    assert!(matches!(changed, Err(ChangeError::Gone)));
    // That it does not apply was read, not remembered.
    assert_eq!(harness.api.log(), ["GET jobs/a"; 2]);
}

#[tokio::test(start_paused = true)]
async fn leader_ends_without_further_claims_when_its_clock_is_set() {
    let harness = Harness::new();
    let wall = harness.jobs.wall.clone();
    let now = wall.now();
    harness.jobs.clock.add_sample(&ClockSample {
        sent: now,
        received: now,
        date: now,
    });
    harness.add("a", spec(), Some(ready()));
    let mut dispatcher = TestTerm::open(harness).await;
    let sidecar = dispatcher.attach(Vec::new()).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::task::yield_now().await;
    assert!(!dispatcher.task.is_finished());
    wall.shift(-600);
    sidecar.ask(CLAIM, 1000).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), &mut dispatcher.task).await;
    assert!(matches!(ended, Ok(Ok(LeaderError::Clock { seconds })) if seconds > 500.0));
    assert_eq!(dispatcher.harness.status("a").phase, Some(Phase::Ready));
    assert!(dispatcher.harness.api.log().is_empty());
}
