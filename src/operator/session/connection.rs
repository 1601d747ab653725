//! Keeps one session open: begins it (`attach.rs`), goes on (`session_loop.rs`) until it breaks; and
//! again.
//!
//! From version 2 on it also carries what is said about jobs; an older sidecar gets none of it,
//! and nothing of it is believed.

use super::attach::attach;
use super::error::SessionError;
use super::session_loop::SessionLoop;
use super::{DesiredSidecarState, SessionContext, SessionPeer, SidecarInfo};
use crate::retry::{Policy, jitter};
use crate::text::bounded_text;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

/// A refused connection is normal right after the address appears, and every wait here is time to
/// Ready: begin quickly.
const REDIAL: Policy = Policy {
    first: Duration::from_millis(20),
    limit: Duration::from_secs(5),
};
/// A session that lived so long was a good one: the next dial is quick again.
const GOOD: Duration = Duration::from_secs(5);

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
    let session = attach(target, shared).await?;
    attached.now();
    let greeting = &session.greeting;
    tracing::debug!(
        start_allowed = greeting.start_allowed,
        "the session is open"
    );
    let process_id = bounded_text(&greeting.process_id, 64);
    let sidecar = SidecarInfo {
        version: bounded_text(&greeting.sidecar_version, 64),
        process_id: process_id.clone(),
        session: greeting.version,
    };
    shared.update(target, |snapshot| {
        snapshot.attached = true;
        snapshot.trouble = None;
        snapshot.sidecar = Some(sidecar);
    });
    let session = SessionLoop::new(target, shared, process_id, session).await?;
    session.run(wanted).await
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
