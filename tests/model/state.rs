//! The state of the model: what the API server, the leaders, the sidecars and the network between
//! them hold. Plain data; the moves stand in the files beside this one.
//!
//! Three abstractions keep the space small and lose nothing:
//! - A resourceVersion is only ever compared with the one in force, and none comes twice. So every
//!   copy of an object carries `current` instead of a number.
//! - A claim id is random, and only asked for equality. An id that nothing holds any more is as
//!   good as a fresh one, so the lowest free number is taken.
//! - Phases that the protocol treats alike are one: Waiting past its start is `Ready`, Running is
//!   `Claimed`, Invalid and Suspended are never handed out.

pub(crate) use crate::job::{Claim, ClaimId, Job, Phase, Reason, Uid};

/// How many names of Jobs the arrays hold.
pub(crate) const NAMES: usize = 2;
/// The old leader and its successor.
pub(crate) const LEADERS: usize = 2;
/// How many pods the arrays hold; each serves one plugin process.
pub(crate) const SIDECARS: usize = 2;
/// First and second attempt; `backoffLimit` is 1 with AtLeastOnce.
pub(crate) const ATTEMPTS: usize = 2;

/// A copy of an object. `current`: its resourceVersion is still the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copied {
    pub(crate) job: Option<Job>,
    pub(crate) current: bool,
}

/// Why a leader writes a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// `listed_at`: when the candidate was chosen; counted only where a broken rule uses it.
    Claim {
        id: ClaimId,
        sidecar: u8,
        listed_at: u8,
    },
    Release {
        uid: Uid,
        id: ClaimId,
    },
    /// `tell`: the sidecar that said so and waits for RowStored.
    Lose {
        uid: Uid,
        id: ClaimId,
        tell: Option<u8>,
    },
    Complete {
        uid: Uid,
        id: ClaimId,
        attempt: u8,
        sidecar: u8,
    },
    Expire {
        uid: Uid,
    },
    Cancel {
        uid: Uid,
    },
}

/// A `replace_status` on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) status: Job,
    pub(crate) why: Why,
    pub(crate) current: bool,
}

/// How far a leader's work on one Job is. There is at most one per leader and Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// JobOutput objects are being created.
    Storing,
    Sent(Write),
    /// The claim is written; the answer has not been read.
    Won(Copied),
    /// The outcome of the write is unknown.
    Unknown {
        current: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) why: Why,
    pub(crate) step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    /// Whether it believes that it is the leader. The old one never learns that it is not.
    pub(crate) active: bool,
    pub(crate) cache: [Copied; NAMES],
    pub(crate) work: [Option<Work>; NAMES],
}

/// An ask as it waits at the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeldAsk {
    pub(crate) id: ClaimId,
    pub(crate) received_at: u8,
    /// A claim with this id is being written.
    pub(crate) in_flight: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    Hello { ledger_epoch: u8, ledger: ClaimSet },
    Ask { id: ClaimId },
    Withdraw { id: ClaimId },
    Released { uid: Uid, id: ClaimId },
    Row { uid: Uid, id: ClaimId, attempt: u8 },
    Lost { uid: Uid, id: ClaimId },
    LedgerAnswer { uid: Uid, id: ClaimId, known: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Down {
    Grant {
        uid: Uid,
        id: ClaimId,
        attempt: u8,
        /// Ticks; none never expires.
        remaining: Option<u8>,
        held: u8,
    },
    Doubt {
        uid: Uid,
        id: ClaimId,
    },
    RowStored {
        uid: Uid,
        id: ClaimId,
    },
}

/// Claim ids, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ClaimSet(pub(crate) u16);

impl ClaimSet {
    pub(crate) fn has(self, id: ClaimId) -> bool {
        self.0 >> id & 1 == 1
    }

    pub(crate) fn add(&mut self, id: ClaimId) {
        self.0 |= 1 << id;
    }

    pub(crate) fn remove(&mut self, id: ClaimId) {
        self.0 &= !(1 << id);
    }
}

/// One session of a leader with a sidecar. Either side may have left it without the other knowing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// Whether the sidecar still listens. What it sent before may still arrive.
    pub(crate) heard: bool,
    /// The epoch that the Hello named; none before the leader has read it.
    pub(crate) ledger_epoch: Option<u8>,
    pub(crate) ask: Option<HeldAsk>,
    /// Claims that this session has named.
    pub(crate) known: ClaimSet,
    pub(crate) doubted: ClaimSet,
    pub(crate) up: Vec<Up>,
    pub(crate) down: Vec<Down>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EntryState {
    /// `own`: taken by the sidecar process that runs now.
    Granted {
        own: bool,
    },
    /// `collected`: the plugin has got the answer of its request. The sidecar process knows that
    /// only while it lives; nothing it decides afterwards depends on it.
    Delivered {
        collected: bool,
        own: bool,
    },
    /// Delivered to a plugin process that is gone; its successor may still answer.
    Orphaned,
    Answered,
    /// `had`: the plugin process that is gone had got it.
    Lost {
        had: bool,
    },
}

/// One claim of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) uid: Uid,
    pub(crate) id: ClaimId,
    pub(crate) attempt: u8,
    /// The first tick at which it must not be handed over any more.
    pub(crate) deadline: u8,
    pub(crate) state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) id: ClaimId,
    pub(crate) sent_at: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sidecar {
    /// The pod object is deleted. Its processes may live on behind a partition.
    pub(crate) gone: bool,
    pub(crate) ledger_epoch: u8,
    pub(crate) ledger: Vec<Entry>,
    /// The highest epoch of a leader that this process has seen.
    pub(crate) seen: u8,
    pub(crate) ask: Option<Ask>,
    /// What the plugin process works on. It asks for more only afterwards.
    pub(crate) plugin: Option<(Uid, u8)>,
}

/// What nobody in the system can see: the judge's own book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Diary {
    /// Hand-overs by uid and attempt, counted to two.
    pub(crate) handed: [[u8; ATTEMPTS]; NAMES * 2],
    /// Whether a plugin gave an answer for that uid.
    pub(crate) answered: [bool; NAMES * 2],
    pub(crate) after_expiry: bool,
    pub(crate) wrong_client: bool,
    pub(crate) left_terminal: bool,
    pub(crate) false_success: bool,
    pub(crate) false_loss: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// True time in ticks; all clocks run at its rate.
    pub(crate) now: u8,
    pub(crate) jobs: [Option<Job>; NAMES],
    /// Which uid owns the JobOutput object of a name and attempt.
    pub(crate) outputs: [[Option<Uid>; ATTEMPTS]; NAMES],
    pub(crate) leaders: [Leader; LEADERS],
    pub(crate) sidecars: [Sidecar; SIDECARS],
    pub(crate) sessions: [[Option<Session>; SIDECARS]; LEADERS],
    /// Writes that their leader has given up and that may still arrive.
    pub(crate) late: Vec<Write>,
    /// How many more misfortunes happen.
    pub(crate) faults: u8,
    pub(crate) diary: Diary,
}

impl State {
    /// The leader whose session this sidecar listens to.
    pub(crate) fn listens_to(&self, sidecar: usize) -> Option<usize> {
        (0..LEADERS).rev().find(|&leader| {
            self.sessions[leader][sidecar]
                .as_ref()
                .is_some_and(|session| session.heard)
        })
    }

    /// The leader that will stay when nothing fails any more.
    pub(crate) fn newest_leader(&self) -> usize {
        (0..LEADERS)
            .rev()
            .find(|&leader| self.leaders[leader].active)
            .unwrap_or(0)
    }

    /// Sends on the session that the sidecar listens to; without one the message is not sent.
    pub(crate) fn send_up(&mut self, sidecar: usize, message: Up) {
        if let Some(leader) = self.listens_to(sidecar)
            && let Some(session) = &mut self.sessions[leader][sidecar]
        {
            session.up.push(message);
        }
    }

    /// Sends to a sidecar; a message to one that does not listen any more is lost.
    pub(crate) fn send_down(&mut self, leader: usize, sidecar: usize, message: Down) {
        if let Some(session) = &mut self.sessions[leader][sidecar]
            && session.heard
        {
            session.down.push(message);
        }
    }

    /// Every copy of this object is of an older version now.
    pub(crate) fn outdate(&mut self, name: usize) {
        for leader in &mut self.leaders {
            leader.cache[name].current = false;
            if let Some(work) = &mut leader.work[name] {
                match &mut work.step {
                    Step::Sent(write) => write.current = false,
                    Step::Won(copied) => copied.current = false,
                    Step::Unknown { current } => *current = false,
                    Step::Storing => {}
                }
            }
        }
        for write in &mut self.late {
            if write.status.uid.name() == name {
                write.current = false;
            }
        }
    }
}
