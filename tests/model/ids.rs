//! Claim ids: which are in use, and the next one.

use crate::state::{ClaimId, ClaimSet, Copied, Down, State, Step, Up, Why, Write};

impl State {
    /// The lowest claim id that nothing refers to.
    pub(crate) fn mint(&self) -> ClaimId {
        let used = self.used_ids();
        (0..16).find(|&id| !used.has(id)).unwrap_or(15)
    }

    /// Sessions forget the ids that nothing else refers to: no message can name them any more.
    pub(crate) fn forget_free_ids(&mut self) {
        let used = self.used_ids();
        for session in self.sessions.iter_mut().flatten().flatten() {
            session.known.0 &= used.0;
            session.doubted.0 &= used.0;
        }
    }

    fn used_ids(&self) -> ClaimSet {
        let mut used = ClaimSet::default();
        let jobs = self.jobs.iter().chain(
            self.leaders
                .iter()
                .flat_map(|leader| leader.cache.iter().map(|copied| &copied.job)),
        );
        for claim in jobs.flatten().filter_map(|job| job.claim) {
            used.add(claim.id);
        }
        for work in self
            .leaders
            .iter()
            .flat_map(|leader| leader.work.iter().flatten())
        {
            if let Some(id) = id_of(work.why) {
                used.add(id);
            }
            match work.step {
                Step::Sent(Write { status, .. })
                | Step::Won(Copied {
                    job: Some(status), ..
                }) => {
                    status.claim.iter().for_each(|claim| used.add(claim.id));
                }
                _ => {}
            }
        }
        for write in &self.late {
            write
                .status
                .claim
                .iter()
                .for_each(|claim| used.add(claim.id));
        }
        for session in self.sessions.iter().flatten().flatten() {
            session.ask.iter().for_each(|ask| used.add(ask.id));
            for message in &session.up {
                match message {
                    Up::Hello { ledger, .. } => used.0 |= ledger.0,
                    Up::Ask { id }
                    | Up::Withdraw { id }
                    | Up::Released { id, .. }
                    | Up::Row { id, .. }
                    | Up::Lost { id, .. }
                    | Up::LedgerAnswer { id, .. } => used.add(*id),
                }
            }
            for message in &session.down {
                match message {
                    Down::Grant { id, .. }
                    | Down::Doubt { id, .. }
                    | Down::RowStored { id, .. } => used.add(*id),
                }
            }
        }
        for sidecar in &self.sidecars {
            sidecar.ask.iter().for_each(|ask| used.add(ask.id));
            sidecar.ledger.iter().for_each(|entry| used.add(entry.id));
        }
        used
    }
}

fn id_of(why: Why) -> Option<ClaimId> {
    match why {
        Why::Claim { id, .. }
        | Why::Release { id, .. }
        | Why::Lose { id, .. }
        | Why::Complete { id, .. } => Some(id),
        Why::Expire { .. } | Why::Cancel { .. } => None,
    }
}
