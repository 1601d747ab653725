//! The way between sessions and the dispatcher.
//!
//! In: messages through a bounded channel, and the end of a session past it, so that a session that
//! is dropped can say so without waiting. A message of a session that has ended is never believed.
//! Out: messages straight into the session's stream. Nothing here waits for a sidecar: one that
//! takes nothing more loses its session.

use super::messages::DispatchMessage;
use crate::metrics::jobs::JobMetrics;
use patchbay_protocol::session::{FromOperator, from_operator};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Messages that wait for the dispatcher; a sidecar that writes more waits.
const MAX_MESSAGES: usize = 256;
/// Messages that wait in the stream of one session.
pub const MESSAGES: usize = 256;

/// Every open session that speaks about jobs.
#[derive(Debug)]
pub struct SessionRegistry {
    messages: mpsc::Sender<(u64, DispatchMessage)>,
    closed: mpsc::UnboundedSender<u64>,
    open: Mutex<HashMap<u64, SessionSender>>,
    next: AtomicU64,
    metrics: Arc<JobMetrics>,
}

#[derive(Debug)]
struct SessionSender {
    pod_uid: String,
    stream: mpsc::Sender<FromOperator>,
    slow: Arc<Notify>,
}

/// The end of the dispatcher.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<(u64, DispatchMessage)>,
    closed: mpsc::UnboundedReceiver<u64>,
    /// A message that came in and was not told yet.
    held: Option<(u64, DispatchMessage)>,
    sessions: Arc<SessionRegistry>,
}

/// Something that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    Message {
        session: u64,
        message: DispatchMessage,
    },
    /// A session has ended. It may never have been attached.
    Closed { session: u64 },
}

/// Makes both ends.
pub fn open_registry(metrics: Arc<JobMetrics>) -> (Arc<SessionRegistry>, Inbox) {
    let (messages, received) = mpsc::channel(MAX_MESSAGES);
    let (closed, ended) = mpsc::unbounded_channel();
    let sessions = Arc::new(SessionRegistry {
        messages,
        closed,
        open: Mutex::default(),
        next: AtomicU64::new(1),
        metrics,
    });
    let inbox = Inbox {
        messages: received,
        closed: ended,
        held: None,
        sessions: Arc::clone(&sessions),
    };
    (sessions, inbox)
}

impl SessionRegistry {
    /// A session begins; `stream` leads to the sidecar in the pod with this uid.
    pub fn enter(
        self: &Arc<Self>,
        pod_uid: &str,
        stream: mpsc::Sender<FromOperator>,
    ) -> SessionGuard {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let slow = Arc::new(Notify::new());
        let sender = SessionSender {
            pod_uid: pod_uid.to_owned(),
            stream,
            slow: Arc::clone(&slow),
        };
        self.lock().insert(session, sender);
        SessionGuard {
            sessions: Arc::clone(self),
            session,
            slow,
        }
    }

    /// Says something to a session. Never waits; one that is full ends.
    pub fn say(&self, session: u64, message: from_operator::Message) {
        if let Some(sender) = self.lock().get(&session) {
            self.push(session, sender, message);
        }
    }

    /// Says something to the sidecar of a pod, if a session is open.
    pub fn say_to_pod(&self, pod_uid: &str, message: from_operator::Message) {
        let open = self.lock();
        // Of two, the younger is the one that lives.
        let newest = open
            .iter()
            .filter(|(_, sender)| sender.pod_uid == pod_uid)
            .max_by_key(|(session, _)| **session);
        if let Some((session, sender)) = newest {
            self.push(*session, sender, message);
        }
    }

    fn push(&self, session: u64, sender: &SessionSender, message: from_operator::Message) {
        let message = FromOperator {
            message: Some(message),
        };
        if sender.stream.try_send(message).is_err() {
            tracing::warn!(session, "the sidecar takes no more, so its session ends");
            self.metrics.slow_sessions.inc();
            sender.slow.notify_one();
        }
    }

    fn is_open(&self, session: u64) -> bool {
        self.lock().contains_key(&session)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, SessionSender>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session inside; it has left when this is dropped.
#[derive(Debug)]
pub struct SessionGuard {
    sessions: Arc<SessionRegistry>,
    session: u64,
    slow: Arc<Notify>,
}

impl SessionGuard {
    /// Names the session in this process.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Writes to the dispatcher, after everything that was written before.
    pub async fn write(&self, message: DispatchMessage) {
        // The dispatcher ends with the term, and the session too.
        let _ = self.sessions.messages.send((self.session, message)).await;
    }

    /// Says something to the sidecar.
    pub fn say(&self, message: from_operator::Message) {
        self.sessions.say(self.session, message);
    }

    /// Waits until the session has to end because the sidecar takes nothing more.
    pub async fn too_slow(&self) {
        self.slow.notified().await;
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.session);
        let _ = self.sessions.closed.send(self.session);
    }
}

impl Inbox {
    /// The next thing that came in. A session that has closed is reported before any message that was written
    /// afterwards, and a message of a session that is over is nothing. Safe to drop at any time.
    pub async fn next(&mut self) -> Inbound {
        loop {
            if let Ok(session) = self.closed.try_recv() {
                return Inbound::Closed { session };
            }
            if let Some((session, message)) = self.held.take() {
                if self.sessions.is_open(session) {
                    return Inbound::Message { session, message };
                }
                continue;
            }
            tokio::select! {
                Some(session) = self.closed.recv() => return Inbound::Closed { session },
                // Once more round: somebody may have left before this was written.
                Some(message) = self.messages.recv() => self.held = Some(message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(n: u32) -> DispatchMessage {
        DispatchMessage::CancelRequest {
            claim_id: format!("{n:032x}"),
        }
    }

    async fn came(inbox: &mut Inbox) -> Option<Inbound> {
        let wait = std::time::Duration::from_millis(1);
        tokio::time::timeout(wait, inbox.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_session_comes_after_its_end() {
        let (sessions, mut inbox) = open_registry(Arc::default());
        let (stream, _kept) = mpsc::channel(4);
        let guard = sessions.enter("pod", stream.clone());
        let first = guard.session();
        guard.write(ask(1)).await;
        guard.write(ask(2)).await;
        let message = ask(1);
        let event = came(&mut inbox).await;
        assert_eq!(
            event,
            Some(Inbound::Message {
                session: first,
                message
            })
        );
        drop(guard);
        let guard = sessions.enter("pod", stream);
        let second = guard.session();
        guard.write(ask(3)).await;
        assert_eq!(
            came(&mut inbox).await,
            Some(Inbound::Closed { session: first })
        );
        let message = ask(3);
        let event = came(&mut inbox).await;
        assert_eq!(
            event,
            Some(Inbound::Message {
                session: second,
                message
            })
        );
        assert_eq!(came(&mut inbox).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_takes_nothing_loses_its_session_and_hinders_nobody() {
        let metrics = Arc::<JobMetrics>::default();
        let (sessions, _inbox) = open_registry(Arc::clone(&metrics));
        let (stream, mut taken) = mpsc::channel(1);
        let guard = sessions.enter("pod", stream);
        let nothing = || from_operator::Message::NoWork(Default::default());
        guard.say(nothing());
        guard.say(nothing());
        tokio::time::timeout(std::time::Duration::from_millis(1), guard.too_slow())
            .await
            .unwrap();
        assert_eq!(metrics.slow_sessions.get(), 1);
        assert!(taken.try_recv().is_ok() && taken.try_recv().is_err());
    }

    #[tokio::test]
    async fn of_two_sessions_of_a_pod_the_younger_is_spoken_to() {
        let (sessions, _inbox) = open_registry(Arc::default());
        let (old, mut to_old) = mpsc::channel(1);
        let (young, mut to_young) = mpsc::channel(1);
        let _visits = [sessions.enter("pod", old), sessions.enter("pod", young)];
        sessions.say_to_pod("pod", from_operator::Message::Cancel(Default::default()));
        sessions.say_to_pod("else", from_operator::Message::Cancel(Default::default()));
        assert!(to_young.try_recv().is_ok());
        assert!(to_old.try_recv().is_err());
    }
}
