//! The events of the claim machine and the effects that come of them.

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::session::ClaimName;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;

use super::entry::{Digest, Entry, Row, RowEnd};

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {$(
        $(#[doc = $doc])+
        /// Written as 32 lower-case hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// Reads 32 hexadecimal digits of either case.
            pub fn parse(text: &str) -> Option<$name> {
                let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                digits.then(|| u128::from_str_radix(text, 16).ok().map($name)).flatten()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                $name::parse(&text).ok_or_else(|| serde::de::Error::custom(
                    format_args!("{text:?} is not 32 hexadecimal digits")
                ))
            }
        }
    )+};
}

ids! {
    /// Names one work request, and the claim that comes of it. Minted here, new for every work request.
    ClaimId,
    /// Names one request for work of the plugin, however often it is repeated. Minted by the plugin.
    RequestId,
    /// Names one row of output, however often it is given. Minted by the plugin.
    RowId,
}

/// One call on the jobs socket that waits for its answer.
pub type CallerId = u64;

/// The world as the caller of the claim machine sees it.
pub struct Now<'a> {
    /// Milliseconds by a clock that never jumps and that goes on over the restart of the sidecar's
    /// process: the time since boot.
    pub mono_ms: u64,
    /// Mints a claim id; each must be new.
    pub fresh: &'a mut dyn FnMut() -> ClaimId,
}

/// Which jobs a request wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Only jobs for this client or for any, in canonical form; every job when absent.
    pub client: Option<String>,
    /// Only jobs for this port or for any; every job when absent.
    pub port: Option<String>,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; see [`super::ClaimMachine::wake_at`].
    Tick,
    /// How jobs are taken from now on.
    Configured {
        /// Calls at a time.
        per_pod: u32,
        /// Grace of a restarted process, in milliseconds.
        recover_ms: u64,
    },
    /// This process is the plugin now.
    PluginStarted(StartId),
    /// It is gone.
    PluginEnded(StartId, Option<Exit>),
    /// Family `goPlugin`: whether the process takes calls.
    Callable(StartId, bool),
    /// An operator attached; the answer is [`super::ClaimMachine::ledger`]. Every earlier session is over.
    SessionOpened {
        /// Grows with every session.
        session: u64,
        /// Whether both sides know Jobs.
        jobs: bool,
    },
    /// That session is over.
    SessionClosed(u64),
    /// The operator of that session said this.
    Down(u64, Down),
    /// The plugin wants work.
    Request(RequestId, Filter),
    /// The connection of that request is gone; nothing was written to it.
    RequestGone(RequestId),
    /// The [`Effect::Deliver`] or [`Effect::Call`] with this count came too late or found nobody: the
    /// plugin did not see the job by it.
    NotDelivered(ClaimId, u32),
    /// A [`Effect::Deliver`] was not possible: the job does not fit the plugin.
    Unfit {
        claim: ClaimId,
        /// UnknownCommand or BadInputs.
        reason: &'static str,
        /// What was found, what was expected.
        message: String,
        /// Wall clock in milliseconds, for people.
        at_ms: u64,
    },
    /// A [`Effect::WriteEntry`] failed. What followed and needed it ([`Effect::needs`]) was not done.
    /// To be heard before anything else.
    NotWritten(ClaimId),
    /// The plugin gave a row; it lies in the spool.
    RowGiven(Box<RowGiven>),
    /// The plugin says that it works on the job. Answered with [`Effect::AnswerStatus`].
    Active(CallerId, String),
    /// The call of this claim went out.
    CallSent(ClaimId),
    /// The process is being stopped: it gets no further job, and may answer those that it has.
    Stopping(StartId),
    ShuttingDown,
}

/// Whose output a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowOwner {
    /// Of the newest claim of the Job with this uid.
    Job(String),
    Claim(ClaimId),
}

/// A row of output as it lies in the spool.
#[derive(Clone, Debug)]
pub struct RowGiven {
    /// Who waits for [`Effect::AnswerRow`].
    pub caller: CallerId,
    pub whose: RowOwner,
    pub id: RowId,
    /// Whether the plugin gave text.
    pub text: bool,
    /// Its file in the spool; absent for an empty row.
    pub spool: Option<u64>,
    /// Length of that file.
    pub kept: u64,
    /// What the plugin gave, cut or not.
    pub given: u64,
    /// Over all rows of the claim with this one, as far as they are not late.
    pub digest: Digest,
    /// Whether the job ends with it.
    pub end: RowEnd,
    /// Wall clock in milliseconds, for people.
    pub at_ms: u64,
}

/// What has to be done, in this order.
#[derive(Clone, Debug)]
// A handful at a time, each for a moment.
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// Must be durable before anything that follows is done.
    WriteEntry(Box<Entry>),
    /// Must be durable before anything that follows is done.
    RemoveEntry(ClaimId),
    /// A file of the spool is not needed any more.
    RemoveSpool(u64),
    /// There is no job for this request.
    AnswerNoWork(RequestId),
    /// The plugin gets the job, strictly before `before_ms` on the claim machine's clock.
    Deliver {
        request: RequestId,
        /// Last moment; `None` means any time.
        before_ms: Option<u64>,
        /// 1 the first time; the same request may get its job again.
        count: u32,
        entry: Box<Entry>,
    },
    /// The job's call is made, under the same condition.
    Call {
        /// Last moment; `None` means any time.
        before_ms: Option<u64>,
        entry: Box<Entry>,
    },
    /// The job's call is given up; no further row of it counts as one of a living job.
    CancelCall(ClaimId),
    AnswerRow(CallerId, RowAnswer),
    /// Answers [`Event::Active`]: the word for the plugin, `None` when the job is not known.
    AnswerStatus(CallerId, Option<&'static str>),
    /// To the operator.
    Send(Up),
    /// To the operator, in pieces out of the spool.
    SendRow(Box<SendRow>),
}

impl Effect {
    /// Whether it must not be done when this claim could not be written by the same call.
    pub fn needs(&self, claim: ClaimId) -> bool {
        let named = |name: &Option<ClaimName>| {
            name.as_ref()
                .is_some_and(|name| name.claim_id == claim.to_string())
        };
        match self {
            Effect::WriteEntry(entry)
            | Effect::Deliver { entry, .. }
            | Effect::Call { entry, .. } => entry.claim == claim,
            Effect::SendRow(row) => row.claim == claim,
            Effect::RemoveEntry(of) | Effect::CancelCall(of) => *of == claim,
            Effect::Send(Up::Lost(said)) => named(&said.claim),
            Effect::Send(Up::Started(said)) => named(&said.claim),
            Effect::Send(Up::ClaimReturned(said)) => named(&said.claim),
            // Said of the one claim that a call was about.
            Effect::AnswerRow(..) | Effect::AnswerStatus(..) | Effect::RemoveSpool(_) => true,
            Effect::Send(_) | Effect::AnswerNoWork(_) => false,
        }
    }
}

/// A row that has to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRow {
    pub claim: ClaimId,
    /// Uid of the Job.
    pub job_uid: String,
    /// Name of the Job.
    pub job: String,
    pub row: Row,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowAnswer {
    /// It is kept under this number.
    Kept {
        row: u32,
        /// Whether the job had ended before.
        late: bool,
    },
    /// The job is not known any more; the row is thrown away.
    Dropped,
    /// More than the job may give. The job fails with what came before, or has ended already.
    TooLarge,
}

/// Where a row could go, asked before its bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It is there already, or nobody wants it.
    Answered(RowAnswer),
    /// There is no room now; ask again when rows were stored.
    Full,
    /// For this number of bytes. The digest is what the row adds to.
    Bytes {
        most: u64,
        /// Of the rows before.
        digest: Digest,
    },
}
