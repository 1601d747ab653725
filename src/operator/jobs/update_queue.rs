//! What one session says about the jobs that its pod has: in order for each claim, several claims
//! at a time, and no more in memory than a bounded number of bytes. A sidecar that says more waits
//! in its stream.

use super::JobContext;
use super::messages::{ClaimOf, Holder, JobUpdate};
use super::row_buffer::RowBuffer;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of updates that wait, about.
const WAITING: usize = 512 * 1024;
/// Claims whose updates are worked on at a time.
const AT_ONCE: usize = 32;
/// A row that is larger than a message and does not go on for so long holds up others.
const STALLED: Duration = Duration::from_secs(30);
/// A start is written when nothing else of the job was heard for so long: most jobs are done by
/// then, and their answer says that they were started.
const SETTLE_DOWN: Duration = Duration::from_millis(100);

/// Works on the updates of one session.
pub struct UpdateQueue {
    jobs: Arc<JobContext>,
    holder: Arc<Holder>,
    session: u64,
    claims: HashMap<ClaimOf, Claim>,
    /// Claims that have something to do and wait for a place.
    ready: VecDeque<ClaimOf>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    waiting: usize,
}

/// One claim that was spoken of.
#[derive(Default)]
struct Claim {
    updates: VecDeque<JobUpdate>,
    /// The row that is coming in; away while it is worked on.
    buffer: Option<RowBuffer>,
    busy: bool,
    /// Since when a large row has not gone on.
    since: Option<Instant>,
    /// When its start is to be written.
    start: Option<Instant>,
}

/// An update that was worked on.
struct Done {
    claim: ClaimOf,
    size: usize,
    buffer: Option<RowBuffer>,
    /// Why the session cannot go on.
    wrong: Option<&'static str>,
}

impl UpdateQueue {
    /// Nothing was said yet.
    pub fn new(jobs: Arc<JobContext>, holder: Holder, session: u64) -> Self {
        Self {
            jobs,
            holder: Arc::new(holder),
            session,
            claims: HashMap::new(),
            ready: VecDeque::new(),
            running: FuturesUnordered::new(),
            waiting: 0,
        }
    }

    /// Whether another update may come.
    pub fn has_room(&self) -> bool {
        self.waiting < WAITING
    }

    /// Takes an update in; it is worked on after those of the same claim that came before.
    pub fn add(&mut self, of: ClaimOf, update: JobUpdate) {
        let claim = self.claims.entry(of.clone()).or_default();
        if update == JobUpdate::Started && !claim.busy && claim.updates.is_empty() {
            claim.start = Some(Instant::now() + SETTLE_DOWN);
            return;
        }
        claim.start = None;
        self.put(of, update);
    }

    fn put(&mut self, of: ClaimOf, update: JobUpdate) {
        self.waiting += update.size();
        let claim = self.claims.entry(of.clone()).or_default();
        claim.updates.push_back(update);
        if !claim.busy && claim.updates.len() == 1 {
            self.ready.push_back(of);
        }
        self.begin();
    }

    /// Works until some update is done: there may be room again. An error ends the session. Never
    /// ends while there is nothing to do. Safe to drop.
    pub async fn work(&mut self) -> Result<(), &'static str> {
        let stalled = self
            .earliest(|claim| claim.since)
            .map(|since| since + STALLED);
        let start = self.earliest(|claim| claim.start);
        tokio::select! {
            Some(done) = self.running.next() => self.ended(done),
            () = sleep_until(start) => {
                self.start();
                Ok(())
            }
            () = sleep_until(stalled) => Err("a row did not go on for too long"),
        }
    }

    /// Writes the starts whose time has come.
    fn start(&mut self) {
        let now = Instant::now();
        let due: Vec<ClaimOf> = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.start.is_some_and(|start| start <= now))
            .map(|(of, _)| of.clone())
            .collect();
        for of in due {
            if let Some(claim) = self.claims.get_mut(&of) {
                claim.start = None;
            }
            self.put(of, JobUpdate::Started);
        }
    }

    fn ended(&mut self, done: Done) -> Result<(), &'static str> {
        self.waiting = self.waiting.saturating_sub(done.size);
        if let Some(wrong) = done.wrong {
            return Err(wrong);
        }
        if let Some(claim) = self.claims.get_mut(&done.claim) {
            claim.busy = false;
            let large = done.buffer.as_ref().is_some_and(RowBuffer::is_large);
            claim.since = large.then(Instant::now);
            claim.buffer = done.buffer;
            if !claim.updates.is_empty() {
                claim.since = None;
                self.ready.push_back(done.claim);
            } else if claim.buffer.is_none() && claim.start.is_none() {
                self.claims.remove(&done.claim);
            }
        }
        self.begin();
        Ok(())
    }

    fn begin(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(of) = self.ready.pop_front()
        {
            let Some(claim) = self.claims.get_mut(&of) else {
                continue;
            };
            let Some(update) = claim.updates.pop_front() else {
                continue;
            };
            claim.busy = true;
            claim.since = None;
            let buffer = claim.buffer.take();
            let (jobs, holder) = (Arc::clone(&self.jobs), Arc::clone(&self.holder));
            let session = self.session;
            self.running.push(Box::pin(async move {
                let size = update.size();
                let context = UpdateContext {
                    jobs: &jobs,
                    holder: &holder,
                    session,
                    of: &of,
                };
                let (buffer, wrong) = match context.handle(buffer, update).await {
                    Ok(buffer) => (buffer, None),
                    Err(wrong) => (None, Some(wrong)),
                };
                Done {
                    claim: of,
                    size,
                    buffer,
                    wrong,
                }
            }));
        }
    }

    fn earliest(&self, of: impl Fn(&Claim) -> Option<Instant>) -> Option<Instant> {
        self.claims.values().filter_map(of).min()
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Who says something, about which claim.
pub struct UpdateContext<'a> {
    /// For everything that follows.
    pub jobs: &'a JobContext,
    /// The pod that was dialled.
    pub holder: &'a Holder,
    pub session: u64,
    /// The claim that is spoken of.
    pub of: &'a ClaimOf,
}

impl UpdateContext<'_> {
    async fn handle(
        &self,
        buffer: Option<RowBuffer>,
        update: JobUpdate,
    ) -> Result<Option<RowBuffer>, &'static str> {
        match update {
            JobUpdate::Started => {
                self.started().await;
                Ok(buffer)
            }
            JobUpdate::OutputChunk(piece) => self.piece(buffer, piece).await,
            JobUpdate::Lost { exit, message } => {
                // The rest of a row will never come.
                drop(buffer);
                self.lost(exit, message).await;
                Ok(None)
            }
        }
    }
}
