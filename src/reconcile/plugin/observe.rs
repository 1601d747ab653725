//! What the operator saw. It fills [`Observed`] from its stores and sessions; nothing else enters
//! a decision.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use patchbay_api::plugin_status::AdvertisedCommand;
use patchbay_api::{FamilySpec, Plugin};
use std::collections::BTreeMap;

/// Everything about one Plugin at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object, with its last known status.
    pub plugin: Plugin,
    /// Every pod of the namespace that carries the label of this Plugin, with any owner.
    pub pods: Vec<Pod>,
    /// The Services `<plugin>` and `<plugin>-pods` as far as they are known, with any owner.
    pub services: Vec<Service>,
    /// The NetworkPolicy of this Plugin as far as it is known, with any owner.
    pub network_policies: Vec<NetworkPolicy>,
    pub identity: Identity,
    /// Warnings of the kubelet about our pods that do not stand in a pod's status, such as
    /// FailedMount. May be empty.
    pub pod_events: Vec<PodEvent>,
    /// Last word of each sidecar, by the pod's uid.
    pub sessions: BTreeMap<String, Session>,
    pub settings: Settings,
    /// The moment of this look.
    pub now: Timestamp,
}

impl Observed {
    /// The family that the spec names; `None` when it names none.
    pub fn family(&self) -> Option<FamilySpec> {
        self.plugin.spec.protocol.family_spec()
    }
}

/// State of the identity Secret. The operator may not read Secrets: it knows what it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Not written by this process yet; `desire` asks for it before the first pod.
    #[default]
    Unknown,
    /// In place and fresh enough.
    InPlace,
    /// A Secret of that name is somebody else's.
    Taken,
}

/// A warning about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Reason of the event, such as FailedMount.
    pub reason: String,
    pub message: String,
}

/// What is known of one sidecar. Strings are bounded and escaped on receipt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Whether the session is open now.
    pub attached: bool,
    /// Why the last dial failed; `None` while attached and before the first failure.
    pub trouble: Option<String>,
    /// The last picture of the plugin instance. Stays when the session breaks.
    pub instance: Option<Instance>,
}

/// A picture of a plugin instance: the session's message `Instance`.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// What it is doing.
    pub phase: Phase,
    /// One word of the catalogue, or empty.
    pub reason: String,
    pub message: String,
    /// Names one start; empty before the first.
    pub start_id: String,
    /// When that start was.
    pub started_at: Option<Timestamp>,
    /// How often the plugin was started again in this container.
    pub restarts: u32,
    /// How the process before it ended.
    pub last_exit: Option<Exit>,
    pub handshake: Option<Handshake>,
    pub services: Vec<String>,
    /// How many are left out.
    pub services_omitted: u32,
    /// Why the list is empty; may be empty itself.
    pub services_note: String,
    /// Commands that a PCP controller plugin advertises.
    pub commands: Vec<AdvertisedCommand>,
    /// How many are left out.
    pub commands_omitted: u32,
    /// Revision of the configuration in force.
    pub revision: u64,
    /// When the next start happens, while backing off.
    pub next_start: Option<Timestamp>,
    /// Notes that do not hinder readiness.
    pub warnings: Vec<String>,
}

/// Phase of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The launcher does not answer yet. Also what an unknown phase is read as.
    WaitingForLauncher,
    Held,
    /// Started, not handshaken.
    Starting,
    Ready,
    /// Handshaken and unhealthy.
    Unhealthy,
    /// Ended or failed.
    BackingOff,
    Stopping,
}

/// End of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Code or signal.
    pub how: ExitHow,
    /// Which step ended it: Itself, Shutdown, Term or Kill.
    pub ended_by: String,
}

/// Code or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitHow {
    Code(i32),
    /// It was ended by a signal.
    Signal(i32),
    /// The sidecar did not say.
    Unknown,
}

/// Outcome of a handshake.
#[derive(Clone, Debug, PartialEq)]
pub struct Handshake {
    pub core_version: u32,
    pub app_version: u32,
    pub offered: Vec<u32>,
    /// unix or tcp.
    pub transport: String,
    /// With the protocol's version.
    pub tls: String,
    /// From process start to the line.
    pub seconds: f64,
}

/// The installation that this operator belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Image of the sidecar.
    pub sidecar_image: String,
    /// When the kubelet pulls it: Always, IfNotPresent or Never.
    pub sidecar_pull_policy: String,
    /// Requests and limits of every sidecar; [`default_sidecar_resources`] unless the
    /// installation says otherwise.
    pub sidecar_resources: ResourceRequirements,
    /// Namespace of the operator's pods.
    pub operator_namespace: String,
    /// Labels that select the operator's pods, and nothing else there.
    pub operator_labels: BTreeMap<String, String>,
    /// Unique name of the installation; part of every identity.
    pub installation: String,
    /// Prefixes of pod labels that a Plugin may set, such as `team.example/`. Default none.
    pub label_prefixes: Vec<String>,
}

/// Requests and limits of a sidecar when the installation names none.
pub fn default_sidecar_resources() -> ResourceRequirements {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    let amounts = |cpu: &str, memory: &str| {
        Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ]))
    };
    ResourceRequirements {
        requests: amounts("10m", "16Mi"),
        // One core is all that a program on one thread can use.
        limits: amounts("1", "128Mi"),
        claims: None,
    }
}
