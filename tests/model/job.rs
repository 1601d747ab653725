//! A Job, as far as the protocol looks at it.

/// Stands for 128 random bits.
pub(crate) type ClaimId = u8;

/// metadata.uid: the same name after a deletion is another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Uid {
    pub(crate) name: u8,
    pub(crate) generation: u8,
}

impl Uid {
    pub(crate) fn index(self) -> usize {
        usize::from(self.name) * 2 + usize::from(self.generation)
    }

    pub(crate) fn name(self) -> usize {
        usize::from(self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Ready,
    Claimed,
    Succeeded,
    Failed(Reason),
}

impl Phase {
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    Expired,
    PluginLost,
    Cancelled,
}

/// `status.claim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) id: ClaimId,
    /// Stands for the pod's uid.
    pub(crate) holder: u8,
    pub(crate) ledger_epoch: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) uid: Uid,
    /// `spec.target.client`; none is for every client.
    pub(crate) location: Option<u8>,
    pub(crate) phase: Phase,
    pub(crate) claim: Option<Claim>,
    /// Number of the attempt that runs or comes next.
    pub(crate) attempt: u8,
}

impl Job {
    pub(crate) fn is_held_by(&self, uid: Uid, id: ClaimId) -> bool {
        self.uid == uid && self.holds().is_some_and(|claim| claim.id == id)
    }

    /// The claim, while it is in force.
    pub(crate) fn holds(&self) -> Option<Claim> {
        self.claim.filter(|_| self.phase == Phase::Claimed)
    }
}

impl Reason {
    pub(crate) fn of(job: &Job) -> Option<Reason> {
        match job.phase {
            Phase::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}
