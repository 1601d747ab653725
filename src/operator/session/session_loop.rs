//! An open session: sends what the sidecar lacks, takes in what it says, and makes sure that it lives.

use super::attach::{AttachedSession, send};
use super::bounds::bounded_instance;
use super::error::SessionError;
use super::job_messages::JobMessages;
use super::{DesiredSidecarState, SessionContext, SessionPeer};
use patchbay_protocol::session::{
    AllowStart, Configure, FromOperator, FromSidecar, LogLevel, Ping, from_operator, from_sidecar,
};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

/// Time between two pings.
const PING: Duration = Duration::from_secs(10);
/// Until a pong; then the session is dead, whatever TCP believes.
pub(super) const PONG: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct SessionLoop<'a> {
    target: &'a SessionPeer,
    shared: &'a SessionContext,
    sender: mpsc::Sender<FromOperator>,
    messages: Streaming<FromSidecar>,
    /// Names the sidecar's process.
    process_id: String,
    jobs: JobMessages,
    log_filter: watch::Receiver<String>,
    /// Whether the sidecar knows that the plugin may be started.
    start_allowed: bool,
    /// Revision of the configuration that the sidecar has.
    revision: u64,
    nonce: u64,
    ping_at: Instant,
    pong_until: Option<Instant>,
}

impl<'a> SessionLoop<'a> {
    /// Begins with what the sidecar's greeting says.
    pub(super) async fn new(
        target: &'a SessionPeer,
        shared: &'a SessionContext,
        process_id: String,
        session: AttachedSession,
    ) -> Result<Self, SessionError> {
        let AttachedSession {
            sender,
            messages,
            mut greeting,
        } = session;
        let jobs = JobMessages::open(target, shared, &mut greeting, &sender).await?;
        let mut log_filter = shared.sidecar_log.subscribe();
        log_filter.mark_changed();
        Ok(Self {
            target,
            shared,
            sender,
            messages,
            process_id,
            jobs,
            log_filter,
            start_allowed: greeting.start_allowed,
            revision: greeting.revision,
            nonce: 0,
            ping_at: Instant::now() + PING,
            pong_until: None,
        })
    }

    /// Goes on until the session breaks.
    pub(super) async fn run(
        mut self,
        wanted: &mut watch::Receiver<DesiredSidecarState>,
    ) -> Result<Infallible, SessionError> {
        loop {
            self.send_wanted(wanted).await?;
            if !self.jobs.has_room() {
                // Nothing is read, so no pong can be: its time begins again.
                self.pong_until = self.pong_until.map(|_| Instant::now() + PONG);
            }
            let wake_up = self.pong_until.unwrap_or(self.ping_at);
            tokio::select! {
                message = self.messages.message(), if self.jobs.has_room() => {
                    let message = message
                        .map_err(|status| SessionError::Broken(Box::new(status)))?
                        .ok_or(SessionError::Closed)?;
                    self.on_message(message).await?;
                }
                changed = wanted.changed() => changed.map_err(|_| SessionError::Closed)?,
                changed = self.log_filter.changed() => {
                    changed.map_err(|_| SessionError::Closed)?;
                    let filter = self.log_filter.borrow_and_update().clone();
                    send(&self.sender, from_operator::Message::LogLevel(LogLevel { filter })).await?;
                }
                worked = self.jobs.work() => worked?,
                () = sleep_until(wake_up), if self.jobs.has_room() => self.ping().await?,
            }
        }
    }

    /// Sends what is wanted of the sidecar and what it does not know yet.
    async fn send_wanted(
        &mut self,
        wanted: &mut watch::Receiver<DesiredSidecarState>,
    ) -> Result<(), SessionError> {
        let (allow_start, configure) = {
            let wanted = wanted.borrow_and_update();
            let configure = (wanted.revision > self.revision).then(|| Configure {
                revision: wanted.revision,
                json: wanted.json.clone(),
            });
            (wanted.allow_start && !self.start_allowed, configure)
        };
        if allow_start {
            self.start_allowed = true;
            send(
                &self.sender,
                from_operator::Message::AllowStart(AllowStart {}),
            )
            .await?;
        }
        if let Some(configure) = configure {
            self.revision = configure.revision;
            send(&self.sender, from_operator::Message::Configure(configure)).await?;
        }
        Ok(())
    }

    async fn on_message(&mut self, message: FromSidecar) -> Result<(), SessionError> {
        match message.message {
            Some(from_sidecar::Message::Instance(instance)) => {
                let instance = bounded_instance(instance);
                self.shared
                    .update(self.target, |snapshot| snapshot.instance = Some(instance));
            }
            Some(from_sidecar::Message::Counters(counters)) => {
                let SessionPeer {
                    plugin, pod_uid, ..
                } = self.target;
                let totals = &self.shared.totals;
                totals.add(plugin, pod_uid, &self.process_id, &counters);
            }
            Some(from_sidecar::Message::Pong(pong)) if pong.nonce == self.nonce => {
                self.pong_until = None;
                self.ping_at = Instant::now() + PING;
            }
            // A late pong, or a second greeting.
            Some(from_sidecar::Message::Pong(_) | from_sidecar::Message::Hello(_)) => {}
            Some(other) => self.jobs.handle(self.target, other).await?,
            // A kind that this build does not know.
            None => {}
        }
        Ok(())
    }

    /// Asks for a sign of life, or ends the session when the last one is overdue.
    async fn ping(&mut self) -> Result<(), SessionError> {
        if self.pong_until.is_some() {
            return Err(SessionError::Dead);
        }
        self.nonce += 1;
        let nonce = self.nonce;
        send(&self.sender, from_operator::Message::Ping(Ping { nonce })).await?;
        self.pong_until = Some(Instant::now() + PONG);
        Ok(())
    }
}
