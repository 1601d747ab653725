//! What the desk hears and what it answers.

use super::super::transition::Choice;
use patchbay_api::Job;

/// Names one Job; another of the same name has another uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Names one claim of one Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimName {
    /// Minted by the sidecar; bounded text.
    pub claim_id: String,
    /// The Job.
    pub job: JobName,
}

/// Names a Plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginRefKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A pod, as it was dialled: never as it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Whose pod.
    pub plugin: PluginRefKey,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
}

/// An entry of a sidecar's ledger that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The claim.
    pub claim: ClaimName,
    /// Whether the plugin may have got the job.
    pub delivered: bool,
}

/// Bounds of the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Writes of claims under way at a time, of all Plugins together.
    pub claims_in_flight: usize,
    /// Of these, for one Plugin: a busy one leaves room for the others.
    pub claims_in_flight_per_plugin: usize,
    /// Asks of one pod that may wait at a time; a further one is answered Nothing at once.
    pub asks_per_pod: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            claims_in_flight: 64,
            claims_in_flight_per_plugin: 32,
            asks_per_pod: 512,
        }
    }
}

/// One thing that happened.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A Job as the watch shows it. What is not newer than what is known is ignored.
    Job(&'a Job),
    /// A Job as the answer of a write, or a read, shows it. As [`Heard::Job`], but it says nothing
    /// about how far the watch has come.
    Answer(&'a Job),
    /// The Job with this uid is gone.
    JobGone {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// Its uid.
        uid: &'a str,
    },
    /// Limits of a Plugin's jobs; both absent when it is gone.
    Plugin {
        /// Which Plugin.
        key: PluginRefKey,
        /// Jobs in the hands of all its pods together.
        max_running: Option<u32>,
        /// Of these, for one client.
        max_running_per_client: Option<u32>,
    },
    /// A session that carries jobs is open.
    Attached {
        /// Its number, unique in this process.
        session: u64,
        /// Whom we dialled.
        pod: PodName,
        /// Names the pod's ledger.
        ledger_epoch: String,
        /// Its entries.
        ledger: Vec<LedgerEntry>,
    },
    /// It is over.
    Detached {
        /// Its number.
        session: u64,
    },
    /// A pod asks for work.
    Ask {
        /// From which session.
        session: u64,
        /// New for every ask.
        claim_id: String,
        /// Only for this client, or any; canonical form. Absent or empty: every job.
        location: Option<String>,
        /// Only for this port, or any. Absent or empty: every job.
        port: Option<String>,
        /// Milliseconds after which the answer is Nothing; 0: until it is withdrawn.
        hold_ms: u32,
    },
    /// An ask is over.
    Withdraw {
        /// From which session.
        session: u64,
        /// Which ask.
        claim_id: String,
    },
    /// The sidecar has not handed the job over and never will.
    Released {
        /// From which session.
        session: u64,
        /// Which claim.
        claim: ClaimName,
    },
    /// The answer to [`Todo::Doubt`].
    LedgerAnswer {
        /// From which session.
        session: u64,
        /// Which claim.
        claim: ClaimName,
        /// Whether it is in the ledger; `false` is the promise never to hand it over.
        known: bool,
        /// Whether the plugin may have got the job.
        delivered: bool,
    },
    /// How a [`Todo::Claim`] or [`Todo::Release`] ended. Never said before an unknown outcome was
    /// read back.
    Written {
        /// The Job.
        job: JobName,
        /// The claim.
        claim_id: String,
        /// The outcome.
        outcome: Outcome,
    },
    /// Until [`Heard::Resume`] nothing is handed out: the list of Jobs is not complete, or the
    /// clock cannot be trusted. Everything else is heard.
    Pause,
    /// The end of [`Heard::Pause`].
    Resume,
    /// Time has passed.
    Tick,
}

/// How a write ended.
#[derive(Debug)]
pub enum Outcome {
    /// It was carried out; the Job as it was answered or read back.
    Won(Box<Job>),
    /// Somebody else wrote first, or the transition does not apply to the newest view, which this
    /// is. `None`: the Job is gone.
    Lost(Option<Box<Job>>),
    /// The API server does not allow it: 403 or 422. Its words.
    Refused(String),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Replace the status by the transition `claim`, with this resource version: exactly one write,
    /// answered by [`Heard::Written`].
    Claim {
        /// The Job.
        job: JobName,
        /// As it was chosen.
        resource_version: String,
        /// For whom.
        choice: Choice,
    },
    /// Replace the status by the transition `release`, with this resource version; answered by
    /// [`Heard::Written`]. Either its holder gave the job back, or it never reached anybody.
    Release {
        /// The Job.
        job: JobName,
        /// As it was seen.
        resource_version: String,
        /// The claim.
        claim_id: String,
    },
    /// Write the transition `lose`, again until it is written or does not apply. Not answered.
    Lose {
        /// The Job.
        job: JobName,
        /// The claim.
        claim_id: String,
        /// Why.
        why: Lost,
    },
    /// Send the job. The claim is written.
    Grant {
        /// To which session.
        session: u64,
        /// The claim.
        claim: ClaimName,
        /// From now to the Job's expire time; 0 when it never expires, else more than 0.
        remaining_ms: u64,
        /// How long the ask has waited here; rather too short than too long.
        held_ms: u64,
        /// 1 with the first.
        attempt: i32,
    },
    /// Say that there is no job for this ask.
    Nothing {
        /// To which session.
        session: u64,
        /// Which ask.
        claim_id: String,
    },
    /// Ask the sidecar about claims that it has not named.
    Doubt {
        /// Which session.
        session: u64,
        /// Which claims.
        claims: Vec<ClaimName>,
    },
}

/// Why a claim counts as handed over without an answer to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The pod's ledger is another one than at the time of the claim.
    VolumeLost,
    /// The plugin was known to work on it, and the ledger does not know the claim.
    Forgotten,
}

impl Lost {
    /// For people.
    pub const fn message(self) -> &'static str {
        match self {
            Lost::VolumeLost => {
                "the pod has lost the record of what it handed to its plugin (its node or its volume was started anew)"
            }
            Lost::Forgotten => "the pod does not know this claim any more",
        }
    }
}
