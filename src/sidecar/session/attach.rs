//! One attached operator: greeting, then pictures, numbers and words of Jobs up, wishes and words of
//! Jobs down.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use patchbay_protocol::session::session_server::Session;
use patchbay_protocol::session::{self, FromOperator, FromSidecar, OperatorHello, SidecarHello};
use session::from_operator::Message as Down;
use session::from_sidecar::Message as Up;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{FromOperator as OperatorMessage, Hub, outbox};
use crate::jobs::OpenedSession;
use crate::{logs, sandbox};

/// Limit of the operator's first message.
const HELLO: Duration = Duration::from_secs(10);
/// Messages that wait for a slow operator.
const WAITING: usize = 4;
/// Numbers are sent at most so often.
const NUMBERS: Duration = Duration::from_secs(1);
/// When nothing changed, they are looked at so often.
const QUIET_NUMBERS: Duration = Duration::from_secs(5);

/// Version from which on both sides know Jobs.
const JOBS: u32 = 2;

/// Serves `Attach`.
#[derive(Debug)]
pub(super) struct Sessions {
    hub: Hub,
    process_id: String,
    /// The highest epoch that was accepted.
    epoch: Mutex<u64>,
    /// Counts accepted sessions; one that sees a higher number than its own ends.
    newest: watch::Sender<u64>,
}

impl Sessions {
    pub(super) fn new(hub: Hub) -> Sessions {
        let epoch = Mutex::new(sandbox::epoch(&hub.root));
        let process_id = format!("{:016x}", crate::random::number());
        Sessions {
            hub,
            process_id,
            epoch,
            newest: watch::Sender::new(0),
        }
    }

    /// Judges a greeting; the answer is the version of this session and its number.
    fn greet(&self, hello: &OperatorHello) -> Result<(u32, u64), Status> {
        let version = hello.newest.min(session::NEWEST);
        if version < hello.oldest.max(session::OLDEST) {
            return Err(Status::failed_precondition(format!(
                "no common session version: the operator speaks {} to {}, this sidecar {} to {}",
                hello.oldest,
                hello.newest,
                session::OLDEST,
                session::NEWEST
            )));
        }
        let mut highest = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if hello.epoch < *highest {
            return Err(Status::permission_denied(format!(
                "the epoch {} is over: an operator of epoch {} was here",
                hello.epoch, *highest
            )));
        }
        if hello.epoch > *highest {
            *highest = hello.epoch;
            if let Err(error) = sandbox::remember_epoch(&self.hub.root, hello.epoch) {
                tracing::warn!(%error, "the operator's epoch could not be kept");
            }
        }
        let mut number = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Ok((version, number))
    }
}

#[tonic::async_trait]
impl Session for Sessions {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<FromSidecar, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromOperator>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut down = request.into_inner();
        let first = timeout(HELLO, down.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting came"))??;
        let Some(FromOperator {
            message: Some(Down::Hello(hello)),
        }) = first
        else {
            return Err(Status::failed_precondition(
                "the first message must be the greeting",
            ));
        };
        let (version, number) = self.greet(&hello)?;
        // From here on nothing that an older session says of Jobs is heard.
        let opened = self.hub.jobs.open_session(number, version >= JOBS);
        let operator = patchbay_protocol::escape::printable(hello.operator_version.as_bytes(), 64);
        tracing::info!(
            operator,
            epoch = hello.epoch,
            version,
            "the operator attached"
        );
        let (up, answers) = mpsc::channel(WAITING);
        let talk = Talk {
            hub: self.hub.clone(),
            up,
            newest: self.newest.subscribe(),
            number,
        };
        let OpenedSession {
            ledger_epoch,
            ledger,
            messages,
            rows,
        } = opened;
        let greeting = SidecarHello {
            version,
            sidecar_version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: self.process_id.clone(),
            revision: self.hub.instance.borrow().revision,
            start_allowed: self.hub.released.load(Ordering::Relaxed),
            ledger_epoch,
            ledger,
        };
        tokio::spawn(async move {
            let (up, jobs) = (talk.up.clone(), talk.hub.jobs.clone());
            let sending = talk.up.clone();
            let spool = jobs.spool().clone();
            let talking = async move {
                talk.send(Up::Hello(greeting)).await?;
                tokio::select! {
                    ended = talk.talk(down) => ended,
                    // Ends with the session that took over, which this one hears of as well.
                    () = outbox::empty(messages, rows, spool, sending) => {
                        Err(Status::aborted("another session took over"))
                    }
                }
            };
            let ended: Result<(), Status> = talking.await;
            jobs.close_session(number);
            if let Err(status) = ended {
                tracing::info!(reason = status.message(), "the operator's session ended");
                let _ = up.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Waits until a later session than `number` was accepted.
async fn replaced(newest: &mut watch::Receiver<u64>, number: u64) {
    let _ = newest.wait_for(|newest| *newest != number).await;
}

struct Talk {
    hub: Hub,
    up: mpsc::Sender<Result<FromSidecar, Status>>,
    newest: watch::Receiver<u64>,
    number: u64,
}

impl Talk {
    async fn send(&self, message: Up) -> Result<(), Status> {
        let message = FromSidecar {
            message: Some(message),
        };
        self.up
            .send(Ok(message))
            .await
            .map_err(|_| Status::cancelled("the operator went away"))
    }

    async fn talk(&self, mut down: Streaming<FromOperator>) -> Result<(), Status> {
        let mut instance = self.hub.instance.clone();
        instance.mark_changed();
        let mut newest = self.newest.clone();
        let mut sent = None;
        let mut look = Instant::now();
        loop {
            tokio::select! {
                message = down.message() => match message? {
                    Some(FromOperator { message: Some(message) }) => self.handle(message).await?,
                    // A kind that this build does not know.
                    Some(FromOperator { message: None }) => {}
                    None => return Err(Status::cancelled("the operator closed the session")),
                },
                changed = instance.changed() => {
                    changed.map_err(|_| Status::unavailable("the sidecar is being stopped"))?;
                    let picture = instance.borrow_and_update().clone();
                    self.send(Up::Instance(picture)).await?;
                }
                () = sleep_until(look) => {
                    let counters = self.hub.counters.read();
                    // Memory alone is no news.
                    let mut compared = counters;
                    compared.resident_bytes = 0;
                    if sent == Some(compared) {
                        look = Instant::now() + QUIET_NUMBERS;
                    } else {
                        sent = Some(compared);
                        self.send(Up::Counters(counters)).await?;
                        look = Instant::now() + NUMBERS;
                    }
                }
                () = replaced(&mut newest, self.number) => {
                    return Err(Status::aborted("another session took over"));
                }
                () = self.up.closed() => return Err(Status::cancelled("the operator went away")),
            }
        }
    }

    async fn handle(&self, message: Down) -> Result<(), Status> {
        let message = match message {
            Down::Ping(ping) => {
                return self
                    .send(Up::Pong(session::Pong { nonce: ping.nonce }))
                    .await;
            }
            Down::Configure(configure) => OperatorMessage::Configure(configure.json),
            Down::AllowStart(_) => OperatorMessage::AllowStart,
            Down::LogLevel(level) => {
                set_log_level(&level.filter);
                return Ok(());
            }
            // Said once.
            Down::Hello(_) => return Ok(()),
            message @ (Down::Grant(_)
            | Down::NoWork(_)
            | Down::ClaimQuery(_)
            | Down::RowStored(_)
            | Down::Cancel(_)) => {
                self.hub.jobs.handle_operator_message(self.number, message);
                return Ok(());
            }
        };
        self.hub
            .operator_messages
            .send(message)
            .await
            .map_err(|_| Status::unavailable("the sidecar is being stopped"))
    }
}

/// The operator is trusted, its filter may still be one that this build cannot read.
fn set_log_level(filter: &str) {
    let shown = patchbay_protocol::escape::printable(filter.as_bytes(), 512);
    match logs::set_filter(filter) {
        Ok(()) => tracing::debug!(filter = shown, "the log level is changed"),
        Err(error) => tracing::warn!(%error, "the log level stays"),
    }
}
