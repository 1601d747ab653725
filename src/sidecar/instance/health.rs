//! A plugin that announced an address, from the connection on: is it well?

use patchbay_protocol::pod_config::OnFailure;
use patchbay_protocol::reason::Reason;

use crate::family::Health;

use super::failure::Failure;
use super::stop::{Step, Why};
use super::{
    Action, Dialled, FIRST_HEALTH, FIRST_HEALTH_PAUSE, Machine, Now, Running, Stage, State,
    UNSERVED_PAUSE, Verdict,
};

impl Machine {
    pub(super) fn on_dialled(
        &mut self,
        now: Now,
        outcome: Result<Dialled, Failure>,
        actions: &mut Vec<Action>,
    ) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        if !matches!(process.stage, Stage::Dialling) {
            return;
        }
        match outcome {
            Ok(dialled) => {
                process.tls = dialled.tls;
                process.stage = Stage::Running(Running {
                    since: now.mono,
                    verdict: Verdict::Pending,
                    failures: 0,
                    counted: now.mono,
                    due: now.mono,
                    asked: false,
                });
                self.compare_config(now, actions);
            }
            Err(failure) => self.fail(now, failure, actions),
        }
    }

    /// With TLS 1.3 a plugin that refuses our certificate says so only after the handshake.
    pub(super) fn on_broken(&mut self, now: Now, failure: Failure, actions: &mut Vec<Action>) {
        let State::Alive(process) = &self.state else {
            return;
        };
        if process.ready_since.is_none() && matches!(process.stage, Stage::Running(_)) {
            self.fail(now, failure, actions);
        } else {
            self.on_health(now, Health::Failed(failure.message), actions);
        }
    }

    pub(super) fn on_health(&mut self, now: Now, health: Health, actions: &mut Vec<Action>) {
        let State::Alive(process) = &mut self.state else {
            return;
        };
        let Some(config) = process.config.as_deref() else {
            return;
        };
        // The newest word counts for how often and how much.
        let wanted = self.config.as_deref().unwrap_or(config).health.clone();
        let period = u64::from(wanted.period_seconds.max(1)) * 1000;
        if health == Health::Unsupported {
            process.warn(
                "the plugin has no health service: only its connection is watched".to_owned(),
            );
        }
        let failure = if health.passes() {
            None
        } else {
            Some(health.to_string())
        };
        let Stage::Running(running) = &mut process.stage else {
            return;
        };
        running.asked = false;
        running.due = now.mono + period;
        let Some(failure) = failure else {
            running.failures = 0;
            running.verdict = Verdict::Serving;
            self.failure = None;
            if process.ready_since.is_none() {
                process.ready_since = Some(now.mono);
                actions.push(Action::Admit(process.start_id));
                actions.push(Action::ListServices(process.start_id));
            }
            return;
        };
        let never_passed = process.ready_since.is_none();
        if never_passed && now.mono < running.since + FIRST_HEALTH {
            running.due = now.mono + FIRST_HEALTH_PAUSE;
            return;
        }
        if never_passed {
            // Its first answer is awaited eagerly, but failures count at the period's pace.
            running.due = now.mono + UNSERVED_PAUSE.min(period);
            if running.failures > 0 && now.mono < running.counted + period {
                running.verdict = Verdict::Failing(failure);
                return;
            }
        }
        running.failures = running.failures.saturating_add(1);
        running.counted = now.mono;
        let beyond = running.failures >= wanted.failure_threshold.max(1);
        if never_passed || beyond || matches!(running.verdict, Verdict::Failing(_)) {
            running.verdict = Verdict::Failing(failure.clone());
        }
        if beyond && wanted.on_failure == OnFailure::Restart && !self.leaving {
            let message = format!(
                "{failure} ({} times in a row); the plugin is started again",
                running.failures
            );
            self.stop(
                now,
                Why::Failed(Failure::new(Reason::Unhealthy, message)),
                Step::Call,
                actions,
            );
        }
    }
}
