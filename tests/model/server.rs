//! The API server: one object per Job, replaced only by who read the version in force. Beside it
//! the transitions that a leader may write; they stand for `reconcile::job::transition`.
//!
//! The CEL rules of the CRD are left out on purpose: they are the second line, and what is checked
//! here has to hold without them.

use crate::rules::{Broken, Config};
use crate::state::{Claim, EntryState, Job, Phase, Reason, State, Why, Write};

/// The status that `why` leads to, or none when the job is past it.
pub(crate) fn next_status(
    job: &Job,
    why: Why,
    config: &Config,
    broken: Option<Broken>,
) -> Option<Job> {
    match why {
        // A claim is made from an ask; see `claim`.
        Why::Claim { .. } => None,
        Why::Release { uid, id } => {
            let mine = job.is_held_by(uid, id)
                || broken == Some(Broken::ReleaseWithoutClaimId)
                    && job.uid == uid
                    && job.holds().is_some();
            mine.then_some(Job {
                phase: Phase::Ready,
                claim: None,
                ..*job
            })
        }
        Why::Lose { uid, id, .. } => job.is_held_by(uid, id).then(|| lose(job, config)),
        Why::Complete { uid, id, .. } => {
            let mine = job.is_held_by(uid, id)
                || broken == Some(Broken::CompleteByName) && job.holds().is_some()
                || broken == Some(Broken::TerminalIgnored)
                    && job.uid == uid
                    && matches!(job.phase, Phase::Failed(_))
                    && job.claim.is_some_and(|claim| claim.id == id);
            mine.then_some(Job {
                phase: Phase::Succeeded,
                ..*job
            })
        }
        Why::Expire { uid } => (job.uid == uid && job.phase == Phase::Ready).then_some(Job {
            phase: Phase::Failed(Reason::Expired),
            ..*job
        }),
        Why::Cancel { uid } => (job.uid == uid && !job.phase.is_terminal()).then_some(Job {
            phase: Phase::Failed(Reason::Cancelled),
            ..*job
        }),
    }
}

/// Ready to Claimed.
pub(crate) fn claim(job: &Job, claim: Claim) -> Job {
    Job {
        phase: Phase::Claimed,
        claim: Some(claim),
        ..*job
    }
}

/// A delivered attempt is over without an answer. Back-off is left out: Waiting is Ready here.
fn lose(job: &Job, config: &Config) -> Job {
    if config.at_least_once && job.attempt == 1 {
        Job {
            phase: Phase::Ready,
            claim: None,
            attempt: 2,
            ..*job
        }
    } else {
        Job {
            phase: Phase::Failed(Reason::PluginLost),
            ..*job
        }
    }
}

/// Carries out a write. False is 409, or 404 when the Job is gone.
pub(crate) fn replace_status(state: &mut State, write: &Write, broken: Option<Broken>) -> bool {
    let name = write.status.uid.name();
    let Some(job) = state.jobs[name] else {
        return false;
    };
    let is_claim = matches!(write.why, Why::Claim { .. });
    if !(write.current || is_claim && broken == Some(Broken::ClaimWithoutVersion)) {
        return false;
    }
    let new = Job {
        uid: job.uid,
        location: job.location,
        ..write.status
    };
    judge(state, &job, &new, write.why);
    state.jobs[name] = Some(new);
    state.outdate(name);
    true
}

/// Notes what is wrong with a write that was carried out.
fn judge(state: &mut State, old: &Job, new: &Job, why: Why) {
    if old.phase.is_terminal() && old != new {
        state.diary.left_terminal = true;
    }
    if new.phase == Phase::Succeeded && !state.diary.answered[new.uid.index()] {
        state.diary.false_success = true;
    }
    if matches!(why, Why::Lose { .. })
        && let Some(claim) = old.holds()
    {
        let holder = &state.sidecars[usize::from(claim.holder)];
        let still_has = !holder.gone
            && holder.ledger_epoch == claim.ledger_epoch
            && holder.ledger.iter().any(|entry| {
                entry.id == claim.id
                    && matches!(
                        entry.state,
                        EntryState::Granted { .. } | EntryState::Delivered { .. }
                    )
            });
        state.diary.false_loss |= still_has;
    }
}
