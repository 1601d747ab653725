//! `status.update`: the change that is on its way, or the last one.

use super::conditions::Facts;
use super::count;
use crate::plugin::action::Plan;
use crate::plugin::observe::Observed;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use patchbay_api::PluginStatus;
use patchbay_api::plugin_status::UpdateStatus;

pub(super) fn update(
    observed: &Observed,
    plan: &Plan,
    facts: &Facts<'_>,
    before: &PluginStatus,
) -> Option<UpdateStatus> {
    let known = before.update.clone();
    let Some(greatest) = plan.pending.iter().max_by_key(|p| p.change) else {
        // Nothing is pending: what was under way is through as soon as everything answers calls.
        let mut done = known?;
        if done.finished_at.is_none() && facts.wanted == facts.ready {
            done.finished_at = Some(Time(observed.now));
            done.failed = 0;
        }
        if done.finished_at.is_none() || known_differs(before, &done) {
            done.swapped = count(facts.updated);
        }
        return Some(done);
    };
    let failed = count(plan.pending.iter().filter(|p| p.failed).count());
    let same = known
        .as_ref()
        .filter(|k| k.finished_at.is_none() && k.to == greatest.to);
    let mut update = match same {
        Some(same) => same.clone(),
        None => UpdateStatus {
            change: greatest.change.as_str().to_owned(),
            from: greatest.from.clone(),
            to: greatest.to.clone(),
            started_at: Some(Time(observed.now)),
            ..UpdateStatus::default()
        },
    };
    update.swapped = count(facts.updated);
    update.failed = failed;
    Some(update)
}

fn known_differs(before: &PluginStatus, done: &UpdateStatus) -> bool {
    before
        .update
        .as_ref()
        .is_some_and(|k| k.finished_at != done.finished_at)
}
