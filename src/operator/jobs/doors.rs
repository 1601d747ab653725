//! The way between sessions and the hand-out.
//!
//! In: letters through a bounded channel, and the end of a session past it, so that a session that
//! is dropped can say so without waiting. A letter of a session that has ended is never believed.
//! Out: messages straight into the session's stream. Nothing here waits for a sidecar: one that
//! takes nothing more loses its session.

use super::letters::Letter;
use crate::metrics::jobs::JobMetrics;
use patchbay_protocol::session::{FromOperator, from_operator};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Letters that wait for the hand-out; a sidecar that writes more waits.
const LETTERS: usize = 256;
/// Messages that wait in the stream of one session.
pub const MESSAGES: usize = 256;

/// Every open session that speaks about jobs.
#[derive(Debug)]
pub struct Doors {
    letters: mpsc::Sender<(u64, Letter)>,
    left: mpsc::UnboundedSender<u64>,
    open: Mutex<HashMap<u64, Door>>,
    next: AtomicU64,
    metrics: Arc<JobMetrics>,
}

#[derive(Debug)]
struct Door {
    pod_uid: String,
    stream: mpsc::Sender<FromOperator>,
    slow: Arc<Notify>,
}

/// The end of the hand-out.
#[derive(Debug)]
pub struct Inbox {
    letters: mpsc::Receiver<(u64, Letter)>,
    left: mpsc::UnboundedReceiver<u64>,
    /// A letter that came in and was not told yet.
    held: Option<(u64, Letter)>,
    doors: Arc<Doors>,
}

/// Something that came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// A session wrote.
    Letter {
        /// Its number.
        session: u64,
        /// What it wrote.
        letter: Letter,
    },
    /// A session has ended. It may never have been attached.
    Left {
        /// Its number.
        session: u64,
    },
}

/// Makes both ends.
pub fn doors(metrics: Arc<JobMetrics>) -> (Arc<Doors>, Inbox) {
    let (letters, received) = mpsc::channel(LETTERS);
    let (left, ended) = mpsc::unbounded_channel();
    let doors = Arc::new(Doors {
        letters,
        left,
        open: Mutex::default(),
        next: AtomicU64::new(1),
        metrics,
    });
    let inbox = Inbox {
        letters: received,
        left: ended,
        held: None,
        doors: Arc::clone(&doors),
    };
    (doors, inbox)
}

impl Doors {
    /// A session begins; `stream` leads to the sidecar in the pod with this uid.
    pub fn enter(self: &Arc<Self>, pod_uid: &str, stream: mpsc::Sender<FromOperator>) -> Visit {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let slow = Arc::new(Notify::new());
        let door = Door {
            pod_uid: pod_uid.to_owned(),
            stream,
            slow: Arc::clone(&slow),
        };
        self.lock().insert(session, door);
        Visit {
            doors: Arc::clone(self),
            session,
            slow,
        }
    }

    /// Says something to a session. Never waits; one that is full ends.
    pub fn say(&self, session: u64, message: from_operator::Message) {
        if let Some(door) = self.lock().get(&session) {
            self.push(session, door, message);
        }
    }

    /// Says something to the sidecar of a pod, if a session is open.
    pub fn say_to_pod(&self, pod_uid: &str, message: from_operator::Message) {
        let open = self.lock();
        // Of two, the younger is the one that lives.
        let newest = open
            .iter()
            .filter(|(_, door)| door.pod_uid == pod_uid)
            .max_by_key(|(session, _)| **session);
        if let Some((session, door)) = newest {
            self.push(*session, door, message);
        }
    }

    fn push(&self, session: u64, door: &Door, message: from_operator::Message) {
        let message = FromOperator {
            message: Some(message),
        };
        if door.stream.try_send(message).is_err() {
            tracing::warn!(session, "the sidecar takes no more, so its session ends");
            self.metrics.slow_sessions.inc();
            door.slow.notify_one();
        }
    }

    fn is_open(&self, session: u64) -> bool {
        self.lock().contains_key(&session)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Door>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session inside; it has left when this is dropped.
#[derive(Debug)]
pub struct Visit {
    doors: Arc<Doors>,
    session: u64,
    slow: Arc<Notify>,
}

impl Visit {
    /// Names the session in this process.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Writes to the hand-out, after everything that was written before.
    pub async fn write(&self, letter: Letter) {
        // The hand-out ends with the term, and the session too.
        let _ = self.doors.letters.send((self.session, letter)).await;
    }

    /// Says something to the sidecar.
    pub fn say(&self, message: from_operator::Message) {
        self.doors.say(self.session, message);
    }

    /// Waits until the session has to end because the sidecar takes nothing more.
    pub async fn too_slow(&self) {
        self.slow.notified().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.doors.lock().remove(&self.session);
        let _ = self.doors.left.send(self.session);
    }
}

impl Inbox {
    /// The next thing that came in. Whoever has left is told of before any letter that was written
    /// afterwards, and a letter of a session that is over is nothing. Safe to drop at any time.
    pub async fn next(&mut self) -> Came {
        loop {
            if let Ok(session) = self.left.try_recv() {
                return Came::Left { session };
            }
            if let Some((session, letter)) = self.held.take() {
                if self.doors.is_open(session) {
                    return Came::Letter { session, letter };
                }
                continue;
            }
            tokio::select! {
                Some(session) = self.left.recv() => return Came::Left { session },
                // Once more round: somebody may have left before this was written.
                Some(letter) = self.letters.recv() => self.held = Some(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(n: u32) -> Letter {
        Letter::Withdraw {
            claim_id: format!("{n:032x}"),
        }
    }

    async fn came(inbox: &mut Inbox) -> Option<Came> {
        let wait = std::time::Duration::from_millis(1);
        tokio::time::timeout(wait, inbox.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_session_comes_after_its_end() {
        let (doors, mut inbox) = doors(Arc::default());
        let (stream, _kept) = mpsc::channel(4);
        let visit = doors.enter("pod", stream.clone());
        let first = visit.session();
        visit.write(ask(1)).await;
        visit.write(ask(2)).await;
        let letter = ask(1);
        let heard = came(&mut inbox).await;
        assert_eq!(
            heard,
            Some(Came::Letter {
                session: first,
                letter
            })
        );
        drop(visit);
        let visit = doors.enter("pod", stream);
        let second = visit.session();
        visit.write(ask(3)).await;
        assert_eq!(came(&mut inbox).await, Some(Came::Left { session: first }));
        let letter = ask(3);
        let heard = came(&mut inbox).await;
        assert_eq!(
            heard,
            Some(Came::Letter {
                session: second,
                letter
            })
        );
        assert_eq!(came(&mut inbox).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_takes_nothing_loses_its_session_and_hinders_nobody() {
        let metrics = Arc::<JobMetrics>::default();
        let (doors, _inbox) = doors(Arc::clone(&metrics));
        let (stream, mut taken) = mpsc::channel(1);
        let visit = doors.enter("pod", stream);
        let nothing = || from_operator::Message::Nothing(Default::default());
        visit.say(nothing());
        visit.say(nothing());
        tokio::time::timeout(std::time::Duration::from_millis(1), visit.too_slow())
            .await
            .unwrap();
        assert_eq!(metrics.slow_sessions.get(), 1);
        assert!(taken.try_recv().is_ok() && taken.try_recv().is_err());
    }

    #[tokio::test]
    async fn of_two_sessions_of_a_pod_the_younger_is_spoken_to() {
        let (doors, _inbox) = doors(Arc::default());
        let (old, mut to_old) = mpsc::channel(1);
        let (young, mut to_young) = mpsc::channel(1);
        let _visits = [doors.enter("pod", old), doors.enter("pod", young)];
        doors.say_to_pod("pod", from_operator::Message::Cancel(Default::default()));
        doors.say_to_pod("else", from_operator::Message::Cancel(Default::default()));
        assert!(to_young.try_recv().is_ok());
        assert!(to_old.try_recv().is_err());
    }
}
