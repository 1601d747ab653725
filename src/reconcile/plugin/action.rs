//! What shall be done, as data, and how it went.
//!
//! The operator executes the actions of a plan **in order** and stops at the first one whose
//! outcome is not [`Outcome::Done`]; the order carries meaning (finalizer, policy, Services,
//! identity, pods). `report` gets those that it executed, each with its outcome.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Puts the finalizer on the Plugin.
    AddFinalizer,
    /// Takes the finalizer off: the pods are gone.
    RemoveFinalizer,
    /// Creates an object by POST. When the answer is "already exists", the operator looks whose it
    /// is: ours (owner uid) is [`Outcome::Done`], anything else is [`Outcome::Taken`].
    Create(Child),
    /// Changes an object of ours. The body carries uid and resource version, so that it never
    /// creates and never overwrites what was not seen.
    Patch(ChildPatch),
    /// Deletes one pod, with its uid as precondition. "Not found" is done.
    DeletePod(DeletePod),
    /// Makes sure that the identity Secret of that name holds a usable leaf. Cheap when this
    /// process did so before.
    EnsureIdentity {
        /// Name of the Secret.
        secret: String,
    },
}

/// An object to create.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    Pod(Box<Pod>),
    Service(Box<Service>),
    NetworkPolicy(Box<NetworkPolicy>),
}

impl Child {
    pub const fn kind(&self) -> ChildKind {
        match self {
            Child::Pod(_) => ChildKind::Pod,
            Child::Service(_) => ChildKind::Service,
            Child::NetworkPolicy(_) => ChildKind::NetworkPolicy,
        }
    }

    pub fn name(&self) -> &str {
        let meta = match self {
            Child::Pod(pod) => &pod.metadata,
            Child::Service(service) => &service.metadata,
            Child::NetworkPolicy(policy) => &policy.metadata,
        };
        meta.name.as_deref().unwrap_or_default()
    }
}

/// Kind of a child object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    Pod,
    Service,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    Secret,
}

impl ChildKind {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildKind::Pod => "Pod",
            ChildKind::Service => "Service",
            ChildKind::NetworkPolicy => "NetworkPolicy",
            ChildKind::Secret => "Secret",
        }
    }
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildPatch {
    pub kind: ChildKind,
    pub name: String,
    /// How the body is to be read.
    pub format: PatchFormat,
    /// The patch, with `metadata.uid` and `metadata.resourceVersion`.
    pub body: Value,
    /// What it does and why, for the event and the log.
    pub why: Why,
}

/// Kind of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchFormat {
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// A pod to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletePod {
    pub name: String,
    /// Its uid, as precondition.
    pub uid: String,
    /// Grace period to send with the deletion; the pod's own when `None`.
    pub grace_seconds: Option<u32>,
    pub why: Why,
}

/// Why something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// A word of the catalogue.
    pub reason: patchbay_api::Reason,
    /// A sentence for people.
    pub message: String,
}

/// What `desire` decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// Sidecars to hold a session with, and nothing else of this Plugin.
    pub session_targets: Vec<SessionTarget>,
    /// What each living pod still needs, for status.
    pub pending: Vec<super::change::PodChange>,
    /// When to look again although nothing happened.
    pub wake_at: Option<Timestamp>,
}

/// A sidecar that the operator shall dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTarget {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod: String,
    pub ip: String,
    /// Revision of the document below.
    pub revision: u64,
    /// The document in the pod's annotation, as it was observed: the annotation is written first.
    pub config: String,
    /// Whether the plugin may be started in this sandbox.
    pub allow_start: bool,
}

/// How one action went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// An object of that name is somebody else's.
    Taken,
    /// The API server refuses it and will refuse it again until somebody changes something
    /// (400, 403, 422).
    Refused {
        /// The API server's words; foreign.
        message: String,
    },
    /// It may work next time: a conflict, a time-out, no connection. The operator backs off.
    Failed {
        message: String,
    },
}

/// How a plan went: the actions that were executed, in order, each with its outcome. Only the last
/// may be something else than done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied<'a>(pub Vec<(&'a Action, Outcome)>);
