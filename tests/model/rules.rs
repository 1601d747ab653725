//! What one run of the checker covers, and the rules that it may break on purpose.

/// A rule of the protocol made wrong. Each must lead the checker to a counterexample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A claim is a patch by name, without the resourceVersion that was read.
    ClaimWithoutVersion,
    /// A write whose answer did not come is taken for one that did not happen.
    UnknownIsLost,
    /// A conflict is taken for somebody else's claim without comparing claim ids.
    ConflictIsLost,
    /// After a conflict the claim is written again without matching job and ask again.
    RetryWithoutMatching,
    /// The plugin gets the job before the ledger says so.
    LedgerAfterHandOver,
    /// What the ledger does not know is released, whichever ledger it was.
    LedgerEpochIgnored,
    /// A Hello counts as evidence about every claim that the leader sees when it reads it.
    HelloBelieved,
    /// A claim of another ledger than the session's is lost, without asking its holder.
    SessionEpochBelieved,
    /// A sidecar goes on listening to its former session and keeps the ask made there.
    FormerSessionHeard,
    /// A release frees the job, whoever holds it now.
    ReleaseWithoutClaimId,
    /// The job goes back when its claim's session breaks, without a word from the holder.
    ReleaseOnBreak,
    /// The sidecar hands over without looking at its deadline.
    HandOverPastDeadline,
    /// The deadline counts from the arrival of the grant.
    DeadlineFromArrival,
    /// The time remaining is taken when the candidate is listed, not after the write.
    ExpiryAtListing,
    /// A request repeated after a restart is answered without looking at the deadline.
    RepeatWithoutDeadline,
    /// The plugin's client forgets a request whose connection broke.
    ClientForgets,
    /// An answer completes whatever job has that name.
    CompleteByName,
    /// The phase is written first, the output afterwards.
    CompleteBeforeOutput,
    /// A JobOutput object of that name counts as stored, whoever owns it.
    OutputOfAnother,
    /// A row is settled as soon as the watch cache does not show its claim.
    GoneByCache,
    /// A terminal phase is no reason not to write another.
    TerminalIgnored,
}

/// A kind of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The answer to a write is lost, after or before it was carried out.
    AnswerLost,
    /// A write is given up by its leader and arrives later, or never.
    WriteDelayed,
    /// A session breaks; what is in flight is lost.
    SessionBreaks,
    /// Another operator takes over; the old one does not know.
    NewLeader,
    /// The sidecar process ends and starts again. Its ledger stays.
    SidecarCrash,
    /// The pod's private volume is empty after a reboot of the node.
    VolumeLost,
    /// The plugin process ends and starts again.
    PluginCrash,
    /// The pod object is deleted while its processes go on.
    PodGone,
    /// The plugin's request ends before a job came.
    AskWithdrawn,
    Cancel,
    /// A user deletes the Job and creates another under its name.
    Recreate,
}

/// Bounds of one run.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    /// `spec.target.client` of each Job at first; its length is the number of Jobs.
    pub(crate) jobs: &'static [Option<u8>],
    /// And after the Job was created again.
    pub(crate) recreated: Option<u8>,
    /// For which client each plugin asks; its length is the number of pods.
    pub(crate) asks_for: &'static [Option<u8>],
    pub(crate) at_least_once: bool,
    /// `spec.expireTime` as a tick, and the last tick.
    pub(crate) expires: Option<(u8, u8)>,
    pub(crate) faults: u8,
    pub(crate) kinds: &'static [Fault],
    /// What must have been seen, so that the run is not empty.
    pub(crate) sights: &'static [&'static str],
}
