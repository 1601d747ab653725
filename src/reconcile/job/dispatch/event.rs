//! The events of the dispatcher and the effects that come of them.

use super::super::transition::Choice;
use patchbay_api::Job;

/// Names one Job; another of the same name has another uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Names one claim of one Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimRef {
    /// Minted by the sidecar; bounded text.
    pub claim_id: String,
    pub job: JobRef,
}

/// Names a Plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginRefKey {
    pub namespace: String,
    pub name: String,
}

/// A pod, as it was dialled: never as it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialedPod {
    pub plugin: PluginRefKey,
    pub pod: String,
    pub uid: String,
}

/// Bounds of the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchLimits {
    /// Writes of claims under way at a time, of all Plugins together.
    pub claims_in_flight: usize,
    /// Of these, for one Plugin: a busy one leaves room for the others.
    pub claims_in_flight_per_plugin: usize,
    /// Requests of one pod that may wait at a time; a further one is answered NoWork at once.
    pub requests_per_pod: usize,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self {
            claims_in_flight: 64,
            claims_in_flight_per_plugin: 32,
            requests_per_pod: 512,
        }
    }
}

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A Job as the watch shows it. What is not newer than what is known is ignored.
    Job(&'a Job),
    /// A Job as the answer of a write, or a read, shows it. As [`Event::Job`], but it says nothing
    /// about how far the watch has come.
    Answer(&'a Job),
    /// The Job with this uid is gone.
    JobGone {
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    },
    /// Limits of a Plugin's jobs; both absent when it is gone.
    Plugin {
        key: PluginRefKey,
        /// Jobs claimed by all its pods together.
        max_running: Option<u32>,
        /// Of these, for one client.
        max_running_per_client: Option<u32>,
    },
    /// A session that carries jobs is open.
    Attached {
        /// Its number, unique in this process.
        session: u64,
        /// Whom we dialled.
        pod: DialedPod,
        /// Names the pod's ledger.
        ledger_epoch: String,
        /// Ids of the claims in it that are not settled.
        ledger: Vec<String>,
    },
    /// It is over.
    Detached { session: u64 },
    /// A pod requests work.
    WorkRequest {
        /// From which session.
        session: u64,
        /// New for every request.
        claim_id: String,
        /// Only for this client, or any; canonical form. Absent or empty: every job.
        client: Option<String>,
        /// Only for this port, or any. Absent or empty: every job.
        port: Option<String>,
        /// Milliseconds after which the answer is Nothing; 0: until it is cancelled.
        wait_ms: u32,
    },
    /// A request is over.
    CancelRequest {
        /// From which session.
        session: u64,
        claim_id: String,
    },
    /// The sidecar has not handed the job over and never will.
    ClaimReturned {
        /// From which session.
        session: u64,
        claim: ClaimRef,
    },
    /// The answer to [`Effect::ClaimQuery`].
    ClaimQueryReply {
        /// From which session.
        session: u64,
        claim: ClaimRef,
        /// Whether it is in the ledger; `false` is the promise never to hand it over.
        known: bool,
    },
    /// How a [`Effect::Claim`] or [`Effect::Release`] ended. Never said before an unknown outcome was
    /// read back.
    WriteFinished {
        job: JobRef,
        claim_id: String,
        outcome: WriteOutcome,
    },
    /// Until [`Event::Resume`] nothing is dispatched: the list of Jobs is not complete, or the
    /// clock cannot be trusted. Everything else is handled.
    Pause,
    /// The end of [`Event::Pause`].
    Resume,
    /// Time has passed.
    Tick,
}

/// How a write ended.
#[derive(Debug)]
pub enum WriteOutcome {
    /// It was carried out; the Job as it was answered or read back.
    Applied(Box<Job>),
    /// Somebody else wrote first, or the transition does not apply to the newest view, which this
    /// is. `None`: the Job is gone.
    Conflict(Option<Box<Job>>),
    /// The API server does not allow it: 403 or 422. Its words.
    Refused(String),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replace the status by the transition `claim`, with this resource version: exactly one write,
    /// answered by [`Event::WriteFinished`].
    Claim {
        job: JobRef,
        /// As it was chosen.
        resource_version: String,
        choice: Choice,
    },
    /// Replace the status by the transition `release`, with this resource version; answered by
    /// [`Event::WriteFinished`]. Either its holder gave the job back, or it never reached anybody.
    Release {
        job: JobRef,
        /// As it was seen.
        resource_version: String,
        claim_id: String,
    },
    /// Write the transition `lose`, again until it is written or does not apply. Not answered.
    Lose {
        job: JobRef,
        claim_id: String,
        why: LossCause,
    },
    /// Send the job. The claim is written.
    Grant {
        /// To which session.
        session: u64,
        claim: ClaimRef,
        /// From now to the Job's expire time; 0 when it never expires, else more than 0.
        remaining_ms: u64,
        /// How long the request has waited here; rather too short than too long.
        waited_ms: u64,
        /// 1 with the first.
        attempt: i32,
    },
    /// Say that there is no job for this request.
    NoWork {
        /// To which session.
        session: u64,
        claim_id: String,
    },
    /// Ask the sidecar about claims that it has not named.
    ClaimQuery { session: u64, claims: Vec<ClaimRef> },
}

/// Why a claim counts as handed over without an answer to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// The pod's ledger is another one than at the time of the claim.
    VolumeLost,
    /// The plugin was known to work on it, and the ledger does not know the claim.
    Forgotten,
}

impl LossCause {
    pub const fn message(self) -> &'static str {
        match self {
            LossCause::VolumeLost => {
                "the pod has lost the record of what it handed to its plugin (its node or its volume was restarted)"
            }
            LossCause::Forgotten => "the pod does not know this claim any more",
        }
    }
}
