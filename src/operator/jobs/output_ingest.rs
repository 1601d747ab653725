//! A row of output, from its first piece to the message that it is stored.
//!
//! Content first: chunks are written as they come, then the Job says in one write that the row is
//! there and what it means. A row that is sent again, because the message was lost, is found stored.

use super::messages::{OutputChunk, RowEnd, RowEnding};
use super::output::{ChunkError, Place};
use super::progress::phase;
use super::row_buffer::{Disposition, RowBuffer, Stored};
use super::status_writer::{AGAIN, ChangeError, has_ended};
use super::update_queue::UpdateContext;
use crate::retry::jitter;
use kube::ResourceExt;
use patchbay_api::{Job, Reason};
use patchbay_reconcile::job::output::{fits_inline, is_text, preview};
use patchbay_reconcile::job::transition::{self, NotNow, RowFate, RowOutcome, StoredRow};
use sha2::Digest;
use std::sync::Arc;

/// Reasons that a sidecar may give.
const REASONS: [Reason; 5] = [
    Reason::PluginError,
    Reason::CallFailed,
    Reason::OutputTooLarge,
    Reason::UnknownCommand,
    Reason::DeadlineExceeded,
];

/// What became of a row that was to be kept.
enum Kept {
    Stored(Box<Job>, RowFate),
    Unwanted,
    Gone,
}

impl UpdateContext<'_> {
    /// Takes a piece in; the row so far, until it is whole. An error ends the session, and the
    /// sidecar begins the row again in the next one.
    pub(super) async fn piece(
        &self,
        buffer: Option<RowBuffer>,
        piece: OutputChunk,
    ) -> Result<Option<RowBuffer>, &'static str> {
        let mut buffer = match buffer {
            Some(buffer) if buffer.continues(piece.row, piece.offset) => buffer,
            _ if piece.offset == 0 => self.begin(piece.row).await?,
            _ => return Err("a piece of a row is missing"),
        };
        buffer.take(&piece.data);
        drop(piece.data);
        if *buffer.disposition() == Disposition::Keep {
            self.spill(&mut buffer).await;
        }
        match piece.end {
            Some(end) => self.finish(buffer, end).await.map(|()| None),
            None => Ok(Some(buffer)),
        }
    }

    /// The Job as it is now, whole. That it is not the speaker's, or not there, is never said by
    /// the store, which may be behind.
    async fn job(&self) -> Option<Job> {
        match self.jobs.stores.jobs.get(&self.key()) {
            Some(job) if !has_ended(&job) && self.may_speak(&job) => Some(job),
            _ => self.job_read_back().await,
        }
    }

    async fn job_read_back(&self) -> Option<Job> {
        let job = self.jobs.read_back(&self.key()).await?;
        self.jobs.observed(job.clone()).await;
        (job.metadata.uid.as_deref() == Some(&*self.of.uid)).then_some(job)
    }

    async fn begin(&self, row: u32) -> Result<RowBuffer, &'static str> {
        let unwanted = |disposition| Ok(RowBuffer::new(row, Stored::default(), disposition));
        let mut job = self.job().await;
        if job.as_ref().is_some_and(|job| row > rows_of(job) + 1) {
            job = self.job_read_back().await;
        }
        let Some(job) = job.filter(|job| self.may_speak(job)) else {
            return unwanted(Disposition::Unwanted);
        };
        let stored = rows_of(&job);
        if row <= stored {
            return unwanted(Disposition::Repeated);
        }
        if row > stored + 1 {
            return Err("a row is missing");
        }
        // The digest of a job that has ended does not change any more.
        if stored == 0 || has_ended(&job) {
            return Ok(RowBuffer::new(row, Stored::default(), Disposition::Keep));
        }
        let known = self.jobs.digest_of(&self.of.claim_id, stored);
        let mut failures = 0;
        let before = match known {
            Some(known) => known,
            None => loop {
                match self.jobs.read_stored(&job).await {
                    Some(read) => break read,
                    None if failures >= 5 => return Err("stored rows could not be read"),
                    None => failures += 1,
                }
                AGAIN.pause(failures).await;
            },
        };
        Ok(RowBuffer::new(row, before, Disposition::Keep))
    }

    /// Writes whole chunks, as long as there is room for them.
    async fn spill(&self, buffer: &mut RowBuffer) {
        if buffer.is_large() && buffer.place.is_none() {
            let places = Arc::clone(&self.jobs.concurrency.large_rows);
            buffer.place = places.acquire_owned().await.ok();
        }
        while let Some(chunk) = buffer.chunk() {
            // Whether it is text is known at the end of the row only; what can stand as text does.
            let text = is_text(&chunk);
            self.keep(buffer, &chunk, text).await;
        }
    }

    /// Stores one chunk of the row, or finds that it is too much.
    async fn keep(&self, buffer: &mut RowBuffer, chunk: &[u8], text: bool) {
        let Some(job) = self.job().await else {
            return buffer.too_much(String::new());
        };
        if let Some(why) = self.over(&job, buffer).or_else(|| self.full(&job, buffer)) {
            return buffer.too_much(why);
        }
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        let place = Place {
            attempt,
            row: buffer.row(),
            chunk: buffer.chunks,
        };
        match self.jobs.store_chunk(&job, place, chunk, text).await {
            Ok(()) => {
                buffer.chunks += 1;
                buffer.written += chunk.len() as u64;
            }
            Err(ChunkError::Refused(why)) => buffer.too_much(why),
            // What follows finds that the Job is gone.
            Err(ChunkError::Gone) => buffer.too_much(String::new()),
        }
    }

    /// Whether the Job has more output than it may, and why.
    fn over(&self, job: &Job, buffer: &RowBuffer) -> Option<String> {
        let most = u64::try_from(job.spec.output_policy.max_bytes).unwrap_or(0);
        (buffer.total() > most)
            .then(|| format!("the plugin gave more than the {most} bytes of outputPolicy.maxBytes"))
    }

    /// Whether the namespace has no room for the row beside its Job, and why.
    fn full(&self, job: &Job, buffer: &RowBuffer) -> Option<String> {
        let namespace = job.namespace().unwrap_or_default();
        let most = self.jobs.settings.namespace_output;
        let used = self.jobs.stores.jobs.output_outside(&namespace);
        // What the Job has beside itself already is counted in `used`, this row is not.
        (used.saturating_add(buffer.bytes()) > most).then(|| {
            format!(
                "the Jobs of namespace {namespace} have {used} bytes of output beside themselves; \
                 the installation allows {most}: delete Jobs or set ttlSecondsAfterFinished"
            )
        })
    }

    /// The row is whole.
    async fn finish(&self, mut buffer: RowBuffer, end: RowEnd) -> Result<(), &'static str> {
        let (row, last) = (buffer.row(), end.outcome != RowEnding::More);
        match buffer.disposition() {
            Disposition::Repeated => {
                let job = self.job().await;
                self.stored(row, last, job.as_ref().and_then(phase));
                return Ok(());
            }
            Disposition::Unwanted => {
                self.unwanted(row).await;
                return Ok(());
            }
            Disposition::Keep | Disposition::TooMuch(_) => {}
        }
        match self.store(&mut buffer, &end).await? {
            Kept::Stored(job, disposition) => {
                self.count(&job, &buffer, disposition);
                self.stored(row, last, phase(&job));
            }
            Kept::Unwanted | Kept::Gone => self.unwanted(row).await,
        }
        Ok(())
    }

    /// Says in the Job that the row is there. What does not fit into the Job goes beside it.
    async fn store(&self, buffer: &mut RowBuffer, end: &RowEnd) -> Result<Kept, &'static str> {
        let mut rest = Some(buffer.rest()).filter(|_| *buffer.disposition() == Disposition::Keep);
        let mut failures = 0;
        loop {
            let Some(job) = self.job().await else {
                return Ok(Kept::Gone);
            };
            if rest.is_some()
                && let Some(why) = self.over(&job, buffer)
            {
                buffer.too_much(why);
                rest = None;
            }
            let inline = buffer.chunks == 0 && fits_inline(&job, buffer.bytes());
            if !inline && let Some(rest) = rest.take() {
                // An empty row is a chunk too, unless it is the end of others.
                if !rest.is_empty() || buffer.chunks == 0 {
                    self.keep(buffer, &rest, end.text).await;
                }
            }
            let stored = stored_row(buffer, end, rest.as_deref());
            let (claim_id, jitter) = (&self.of.claim_id, jitter());
            let changed = self
                .jobs
                .change(&self.key(), &self.of.uid, |job, now| {
                    self.check(job)?;
                    transition::store_row(job, claim_id, &stored, now, jitter)
                })
                .await;
            match changed {
                Ok((job, disposition)) => return Ok(Kept::Stored(Box::new(job), disposition)),
                Err(ChangeError::Gone) => return Ok(Kept::Gone),
                Err(ChangeError::NotNow { why, job }) => match why {
                    NotNow::Stale | NotNow::Ended(_) => return Ok(Kept::Unwanted),
                    NotNow::NotEligible(_) if rows_of(&job) + 1 != buffer.row() => {
                        return Err("a row is missing");
                    }
                    // It fitted a moment ago.
                    NotNow::NotEligible(_) if rest.is_some() => {}
                    NotNow::NotEligible(why) => return Err(why),
                },
                Err(ChangeError::Refused(why)) => {
                    failures += 1;
                    if failures == 1 {
                        let note = format!("a row of output cannot be stored: {why}");
                        self.jobs
                            .tell(&job, true, "StoreOutput", Reason::ReconcileFailed, note);
                    }
                    if rest.take().is_some() {
                        // Too large for the Job as it has become; the digest and the beginning
                        // are kept all the same.
                        buffer.too_much(why);
                    } else {
                        AGAIN.pause(failures).await;
                    }
                }
            }
        }
    }

    fn count(&self, job: &Job, buffer: &RowBuffer, disposition: RowFate) {
        let metrics = &self.jobs.metrics;
        let claim_id = &self.of.claim_id;
        if has_ended(job) || !self.may_speak(job) {
            self.jobs.concurrency.digests.forget(claim_id);
        } else {
            let stores = &self.jobs.stores.jobs;
            let held =
                |key: &crate::key::JobKey| stores.get(key).is_some_and(|job| !has_ended(&job));
            let stored = buffer.and_this();
            self.jobs
                .concurrency
                .digests
                .put(&self.key(), claim_id, stored, held);
        }
        if disposition.repeated {
            return;
        }
        metrics.rows.inc();
        metrics.output_bytes.inc_by(buffer.bytes());
        if disposition.late {
            metrics.late_rows.inc();
            let note = format!(
                "row {} came after the end of the job and is kept as a late one",
                buffer.row()
            );
            self.jobs
                .tell(job, false, "StoreOutput", Reason::LateOutput, note);
        }
    }

    /// Nobody wants the row: the Job is gone, was created again, or was given to somebody else.
    async fn unwanted(&self, row: u32) {
        self.jobs.metrics.dropped_rows.inc();
        self.jobs.concurrency.digests.forget(&self.of.claim_id);
        tracing::info!(
            job = %self.key(),
            pod = self.holder.pod,
            row,
            "an answer came for a job that is gone or not this pod's any more, and is dropped"
        );
        let note = format!(
            "an answer of pod {} to job {} ({}) is dropped: it is gone, or not this pod's any more",
            self.holder.pod, self.of.job, self.of.uid
        );
        self.jobs.tell_of_dropped(self, note);
        self.stored(row, true, None);
    }
}

/// Rows that a Job has.
fn rows_of(job: &Job) -> u32 {
    let output = job
        .status
        .as_ref()
        .and_then(|status| status.output.as_ref());
    output.map_or(0, |output| u32::try_from(output.row_count).unwrap_or(0))
}

/// The row as the Job will have it. `rest` is its content when that goes into the Job.
fn stored_row(buffer: &RowBuffer, end: &RowEnd, rest: Option<&[u8]>) -> StoredRow {
    let all = buffer.and_this();
    let own: [u8; 32] = all.digest.finalize().into();
    let (total_bytes, sha256_of_all) = end.cut.unwrap_or((all.bytes, own));
    let text = end.text && (buffer.bytes() > buffer.head().len() as u64 || is_text(buffer.head()));
    let too_much = match buffer.disposition() {
        Disposition::TooMuch(why) => Some(why.clone()),
        _ => None,
    };
    let truncated = too_much.is_some() || end.cut.is_some();
    StoredRow {
        row: buffer.row(),
        bytes: buffer.bytes(),
        text,
        inline: rest.map(<[u8]>::to_vec),
        chunks: buffer.chunks,
        sha256_of_all,
        total_bytes,
        preview: match rest {
            Some(_) => String::new(),
            None => preview(buffer.head(), text),
        },
        outcome: match too_much {
            Some(message) => RowOutcome::Failed {
                reason: Reason::OutputTooLarge,
                message,
            },
            None => outcome(&end.outcome),
        },
        truncated,
    }
}

fn outcome(ending: &RowEnding) -> RowOutcome {
    match ending {
        RowEnding::More => RowOutcome::More,
        RowEnding::Succeeded => RowOutcome::Succeeded,
        RowEnding::Failed { reason, message } => RowOutcome::Failed {
            reason: Reason::parse(reason)
                .filter(|reason| REASONS.contains(reason))
                .unwrap_or(Reason::PluginError),
            message: message.clone(),
        },
    }
}

impl super::JobContext {
    fn digest_of(&self, claim_id: &str, rows: u32) -> Option<Stored> {
        self.concurrency.digests.get(claim_id, rows)
    }

    /// Tells people of an answer that was dropped, beside the name of the Job that it was for.
    fn tell_of_dropped(&self, context: &UpdateContext<'_>, note: String) {
        use k8s_openapi::api::core::v1::ObjectReference;
        use kube::Resource;
        let key = context.key();
        let subject = crate::events::Subject {
            reference: ObjectReference {
                api_version: Some(Job::api_version(&()).into_owned()),
                kind: Some(Job::kind(&()).into_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(context.of.uid.clone()),
                ..ObjectReference::default()
            },
            key,
        };
        let updates = crate::events::EventContent {
            warning: false,
            action: "StoreOutput".to_owned(),
            reason: Reason::LateOutput.as_str().to_owned(),
            note,
            pod: Some((context.holder.pod.clone(), context.holder.uid.clone())),
        };
        self.events.publish(&subject, updates);
    }
}
