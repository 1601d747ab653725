//! One session: dial, greet, allow the start, then listen until it breaks; and again.
//!
//! From version 2 on it also carries what is said about jobs; an older sidecar hears none of it,
//! and nothing of it is believed.

use super::bounds::{bounded_instance, bounded_text};
use super::decode::{self, JobMessage};
use super::dial::{SessionDialError, dial};
use super::{DesiredSidecarState, SessionContext, SessionPeer, SidecarInfo};
use crate::jobs::messages::{DispatchMessage, Holder};
use crate::jobs::session_registry::{MESSAGES, SessionGuard};
use crate::jobs::update_queue::UpdateQueue;
use crate::retry::{Policy, jitter};
use patchbay_protocol::session::{
    AllowStart, Configure, FromOperator, FromSidecar, NEWEST, OLDEST, OperatorHello, Ping,
    SidecarHello, from_operator, from_sidecar,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::Instrument;

/// A refused connection is normal right after the address appears, and every wait here is time to
/// Ready: begin quickly.
const REDIAL: Policy = Policy {
    first: Duration::from_millis(20),
    limit: Duration::from_secs(5),
};
/// Until the sidecar has greeted back.
const GREETING: Duration = Duration::from_secs(5);
/// Time between two pings.
const PING: Duration = Duration::from_secs(10);
/// Until a pong; then the session is dead, whatever TCP believes.
const PONG: Duration = Duration::from_secs(5);
/// A session that lived so long was a good one: the next dial is quick again.
const GOOD: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Dial(#[from] SessionDialError),
    #[error("attaching to the sidecar: {} ({:?})", bounded_text(.0.message(), 256), .0.code())]
    Attach(Box<tonic::Status>),
    #[error("greeting the sidecar: no greeting within {} s", GREETING.as_secs())]
    Silent,
    #[error("greeting the sidecar: its first message is no greeting")]
    NoHello,
    #[error("greeting the sidecar: it chose session version {0}, we speak {OLDEST} to {NEWEST}")]
    Version(u32),
    #[error("listening to the sidecar: {} ({:?})", bounded_text(.0.message(), 256), .0.code())]
    Broken(Box<tonic::Status>),
    #[error("listening to the sidecar: it closed the session")]
    Closed,
    #[error("listening to the sidecar: no pong within {} s", PONG.as_secs())]
    Dead,
    #[error("greeting the sidecar: its ledger of jobs is invalid or too long")]
    Ledger,
    #[error("telling the sidecar of jobs: it takes nothing more")]
    Slow,
    #[error("taking in output: {0}")]
    Output(&'static str),
}

/// Keeps the session to `target` open until the task is aborted.
pub(super) async fn keep(
    target: SessionPeer,
    shared: Arc<SessionContext>,
    mut wanted: watch::Receiver<DesiredSidecarState>,
) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let mut attached = AttachedGauge::not_yet(&shared);
        let span = tracing::info_span!(
            "session",
            namespace = target.plugin.namespace,
            plugin = target.plugin.name,
            pod = target.pod
        );
        let session = session(&target, &shared, &mut wanted, &mut attached).instrument(span);
        let error = match session.await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        failures = if attached.is() && begun.elapsed() >= GOOD {
            1
        } else {
            failures + 1
        };
        drop(attached);
        let delay = REDIAL.delay(failures, jitter());
        tracing::debug!(
            namespace = target.plugin.namespace,
            plugin = target.plugin.name,
            pod = target.pod,
            %error,
            again_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "the session ended, dialing again"
        );
        let text = with_sources(&error);
        shared.update(&target, |snapshot| {
            snapshot.attached = false;
            snapshot.trouble = Some(text);
        });
        shared.metrics.dial_failures.inc();
        sleep(delay).await;
    }
}

enum Infallible {}

/// Counts an open session for exactly as long as it lives, also when the task is aborted.
struct AttachedGauge<'a> {
    shared: &'a SessionContext,
    is: bool,
}

impl<'a> AttachedGauge<'a> {
    fn not_yet(shared: &'a SessionContext) -> Self {
        Self { shared, is: false }
    }

    fn now(&mut self) {
        self.is = true;
        self.shared.metrics.sessions.inc();
    }

    fn is(&self) -> bool {
        self.is
    }
}

impl Drop for AttachedGauge<'_> {
    fn drop(&mut self) {
        if self.is {
            self.shared.metrics.sessions.dec();
        }
    }
}

async fn session(
    target: &SessionPeer,
    shared: &SessionContext,
    wanted: &mut watch::Receiver<DesiredSidecarState>,
    attached: &mut AttachedGauge<'_>,
) -> Result<Infallible, SessionError> {
    let tls = {
        let tls = shared
            .tls
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tls.towards(shared.expected(target))
            .map_err(SessionDialError::from)?
    };
    let mut client = dial(target.address, tls).await?;
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let say = |message| FromOperator {
        message: Some(message),
    };
    // The channel has room for everything that is said before anybody listens.
    let hello = from_operator::Message::Hello(OperatorHello {
        oldest: OLDEST,
        newest: NEWEST,
        epoch: shared.epoch,
        operator_version: env!("CARGO_PKG_VERSION").into(),
    });
    sender
        .send(say(hello))
        .await
        .map_err(|_| SessionError::Closed)?;
    let attach = client.attach(ReceiverStream::new(receiver));
    let mut messages = timeout(GREETING, attach)
        .await
        .map_err(|_| SessionError::Silent)?
        .map_err(|status| SessionError::Attach(Box::new(status)))?
        .into_inner();
    let mut greeting = timeout(GREETING, greeting(&mut messages))
        .await
        .map_err(|_| SessionError::Silent)??;
    if !(OLDEST..=NEWEST).contains(&greeting.version) {
        return Err(SessionError::Version(greeting.version));
    }
    attached.now();
    tracing::debug!(
        namespace = target.plugin.namespace,
        plugin = target.plugin.name,
        pod = target.pod,
        released = greeting.start_allowed,
        "session open"
    );
    let process_id = bounded_text(&greeting.process_id, 64);
    shared.update(target, |snapshot| {
        snapshot.attached = true;
        snapshot.trouble = None;
        snapshot.sidecar = Some(SidecarInfo {
            version: bounded_text(&greeting.sidecar_version, 64),
            process_id: process_id.clone(),
            session: greeting.version,
        });
    });
    let mut jobs = JobSide::open(target, shared, &mut greeting, &sender).await?;
    let mut released = greeting.start_allowed;
    let mut told = greeting.revision;
    let mut nonce = 0;
    let mut ping_at = Instant::now() + PING;
    let mut pong_until: Option<Instant> = None;
    loop {
        let (allow_start, configure) = {
            let wanted = wanted.borrow_and_update();
            let configure = (wanted.revision > told).then(|| Configure {
                revision: wanted.revision,
                json: wanted.json.clone(),
            });
            (wanted.allow_start && !released, configure)
        };
        if allow_start {
            released = true;
            sender
                .send(say(from_operator::Message::AllowStart(AllowStart {})))
                .await
                .map_err(|_| SessionError::Closed)?;
        }
        if let Some(configure) = configure {
            told = configure.revision;
            sender
                .send(say(from_operator::Message::Configure(configure)))
                .await
                .map_err(|_| SessionError::Closed)?;
        }
        if !jobs.has_room() {
            // Nothing is read, so no pong can be: its time begins again.
            pong_until = pong_until.map(|_| Instant::now() + PONG);
        }
        let wake_up = pong_until.unwrap_or(ping_at);
        tokio::select! {
            message = messages.message(), if jobs.has_room() => {
                let message = message
                    .map_err(|status| SessionError::Broken(Box::new(status)))?
                    .ok_or(SessionError::Closed)?;
                match message.message {
                    Some(from_sidecar::Message::Instance(instance)) => {
                        let instance = bounded_instance(instance);
                        shared.update(target, |snapshot| snapshot.instance = Some(instance));
                    }
                    Some(from_sidecar::Message::Counters(counters)) => {
                        shared.totals.add(&target.plugin, &target.pod_uid, &process_id, &counters);
                    }
                    Some(from_sidecar::Message::Pong(pong)) if pong.nonce == nonce => {
                        pong_until = None;
                        ping_at = Instant::now() + PING;
                    }
                    // A late pong, or a second greeting.
                    Some(from_sidecar::Message::Pong(_) | from_sidecar::Message::Hello(_)) => {}
                    Some(other) => jobs.handle(target, other).await?,
                    // A kind that this build does not know.
                    None => {}
                }
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return Err(SessionError::Closed);
                }
            }
            worked = jobs.work() => worked?,
            () = sleep_until(wake_up), if jobs.has_room() => {
                if pong_until.is_some() {
                    return Err(SessionError::Dead);
                }
                nonce += 1;
                sender
                    .send(say(from_operator::Message::Ping(Ping { nonce })))
                    .await
                    .map_err(|_| SessionError::Closed)?;
                pong_until = Some(Instant::now() + PONG);
            }
        }
    }
}

/// The part of a session that speaks about jobs; nothing below version 2.
struct JobSide(Option<(SessionGuard, UpdateQueue)>);

impl JobSide {
    async fn open(
        target: &SessionPeer,
        shared: &SessionContext,
        greeting: &mut SidecarHello,
        sender: &mpsc::Sender<FromOperator>,
    ) -> Result<Self, SessionError> {
        if greeting.version < 2 {
            return Ok(Self(None));
        }
        let (ledger_epoch, ledger) = decode::ledger(greeting).ok_or(SessionError::Ledger)?;
        let holder = Holder {
            plugin: target.plugin.clone(),
            pod: target.pod.clone(),
            uid: target.pod_uid.clone(),
        };
        let guard = shared.jobs.sessions.enter(&target.pod_uid, sender.clone());
        let held = UpdateQueue::new(Arc::clone(&shared.jobs), holder.clone(), guard.session());
        guard
            .write(DispatchMessage::Attached {
                holder,
                ledger_epoch,
                ledger,
            })
            .await;
        Ok(Self(Some((guard, held))))
    }

    /// Whether more may be read from the sidecar; it waits meanwhile.
    fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|(_, held)| held.has_room())
    }

    async fn handle(
        &mut self,
        target: &SessionPeer,
        message: from_sidecar::Message,
    ) -> Result<(), SessionError> {
        let Some((guard, held)) = self.0.as_mut() else {
            return Ok(());
        };
        match decode::read(message) {
            Some(JobMessage::DispatchMessage(message)) => guard.write(message).await,
            Some(JobMessage::JobUpdate(claim, update)) => {
                held.add(claim, update);
            }
            Some(JobMessage::Nonsense(kind)) => tracing::warn!(
                namespace = target.plugin.namespace,
                pod = target.pod,
                kind,
                "a message about a job names no job and is passed over"
            ),
            None => {}
        }
        Ok(())
    }

    /// Works on what was said until a part of it is done, so that there may be room again.
    async fn work(&mut self) -> Result<(), SessionError> {
        match self.0.as_mut() {
            Some((guard, held)) => tokio::select! {
                () = guard.too_slow() => Err(SessionError::Slow),
                worked = held.work() => worked.map_err(SessionError::Output),
            },
            None => std::future::pending().await,
        }
    }
}

async fn greeting(messages: &mut Streaming<FromSidecar>) -> Result<SidecarHello, SessionError> {
    let first = messages
        .message()
        .await
        .map_err(|status| SessionError::Attach(Box::new(status)))?
        .ok_or(SessionError::Closed)?;
    match first.message {
        Some(from_sidecar::Message::Hello(hello)) => Ok(hello),
        _ => Err(SessionError::NoHello),
    }
}

fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        // Most errors quote their source already.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    bounded_text(&text, 512)
}
