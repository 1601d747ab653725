//! What time does to the desk. Wake-ups are reckoned in monotonic time; what is decided then is
//! decided by the wall clock.

use super::Desk;
use super::entry::{State, Task, micros};
use super::words::Todo;
use jiff::Timestamp;

/// While jobs wait for their time the desk looks at the wall clock at least so often, because it
/// can be set: milliseconds.
const LOOK: u64 = 60_000;

impl Desk {
    /// When [`super::Heard::Tick`] is due at the latest, in monotonic milliseconds; `None` when
    /// there is nothing to wait for.
    pub fn wake_at(&self, now: Timestamp, mono_ms: u64) -> Option<u64> {
        let now = micros(now);
        let hold = self.holds.first().map(|(until, _)| *until);
        let cooling = self.jobs.cooling.first().map(|(until, _)| *until);
        let timer = self.jobs.timers.first().map(|(eligible, _)| {
            let wait = eligible.saturating_sub(now).max(0);
            // Rounded up: at the time of the tick it has come.
            let wait = u64::try_from(wait).unwrap_or_default().div_ceil(1000);
            mono_ms.saturating_add(wait.min(LOOK))
        });
        [hold, cooling, timer].into_iter().flatten().min()
    }

    /// Lets everything happen whose time has come.
    pub(super) fn advance(&mut self, todo: &mut Vec<Todo>) {
        while let Some((eligible, id)) = self.jobs.timers.first().copied()
            && eligible <= self.now
        {
            self.unplace(id);
            self.place(id);
        }
        // Only when the clock was set back, or they would not be here.
        while let Some((expire, id)) = self.jobs.parked.last().copied()
            && self.now < expire
        {
            self.unplace(id);
            self.place(id);
        }
        while let Some((until, id)) = self.jobs.cooling.first().copied()
            && until <= self.mono
        {
            self.jobs.cooling.remove(&(until, id));
            match self.jobs.entries.get(id).map(|entry| &entry.state) {
                // Until there is news of it.
                Some(State::Unjudged { until: known, .. }) if *known == until => self.pass_over(id),
                Some(State::Cooling { until: known }) if *known == until => {
                    self.jobs.entries[id].state = State::Closed;
                    self.place(id);
                }
                Some(State::Held(holding)) if holding.task == Task::Releasing => {
                    self.release(id, todo);
                }
                // What was to be tried again is not wanted any more.
                _ => {}
            }
        }
    }
}
