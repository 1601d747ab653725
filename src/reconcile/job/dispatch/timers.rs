//! What time does to the dispatcher. Wake-ups are reckoned in monotonic time; what is decided then is
//! decided by the wall clock.

use super::Dispatcher;
use super::entry::{JobState, Recovery, micros};
use super::event::Effect;
use jiff::Timestamp;

/// While jobs wait for their time the dispatcher looks at the wall clock at least so often, because it
/// can be set: milliseconds.
const CLOCK_CHECK_MS: u64 = 60_000;

impl Dispatcher {
    /// When [`super::Event::Tick`] is due at the latest, in monotonic milliseconds; `None` when
    /// there is nothing to wait for.
    pub fn wake_at(&self, now: Timestamp, mono_ms: u64) -> Option<u64> {
        let now = micros(now);
        let set_claimed = self.request_deadlines.first().map(|(until, _)| *until);
        let retries = self.jobs.retries.first().map(|(until, _)| *until);
        let timer = self.jobs.timers.first().map(|(eligible, _)| {
            let wait = eligible.saturating_sub(now).max(0);
            // Rounded up: at the time of the tick it has come.
            let wait = u64::try_from(wait).unwrap_or_default().div_ceil(1000);
            mono_ms.saturating_add(wait.min(CLOCK_CHECK_MS))
        });
        [set_claimed, retries, timer].into_iter().flatten().min()
    }

    /// Lets everything happen whose time has come.
    pub(super) fn run_timers(&mut self, effects: &mut Vec<Effect>) {
        while let Some((eligible, id)) = self.jobs.timers.first().copied()
            && eligible <= self.now
        {
            self.unplace(id);
            self.place(id);
        }
        // Only when the clock was set back, or they would not be here.
        while let Some((expire, id)) = self.jobs.expired.last().copied()
            && self.now < expire
        {
            self.unplace(id);
            self.place(id);
        }
        while let Some((until, id)) = self.jobs.retries.first().copied()
            && until <= self.mono
        {
            self.jobs.retries.remove(&(until, id));
            match self.jobs.entries.get(id).map(|entry| &entry.state) {
                // Until there is news of it.
                Some(JobState::PendingAcceptance { until: known, .. }) if *known == until => {
                    self.skip_pending(id)
                }
                Some(JobState::RetryAt { until: known }) if *known == until => {
                    self.jobs.entries[id].state = JobState::Ineligible;
                    self.place(id);
                }
                Some(JobState::Claimed(active)) if active.task == Recovery::Releasing => {
                    self.release(id, effects);
                }
                // What was to be tried again is not wanted any more.
                _ => {}
            }
        }
    }
}
