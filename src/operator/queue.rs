//! The work queue: which object is due for a pass, and when.
//!
//! One key is never handed out twice at a time, a wake-up during a pass is not lost, and a burst
//! of wake-ups within the debounce time is one pass. Everything wakes objects through here:
//! watches, sessions, reports that name a next time, back-off.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A queue of keys that become due.
#[derive(Debug)]
pub struct WorkQueue<K> {
    debounce: Duration,
    state: Mutex<QueueState<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct QueueState<K> {
    order: BTreeSet<(Instant, K)>,
    entries: HashMap<K, QueuedKey>,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueuedKey {
    due: Option<Instant>,
    running: bool,
}

impl<K: Clone + Ord + Hash> WorkQueue<K> {
    /// An empty queue. `debounce` is how long the first wake-up waits for others to join it.
    pub fn new(debounce: Duration) -> Self {
        Self {
            debounce,
            state: Mutex::new(QueueState {
                order: BTreeSet::new(),
                entries: HashMap::new(),
            }),
            changed: Notify::new(),
        }
    }

    /// Something about `key` changed: it is due after the debounce time.
    pub fn wake(&self, key: K) {
        self.wake_at(key, Instant::now() + self.debounce);
    }

    /// `key` is due at `when`, or earlier if it already was.
    pub fn wake_at(&self, key: K, when: Instant) {
        let mut state = self.lock();
        state.schedule(key, when);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for the next key and marks it as running. Only one task may wait at a time.
    pub async fn next(&self) -> K {
        loop {
            let wait = match self.lock().take(Instant::now()) {
                NextKey::Key(key) => return key,
                NextKey::NotBefore(when) => Some(when),
                NextKey::Nothing => None,
            };
            match wait {
                Some(when) => tokio::select! {
                    () = tokio::time::sleep_until(when) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The pass for `key` has ended; wake-ups that came meanwhile count from now on.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(key) {
            entry.running = false;
            match entry.due {
                Some(due) => {
                    state.order.insert((due, key.clone()));
                }
                None => {
                    state.entries.remove(key);
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How many keys are due now and not running.
    pub fn depth(&self) -> usize {
        let now = Instant::now();
        self.lock()
            .order
            .iter()
            .take_while(|(due, _)| *due <= now)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum NextKey<K> {
    Key(K),
    NotBefore(Instant),
    Nothing,
}

impl<K: Clone + Ord + Hash> QueueState<K> {
    fn schedule(&mut self, key: K, when: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.due.is_some_and(|due| due <= when) {
            return;
        }
        let before = entry.due.replace(when);
        if entry.running {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((when, key));
    }

    fn take(&mut self, now: Instant) -> NextKey<K> {
        match self.order.first() {
            None => NextKey::Nothing,
            Some((due, _)) if *due > now => NextKey::NotBefore(*due),
            Some(_) => match self.order.pop_first() {
                None => NextKey::Nothing,
                Some((_, key)) => {
                    self.entries.insert(
                        key.clone(),
                        QueuedKey {
                            due: None,
                            running: true,
                        },
                    );
                    NextKey::Key(key)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(20);

    fn queue() -> WorkQueue<&'static str> {
        WorkQueue::new(DEBOUNCE)
    }

    async fn nothing_within(queue: &WorkQueue<&'static str>, time: Duration) -> bool {
        tokio::time::timeout(time, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_wake_ups_is_one_pass() {
        let queue = queue();
        let start = Instant::now();
        for _ in 0..5 {
            queue.wake("a");
        }
        assert_eq!(queue.next().await, "a");
        assert!(start.elapsed() >= DEBOUNCE);
        assert!(start.elapsed() <= DEBOUNCE * 2);
        queue.done(&"a");
        assert!(nothing_within(&queue, Duration::from_secs(60)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_of_wake_ups_does_not_starve_its_key() {
        let queue = queue();
        let start = Instant::now();
        queue.wake("a");
        tokio::time::advance(Duration::from_millis(15)).await;
        queue.wake("a");
        assert_eq!(queue.next().await, "a");
        assert!(start.elapsed() <= DEBOUNCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_during_a_pass_leads_to_another_pass_after_it() {
        let queue = queue();
        queue.wake("a");
        assert_eq!(queue.next().await, "a");
        queue.wake("a");
        assert!(nothing_within(&queue, Duration::from_secs(60)).await);
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_time_wins_and_the_later_one_is_dropped() {
        let queue = queue();
        let start = Instant::now();
        queue.wake_at("a", start + Duration::from_secs(60));
        queue.wake_at("a", start + Duration::from_secs(1));
        queue.wake_at("a", start + Duration::from_secs(30));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.done(&"a");
        assert!(nothing_within(&queue, Duration::from_secs(120)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_come_in_the_order_in_which_they_are_due() {
        let queue = queue();
        let start = Instant::now();
        queue.wake_at("late", start + Duration::from_secs(2));
        queue.wake_at("soon", start + Duration::from_secs(1));
        assert_eq!(queue.next().await, "soon");
        assert_eq!(queue.next().await, "late");
        assert_eq!(queue.depth(), 0);
    }
}
