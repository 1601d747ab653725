//! Asks: they wait here until a job fits, their time is over, or they are withdrawn.

use super::super::location::{Port, client};
use super::Desk;
use super::words::Todo;
use std::sync::Arc;

/// Longest claim id in bytes.
const MAX_CLAIM_ID: usize = 64;
/// Longest hold in milliseconds; a greater one counts as this.
const MAX_HOLD: u32 = 60_000;

/// One ask.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) session: u64,
    pub(super) claim_id: Arc<str>,
    pub(super) lane: u32,
    pub(super) location: Option<Arc<str>>,
    pub(super) port: Port,
    /// Monotonic time at which it came.
    pub(super) came: u64,
    /// Monotonic time at which it is answered Nothing.
    pub(super) until: Option<u64>,
    /// Where it waits; `None` while a claim is written for it.
    pub(super) spot: Option<u32>,
}

impl Desk {
    /// A pod asks.
    pub(super) fn ask(
        &mut self,
        session: u64,
        claim_id: String,
        location: Option<String>,
        port: Option<String>,
        hold_ms: u32,
        todo: &mut Vec<Todo>,
    ) {
        let most = self.limits.asks_per_pod;
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        if known.asks.contains_key(claim_id.as_str()) {
            // It waits already.
            return;
        }
        let fit = (1..=MAX_CLAIM_ID).contains(&claim_id.len())
            && claim_id.bytes().all(|b| b.is_ascii_graphic());
        // An id that names a claim of this pod cannot name another one too.
        if !fit || known.known.contains(claim_id.as_str()) || known.asks.len() >= most {
            todo.push(Todo::Nothing { session, claim_id });
            return;
        }
        self.last_ask += 1;
        let id = self.last_ask;
        let claim_id: Arc<str> = claim_id.into();
        known.asks.insert(claim_id.clone(), id);
        let lane = known.lane;
        let until = (hold_ms > 0).then(|| self.mono + u64::from(hold_ms.min(MAX_HOLD)));
        self.asks.insert(
            id,
            Ask {
                session,
                claim_id,
                lane,
                location: location.as_deref().and_then(client).map(Arc::from),
                port: port.as_deref().map_or(Port::ANY, Port::new),
                came: self.mono,
                until,
                spot: None,
            },
        );
        self.let_wait(id);
    }

    /// Puts an ask among those that wait.
    pub(super) fn let_wait(&mut self, id: u64) {
        let Some(ask) = self.asks.get_mut(&id) else {
            return;
        };
        let lane = &mut self.lanes[ask.lane];
        let spot = lane.spot(ask.location.as_ref());
        ask.spot = Some(spot);
        lane.put_ask(spot, ask.port, id);
        if let Some(until) = ask.until {
            self.holds.insert((until, id));
        }
        let lane = ask.lane;
        self.list(lane);
    }

    /// Takes an ask out of those that wait; it lives on.
    pub(super) fn pick(&mut self, id: u64) {
        let Some(ask) = self.asks.get_mut(&id) else {
            return;
        };
        if let Some(spot) = ask.spot.take() {
            self.lanes[ask.lane].take_ask(spot, ask.port, id);
        }
        if let Some(until) = ask.until {
            self.holds.remove(&(until, id));
        }
    }

    /// Ends an ask.
    pub(super) fn end_ask(&mut self, id: u64) -> Option<Ask> {
        self.pick(id);
        let ask = self.asks.remove(&id)?;
        if let Some(session) = self.sessions.get_mut(&ask.session) {
            session.asks.remove(&ask.claim_id);
        }
        Some(ask)
    }

    /// Ends an ask without a job.
    pub(super) fn nothing(&mut self, id: u64, todo: &mut Vec<Todo>) {
        if let Some(ask) = self.end_ask(id) {
            todo.push(Todo::Nothing {
                session: ask.session,
                claim_id: ask.claim_id.as_ref().to_owned(),
            });
        }
    }

    /// A pod does not ask any more. A claim that is being written for it will not be granted.
    pub(super) fn withdraw(&mut self, session: u64, claim_id: &str) {
        let id = self
            .sessions
            .get(&session)
            .and_then(|session| session.asks.get(claim_id))
            .copied();
        if let Some(id) = id {
            self.end_ask(id);
        }
    }

    /// Answers the asks whose time is over.
    pub(super) fn end_holds(&mut self, todo: &mut Vec<Todo>) {
        while let Some((until, id)) = self.holds.first().copied()
            && until <= self.mono
        {
            self.nothing(id, todo);
        }
    }
}
