//! One pod, as its line in status: what the kubelet, the sidecar and our own last word say of it,
//! weighed against each other.

use super::kubelet::{self, Trouble};
use super::observe::{ExitHow, Handshake, Instance, Observed, Phase, Session};
use super::our_pod::OurPod;
use crate::family;
use crate::text::cut;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use patchbay_api::Reason;
use patchbay_api::names::{PLUGIN_CONTAINER, SIDECAR_CONTAINER};
use patchbay_api::plugin_status::{HandshakeStatus, InstanceState, InstanceStatus, MAX_MESSAGE};

/// A pod and what is to be thought of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessed {
    /// Its line in status.
    pub line: InstanceStatus,
    /// Why it does not answer calls; `None` when it does.
    pub reason: Option<Reason>,
    /// Whether its present process has finished its handshake.
    pub handshaken: bool,
    /// Whether it was told to go.
    pub terminating: bool,
    /// A flaw of something that works.
    pub flaw: Option<Trouble>,
}

impl Assessed {
    /// Whether it answers calls.
    pub fn ready(&self) -> bool {
        self.reason.is_none()
    }
}

/// Weighs one pod.
pub fn assess(observed: &Observed, pod: &OurPod<'_>) -> Assessed {
    let session = observed.sessions.get(&pod.uid);
    let before = observed
        .plugin
        .status
        .iter()
        .flat_map(|status| &status.instances)
        .find(|line| line.pod_uid == pod.uid);
    let verdict = judge(observed, pod, session, before);
    let mut line = InstanceStatus {
        pod: pod.name.to_string(),
        pod_uid: pod.uid.clone(),
        ordinal: i32::from(pod.name.ordinal),
        start_id: None,
        started_at: None,
        restarts: 0,
        last_exit: None,
        sidecar_image: kubelet::image(pod.pod, SIDECAR_CONTAINER),
        plugin_image: kubelet::image(pod.pod, PLUGIN_CONTAINER),
        handshake: None,
        state: verdict.state,
        reason: verdict
            .reason
            .map(|r| r.as_str().to_owned())
            .unwrap_or_default(),
        message: cut(&verdict.message, MAX_MESSAGE),
    };
    match session.and_then(|session| session.instance.as_ref()) {
        Some(instance) => describe(&mut line, instance),
        // After the operator was away its own last word counts until the sidecar speaks again.
        None => {
            if let Some(before) = before {
                remember(&mut line, before);
            }
        }
    }
    Assessed {
        line,
        reason: verdict.reason,
        handshaken: verdict.handshaken,
        terminating: pod.terminating(),
        flaw: flaw(observed, pod, session, &verdict),
    }
}

struct Verdict {
    state: InstanceState,
    /// `None` when it answers calls.
    reason: Option<Reason>,
    message: String,
    handshaken: bool,
}

impl Verdict {
    fn new(state: InstanceState, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            state,
            reason: Some(reason),
            message: message.into(),
            handshaken: false,
        }
    }
}

fn judge(
    observed: &Observed,
    pod: &OurPod<'_>,
    session: Option<&Session>,
    before: Option<&InstanceStatus>,
) -> Verdict {
    if pod.finished() {
        return Verdict::new(
            InstanceState::Failed,
            Reason::PodFailed,
            kubelet::end_of(pod.pod),
        );
    }
    if pod.terminating() {
        return Verdict::new(
            InstanceState::Stopping,
            Reason::Stopping,
            "the pod is being deleted",
        );
    }
    let ready = pod.ready();
    let spoken = session.and_then(|session| session.instance.as_ref());
    let trouble = || kubelet::trouble(pod.pod, &pod.uid, &observed.pod_events);
    if let Some(instance) = spoken.filter(|_| session.is_some_and(|s| s.attached)) {
        // A sidecar without a launcher waits for the kubelet, which alone knows why.
        return match trouble().filter(|_| instance.phase == Phase::WaitingForLauncher) {
            Some(Trouble { reason, message }) => {
                Verdict::new(InstanceState::Pending, reason, message)
            }
            None => attached(instance, ready),
        };
    }
    if ready {
        let known = observed
            .family()
            .is_some_and(|spec| family::of(&spec).handshake_known(spoken, before));
        return Verdict {
            state: InstanceState::Ready,
            reason: None,
            message: String::new(),
            handshaken: known,
        };
    }
    if let Some(Trouble { reason, message }) = trouble() {
        // A sidecar that cannot come up says nothing about the plugin beside it.
        let state = if spoken.is_some() {
            InstanceState::Unknown
        } else {
            InstanceState::Pending
        };
        return Verdict::new(state, reason, message);
    }
    match (session.and_then(|s| s.trouble.as_deref()), spoken) {
        (Some(trouble), Some(_)) => Verdict::new(
            InstanceState::Unknown,
            Reason::SessionLost,
            format!("the operator cannot reach the sidecar any more: {trouble}"),
        ),
        (None, Some(_)) => Verdict::new(
            InstanceState::Unknown,
            Reason::WaitingForSession,
            "the operator is about to reach the sidecar again",
        ),
        (Some(trouble), None) if kubelet::running(pod.pod, SIDECAR_CONTAINER) => Verdict::new(
            InstanceState::Pending,
            Reason::WaitingForSession,
            format!("the operator has not reached the sidecar yet: {trouble}"),
        ),
        _ if kubelet::running(pod.pod, SIDECAR_CONTAINER) => Verdict::new(
            InstanceState::Pending,
            Reason::WaitingForSession,
            "the sidecar runs and the operator is about to reach it",
        ),
        _ => Verdict::new(
            InstanceState::Pending,
            Reason::PodPending,
            "the pod's containers are not up yet",
        ),
    }
}

/// The sidecar speaks: it knows best, but calls arrive only when the kubelet agrees.
fn attached(instance: &Instance, pod_ready: bool) -> Verdict {
    let said = if instance.reason.is_empty() {
        None
    } else {
        Some(Reason::parse(&instance.reason).unwrap_or(Reason::UnknownReason))
    };
    let mut message = instance.message.clone();
    if said == Some(Reason::UnknownReason) {
        message = format!("{}: {message}", instance.reason);
    }
    let (state, usual, handshaken) = match instance.phase {
        Phase::WaitingForLauncher => (InstanceState::Pending, Reason::WaitingForLauncher, false),
        Phase::Held => (InstanceState::Held, Reason::WaitingForRelease, false),
        Phase::Starting => (InstanceState::Starting, Reason::Starting, false),
        Phase::Unhealthy => (InstanceState::Unhealthy, Reason::Unhealthy, true),
        Phase::BackingOff => (InstanceState::BackingOff, Reason::Crashed, false),
        Phase::Stopping => (InstanceState::Stopping, Reason::Stopping, false),
        Phase::Ready if pod_ready => {
            return Verdict {
                state: InstanceState::Ready,
                reason: None,
                message: if message.is_empty() {
                    instance.warnings.join("; ")
                } else {
                    message
                },
                handshaken: true,
            };
        }
        Phase::Ready => {
            return Verdict {
                state: InstanceState::Starting,
                reason: Some(Reason::Starting),
                message: "the plugin is ready and the kubelet has not seen it yet".to_owned(),
                handshaken: true,
            };
        }
    };
    let reason = said.unwrap_or(usual);
    if message.is_empty() {
        message = reason.sentence().to_owned();
    }
    Verdict {
        state,
        reason: Some(reason),
        message,
        handshaken,
    }
}

fn flaw(
    observed: &Observed,
    pod: &OurPod<'_>,
    session: Option<&Session>,
    verdict: &Verdict,
) -> Option<Trouble> {
    let lost = session
        .filter(|session| !session.attached && session.instance.is_some())
        .and_then(|session| session.trouble.as_deref());
    if let (None, Some(trouble)) = (verdict.reason, lost) {
        return Some(Trouble {
            reason: Reason::SessionLost,
            message: format!(
                "pod {} is ready and the operator cannot reach its sidecar: {trouble}",
                pod.name
            ),
        });
    }
    let instance = session.and_then(|session| session.instance.as_ref());
    if let (None, Some(instance)) = (verdict.reason, instance)
        && !instance.warnings.is_empty()
        && observed
            .family()
            .is_some_and(|spec| family::of(&spec).warnings_degrade())
    {
        return Some(Trouble {
            reason: Reason::Warned,
            message: format!("pod {}: {}", pod.name, instance.warnings.join("; ")),
        });
    }
    // Three starts in vain are no accident.
    let restarts = instance.map_or(0, |i| i.restarts);
    (verdict.state == InstanceState::BackingOff && restarts >= 3).then(|| Trouble {
        reason: Reason::CrashLoop,
        message: format!(
            "pod {}: the plugin was started {} times; {}",
            pod.name,
            restarts + 1,
            verdict.message
        ),
    })
}

fn describe(line: &mut InstanceStatus, instance: &Instance) {
    line.start_id = (!instance.start_id.is_empty()).then(|| instance.start_id.clone());
    line.started_at = instance.started_at.map(Time);
    line.restarts = i64::from(instance.restarts);
    line.last_exit = instance.last_exit.as_ref().map(|exit| {
        let how = match exit.how {
            ExitHow::Code(code) => format!("exit {code}"),
            ExitHow::Signal(signal) => format!("signal {signal}"),
            ExitHow::Unknown => "unknown".to_owned(),
        };
        match exit.ended_by.as_str() {
            "" | "Itself" => how,
            by => format!("{how} (by {by})"),
        }
    });
    line.handshake = instance.handshake.as_ref().map(handshake);
}

fn remember(line: &mut InstanceStatus, before: &InstanceStatus) {
    line.start_id.clone_from(&before.start_id);
    line.started_at.clone_from(&before.started_at);
    line.restarts = before.restarts;
    line.last_exit.clone_from(&before.last_exit);
    line.handshake.clone_from(&before.handshake);
    if line.state == InstanceState::Ready && before.state == InstanceState::Ready {
        line.message.clone_from(&before.message);
    }
}

/// A handshake as it stands in status. Seconds to the millisecond: more would be noise.
fn handshake(handshake: &Handshake) -> HandshakeStatus {
    HandshakeStatus {
        core_version: i64::from(handshake.core_version),
        app_version: i64::from(handshake.app_version),
        offered: unique(&handshake.offered),
        transport: handshake.transport.clone(),
        tls: handshake.tls.clone(),
        seconds: (handshake.seconds * 1000.0).round() / 1000.0,
    }
}

/// The list is a set in the schema; a sidecar's mistake must not make status unwritable.
fn unique(offered: &[u32]) -> Vec<i64> {
    let set: std::collections::BTreeSet<i64> = offered.iter().copied().map(i64::from).collect();
    set.into_iter().take(16).collect()
}
