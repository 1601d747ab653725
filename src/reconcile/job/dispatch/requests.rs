//! Requests: they wait here until a job fits, their time is over, or they are cancelled.

use super::super::location::{Port, named_client};
use super::Dispatcher;
use super::event::Effect;
use std::sync::Arc;

/// Longest claim id in bytes.
const MAX_CLAIM_ID: usize = 64;
/// Longest hold in milliseconds; a greater one counts as this.
const MAX_WAIT_MS: u32 = 60_000;

/// One request.
#[derive(Debug)]
pub(super) struct WorkRequest {
    pub(super) session: u64,
    pub(super) claim_id: Arc<str>,
    pub(super) queue: u32,
    pub(super) client: Option<Arc<str>>,
    pub(super) port: Port,
    /// Monotonic time at which it came.
    pub(super) received_at: u64,
    /// Monotonic time at which it is answered NoWork.
    pub(super) until: Option<u64>,
    /// Where it waits; `None` while a claim is written for it.
    pub(super) bucket: Option<u32>,
}

impl Dispatcher {
    /// A pod requests work.
    pub(super) fn request(
        &mut self,
        session: u64,
        claim_id: String,
        client: Option<String>,
        port: Option<String>,
        wait_ms: u32,
        effects: &mut Vec<Effect>,
    ) {
        let most = self.limits.requests_per_pod;
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        if known.requests.contains_key(claim_id.as_str()) {
            // It waits already.
            return;
        }
        let fit = (1..=MAX_CLAIM_ID).contains(&claim_id.len())
            && claim_id.bytes().all(|b| b.is_ascii_graphic());
        // An id that names a claim of this pod cannot name another one too.
        if !fit || known.known_claims.contains(claim_id.as_str()) || known.requests.len() >= most {
            effects.push(Effect::NoWork { session, claim_id });
            return;
        }
        self.last_request += 1;
        let id = self.last_request;
        let claim_id: Arc<str> = claim_id.into();
        known.requests.insert(claim_id.clone(), id);
        let queue = known.queue;
        let until = (wait_ms > 0).then(|| self.mono + u64::from(wait_ms.min(MAX_WAIT_MS)));
        self.requests.insert(
            id,
            WorkRequest {
                session,
                claim_id,
                queue,
                client: client.as_deref().and_then(named_client).map(Arc::from),
                port: port.as_deref().map_or(Port::ANY, Port::new),
                received_at: self.mono,
                until,
                bucket: None,
            },
        );
        self.enqueue_request(id);
    }

    /// Puts a request among those that wait.
    pub(super) fn enqueue_request(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let queue = &mut self.queues[request.queue];
        let bucket = queue.bucket(request.client.as_ref());
        request.bucket = Some(bucket);
        queue.insert_request(bucket, request.port, id);
        if let Some(until) = request.until {
            self.request_deadlines.insert((until, id));
        }
        let queue = request.queue;
        self.schedule_matching(queue);
    }

    /// Takes a request out of those that wait; it lives on.
    pub(super) fn dequeue_request(&mut self, id: u64) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if let Some(bucket) = request.bucket.take() {
            self.queues[request.queue].remove_request(bucket, request.port, id);
        }
        if let Some(until) = request.until {
            self.request_deadlines.remove(&(until, id));
        }
    }

    /// Ends a request.
    pub(super) fn end_request(&mut self, id: u64) -> Option<WorkRequest> {
        self.dequeue_request(id);
        let request = self.requests.remove(&id)?;
        if let Some(session) = self.sessions.get_mut(&request.session) {
            session.requests.remove(&request.claim_id);
        }
        Some(request)
    }

    /// Ends a request without a job.
    pub(super) fn answer_no_work(&mut self, id: u64, effects: &mut Vec<Effect>) {
        if let Some(request) = self.end_request(id) {
            effects.push(Effect::NoWork {
                session: request.session,
                claim_id: request.claim_id.as_ref().to_owned(),
            });
        }
    }

    /// A pod does not request any more. A claim that is being written for it will not be granted.
    pub(super) fn cancel_request(&mut self, session: u64, claim_id: &str) {
        let id = self
            .sessions
            .get(&session)
            .and_then(|session| session.requests.get(claim_id))
            .copied();
        if let Some(id) = id {
            self.end_request(id);
        }
    }

    /// Answers the requests whose time is over.
    pub(super) fn expire_requests(&mut self, effects: &mut Vec<Effect>) {
        while let Some((until, id)) = self.request_deadlines.first().copied()
            && until <= self.mono
        {
            self.answer_no_work(id, effects);
        }
    }
}
