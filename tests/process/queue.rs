//! Jobs as an operator keeps them, as far as one sidecar can tell: given to asks in their order,
//! each row of output stored once.

use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::{
    ClaimName, ClaimQueryReply, Grant, Lost, NoWork, Outcome, Row, RowStored, SidecarHello,
    WorkRequest,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Where a job stands. There is no way back from one that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    Ready,
    Claimed,
    Running,
    Succeeded,
    Failed,
}

impl Stands {
    fn is_over(self) -> bool {
        matches!(self, Stands::Succeeded | Stands::Failed)
    }
}

/// A whole row of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub data: Vec<u8>,
    pub is_text: bool,
    pub is_late: bool,
}

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    pub uid: String,
    spec: Value,
    pub stands: Stands,
    claim: Option<String>,
    pub attempt: u32,
    pub rows: Vec<Stored>,
    /// Bytes of the row that is being sent.
    arriving: Vec<u8>,
    pub reason: String,
    pub message: String,
    /// Rows that came again although they had been stored.
    pub again: u32,
    /// Where it stood, in order.
    pub path: Vec<Stands>,
}

impl Job {
    /// The rows as text; bytes in their debug form.
    pub fn texts(&self) -> Vec<String> {
        let rows = self.rows.iter();
        rows.map(|row| match std::str::from_utf8(&row.data) {
            Ok(text) if row.is_text => text.to_owned(),
            _ => format!("{:?}", row.data),
        })
        .collect()
    }

    fn stand(&mut self, stands: Stands) {
        if self.stands != stands {
            self.stands = stands;
            self.path.push(stands);
        }
    }
}

/// An ask that waits.
#[derive(Debug)]
struct Waiting {
    ask: WorkRequest,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    waiting: Vec<Waiting>,
    down: Option<mpsc::UnboundedSender<Down>>,
    /// Asks that came.
    asks: u64,
    epoch: String,
}

/// See the module. Clones are the same.
#[derive(Clone, Debug)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Adds a job for any client, with the values of the inputs of one command.
    pub fn submit(&self, command: &str, inputs: &[(&str, &str)]) -> String {
        self.submit_to(command, inputs, "", "")
    }

    /// Adds a job for one client. Gives its uid.
    pub fn submit_to(
        &self,
        command: &str,
        inputs: &[(&str, &str)],
        location: &str,
        port: &str,
    ) -> String {
        let inputs: Vec<Value> = inputs
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let spec = json!({
            "pluginRef": {"name": "plugin"},
            "command": {"name": command, "inputs": inputs},
            "target": {"client": location, "port": port},
        });
        let mut state = self.state();
        let uid = format!("00000000-0000-4000-8000-{:012}", state.jobs.len());
        state.jobs.push(Job {
            uid: uid.clone(),
            spec,
            stands: Stands::Ready,
            claim: None,
            attempt: 0,
            rows: Vec::new(),
            arriving: Vec::new(),
            reason: String::new(),
            message: String::new(),
            again: 0,
            path: Vec::new(),
        });
        state.match_all();
        drop(state);
        self.changed();
        uid
    }

    pub fn job(&self, uid: &str) -> Job {
        self.state()
            .find(uid)
            .expect("a job that was submitted")
            .clone()
    }

    /// How many asks came so far.
    pub fn asks(&self) -> u64 {
        self.state().asks
    }

    /// Waits until a job is as wanted; `None` when that does not happen in time.
    pub async fn wait(
        &self,
        uid: &str,
        limit: Duration,
        wanted: impl Fn(&Job) -> bool,
    ) -> Option<Job> {
        let deadline = Instant::now() + limit;
        let mut changes = self.changes.subscribe();
        loop {
            let job = self.job(uid);
            if wanted(&job) {
                return Some(job);
            }
            timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    }

    /// A session begins: what it says from here on is answered through `down`.
    pub fn open(&self, down: mpsc::UnboundedSender<Down>) {
        let mut state = self.state();
        state.waiting.clear();
        state.down = Some(down);
    }

    /// Takes in what concerns jobs.
    pub fn hear(&self, message: Up) {
        let mut state = self.state();
        match message {
            Up::Hello(hello) => state.greet(&hello),
            Up::WorkRequest(ask) => {
                state.asks += 1;
                let (queue, claim_id) = (self.clone(), ask.claim_id.clone());
                let hold = Duration::from_millis(ask.wait_ms.into());
                state.waiting.push(Waiting {
                    ask,
                    since: Instant::now(),
                });
                tokio::spawn(async move {
                    sleep(hold).await;
                    queue.state().give_up(&claim_id);
                });
                state.match_all();
            }
            Up::CancelRequest(withdraw) => {
                state
                    .waiting
                    .retain(|one| one.ask.claim_id != withdraw.claim_id);
            }
            Up::ClaimReturned(released) => {
                if let Some(job) = state.claimed(released.claim.as_ref())
                    && job.stands == Stands::Claimed
                {
                    job.claim = None;
                    // A release is no attempt.
                    job.attempt -= 1;
                    job.stand(Stands::Ready);
                }
                state.match_all();
            }
            Up::Started(started) => {
                if let Some(job) = state.claimed(started.claim.as_ref())
                    && !job.stands.is_over()
                {
                    job.stand(Stands::Running);
                }
            }
            Up::Row(row) => state.store(row),
            Up::Lost(lost) => state.lose(&lost),
            Up::ClaimQueryReply(ClaimQueryReply { .. }) => {}
            Up::Instance(_) | Up::Counters(_) | Up::Pong(_) => return,
        }
        drop(state);
        self.changed();
    }
}

impl State {
    fn find(&self, uid: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.uid == uid)
    }

    /// The job that this claim holds.
    fn claimed(&mut self, claim: Option<&ClaimName>) -> Option<&mut Job> {
        let claim = claim?;
        let mut jobs = self.jobs.iter_mut();
        jobs.find(|job| {
            job.uid == claim.job_uid && job.claim.as_deref() == Some(claim.claim_id.as_str())
        })
    }

    fn send(&self, message: Down) {
        if let Some(down) = &self.down {
            // An error means that the session is over; what it missed is asked for again.
            let _ = down.send(message);
        }
    }

    fn greet(&mut self, hello: &SidecarHello) {
        assert_eq!(hello.ledger_epoch.len(), 32, "the ledger has a name");
        assert!(
            self.epoch.is_empty() || self.epoch == hello.ledger_epoch,
            "the private volume lives as long as the pod"
        );
        self.epoch.clone_from(&hello.ledger_epoch);
        let known = |claim: &str| {
            let mut entries = hello.ledger.iter().filter_map(|entry| entry.claim.as_ref());
            entries.any(|name| name.claim_id == claim)
        };
        for job in &mut self.jobs {
            // A grant that never reached the ledger.
            if job.stands == Stands::Claimed && job.claim.as_deref().is_some_and(|one| !known(one))
            {
                job.claim = None;
                job.attempt -= 1;
                job.stand(Stands::Ready);
            }
        }
    }

    fn give_up(&mut self, claim_id: &str) {
        let before = self.waiting.len();
        self.waiting.retain(|one| one.ask.claim_id != claim_id);
        if self.waiting.len() < before {
            let claim_id = claim_id.to_owned();
            self.send(Down::NoWork(NoWork { claim_id }));
        }
    }

    fn match_all(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            match self.grant(&one) {
                Some(grant) => self.send(Down::Grant(grant)),
                None => self.waiting.push(one),
            }
        }
    }

    /// The first job in the order of submission that this ask may have.
    fn grant(&mut self, waiting: &Waiting) -> Option<Grant> {
        let fits = |asked: &Option<String>, wanted: &Value| {
            let wanted = wanted.as_str().unwrap_or_default();
            wanted.is_empty() || asked.as_ref().is_none_or(|asked| asked == wanted)
        };
        let ask = &waiting.ask;
        let number = self.jobs.iter().position(|job| {
            let target = &job.spec["target"];
            job.stands == Stands::Ready
                && fits(&ask.client, &target["client"])
                && fits(&ask.port, &target["port"])
        })?;
        let job = &mut self.jobs[number];
        job.claim = Some(ask.claim_id.clone());
        job.attempt += 1;
        job.stand(Stands::Claimed);
        Some(Grant {
            claim: Some(ClaimName {
                claim_id: ask.claim_id.clone(),
                job_uid: job.uid.clone(),
            }),
            job: format!("job-{number}"),
            spec_json: job.spec.to_string().into_bytes(),
            remaining_ms: 0,
            waited_ms: u64::try_from(waiting.since.elapsed().as_millis()).unwrap(),
            attempt: job.attempt,
            active_deadline_ms: 0,
            output_max_bytes: 16 << 20,
            start_time: "2026-01-02T03:04:05.000000Z".into(),
        })
    }

    fn store(&mut self, row: Row) {
        let Some(job) = self.claimed(row.claim.as_ref()) else {
            return;
        };
        let number = row.row as usize;
        if number <= job.rows.len() {
            job.again += u32::from(row.last);
        } else {
            assert_eq!(number, job.rows.len() + 1, "rows come in their order");
            if row.offset == 0 {
                job.arriving.clear();
            }
            assert_eq!(row.offset, job.arriving.len() as u64, "no piece is missing");
            job.arriving.extend(&row.data);
            if !row.last {
                return;
            }
            let is_late = job.stands.is_over();
            job.rows.push(Stored {
                data: std::mem::take(&mut job.arriving),
                is_text: row.text,
                is_late,
            });
            match row.outcome() {
                _ if is_late => {}
                Outcome::Unspecified => job.stand(Stands::Running),
                Outcome::Succeeded => job.stand(Stands::Succeeded),
                Outcome::Failed => {
                    job.stand(Stands::Failed);
                    job.reason.clone_from(&row.reason);
                    job.message.clone_from(&row.message);
                }
            }
        }
        if row.last {
            let stored = RowStored {
                claim: row.claim.clone(),
                row: row.row,
                settled: job.stands.is_over(),
                phase: format!("{:?}", job.stands),
            };
            self.send(Down::RowStored(stored));
        }
    }

    fn lose(&mut self, lost: &Lost) {
        let Some(job) = self.claimed(lost.claim.as_ref()) else {
            return;
        };
        if !job.stands.is_over() {
            job.stand(Stands::Failed);
            job.reason = "PluginLost".into();
            job.message.clone_from(&lost.message);
        }
        let stored = RowStored {
            claim: lost.claim.clone(),
            row: 0,
            settled: true,
            phase: "Failed".into(),
        };
        self.send(Down::RowStored(stored));
    }
}
