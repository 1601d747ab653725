//! What a pod's status says, in our words: the kubelet's reasons become ours, its messages stay
//! its own (and foreign).

use super::observe::PodEvent;
use crate::text::untrusted_text;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use patchbay_api::Reason;
use patchbay_api::names::{IDENTITY_PREFIX, PLUGIN_CONTAINER, SIDECAR_CONTAINER};

/// Something that keeps a pod from working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In our words.
    pub reason: Reason,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl Trouble {
    fn new(reason: Reason, message: String) -> Option<Self> {
        Some(Self { reason, message })
    }
}

/// Whether the pod's condition Ready is true.
pub fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _, _)| status == "True")
}

/// How often a container was started again. 0 while nothing is known.
pub fn restarts(pod: &Pod, container: &str) -> i32 {
    status_of(pod, container).map_or(0, |status| status.restart_count)
}

/// Whether a container runs.
pub fn running(pod: &Pod, container: &str) -> bool {
    status_of(pod, container)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.running.is_some())
}

/// Why a pod ended for good.
pub fn end_of(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Failed");
    let reason = status.and_then(|s| s.reason.as_deref()).unwrap_or_default();
    let message = status
        .and_then(|s| s.message.as_deref())
        .unwrap_or_default();
    let mut text = format!("it is {}", untrusted_text(phase));
    if !reason.is_empty() {
        text.push_str(&format!(" ({})", untrusted_text(reason)));
    }
    if !message.is_empty() {
        text.push_str(&format!(": {}", untrusted_text(message)));
    }
    text
}

/// The first thing that keeps the pod from working, in the order of a pod's life. `None` when the
/// kubelet sees nothing wrong.
pub fn trouble(pod: &Pod, uid: &str, events: &[PodEvent]) -> Option<Trouble> {
    unschedulable(pod)
        .or_else(|| container_trouble(pod, SIDECAR_CONTAINER))
        .or_else(|| container_trouble(pod, PLUGIN_CONTAINER))
        .or_else(|| mount_trouble(pod, uid, events))
}

fn unschedulable(pod: &Pod) -> Option<Trouble> {
    let (status, reason, message) = condition(pod, "PodScheduled")?;
    if status != "False" || reason != "Unschedulable" {
        return None;
    }
    Trouble::new(
        Reason::Unschedulable,
        format!("no node takes the pod: {}", untrusted_text(&message)),
    )
}

fn container_trouble(pod: &Pod, container: &str) -> Option<Trouble> {
    let status = status_of(pod, container)?;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let words = untrusted_text(waiting.message.as_deref().unwrap_or_default());
    let sidecar = container == SIDECAR_CONTAINER;
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            let image = untrusted_text(&image(pod, container));
            let words = pull_words(&words);
            if sidecar {
                Trouble::new(
                    Reason::SidecarImagePullFailed,
                    format!(
                        "the sidecar's image {image} cannot be pulled: {words}; make it available to the nodes"
                    ),
                )
            } else {
                Trouble::new(
                    Reason::ImagePullFailed,
                    format!(
                        "the image {image} cannot be pulled: {words}; correct spec.image or add spec.pod.imagePullSecrets"
                    ),
                )
            }
        }
        "CreateContainerConfigError" => reference_trouble(&words).or_else(|| {
            Trouble::new(
                Reason::ContainerConfigError,
                format!("the kubelet cannot make the container {container}: {words}"),
            )
        }),
        "CreateContainerError" | "RunContainerError" | "StartError" | "PostStartHookError" => {
            Trouble::new(
                if sidecar {
                    Reason::SidecarCrashed
                } else {
                    Reason::ContainerStartFailed
                },
                format!("the container {container} cannot be started ({reason}): {words}"),
            )
        }
        "CrashLoopBackOff" => Trouble::new(
            if sidecar {
                Reason::SidecarCrashed
            } else {
                Reason::ContainerCrashed
            },
            format!(
                "the container {container} ended {} times, at last {}; read `kubectl logs -c {container} --previous`",
                status.restart_count,
                last_end(status)
            ),
        ),
        _ => None,
    }
}

/// The kubelet says the same thing in two wordings by turns, while it pulls and while it waits.
fn pull_words(words: &str) -> &str {
    words
        .split_once("ErrImagePull: ")
        .map_or(words, |(_, cause)| cause)
}

/// Volumes that cannot be mounted stand in events only; the pod just waits.
fn mount_trouble(pod: &Pod, uid: &str, events: &[PodEvent]) -> Option<Trouble> {
    if running(pod, SIDECAR_CONTAINER) {
        return None;
    }
    let event = events
        .iter()
        .rev()
        .find(|event| event.pod_uid == uid && event.reason == "FailedMount")?;
    let words = untrusted_text(&event.message);
    reference_trouble(&words).or_else(|| {
        Trouble::new(
            Reason::ContainerConfigError,
            format!("a volume of the pod cannot be mounted: {words}"),
        )
    })
}

/// Finds the missing Secret or ConfigMap in the kubelet's words. These are, as seen:
/// `secret "x" not found`, `configmap "x" not found`, `couldn't find key k in Secret ns/x`,
/// `references non-existent secret key: k`.
fn reference_trouble(words: &str) -> Option<Trouble> {
    let lower = words.to_ascii_lowercase();
    for (marker, kind, reason) in [
        ("secret \"", "Secret", Reason::SecretMissing),
        ("configmap \"", "ConfigMap", Reason::ConfigMapMissing),
    ] {
        let found = lower.match_indices(marker).find_map(|(at, _)| {
            let rest = words.get(at + marker.len()..)?;
            let (name, after) = rest.split_once('"')?;
            after
                .trim_start()
                .starts_with("not found")
                .then(|| name.to_owned())
        });
        if let Some(name) = found {
            if name.starts_with(IDENTITY_PREFIX) {
                return Trouble::new(
                    Reason::WaitingForIdentity,
                    format!("the Secret {name} with the plugin's certificate is not there yet"),
                );
            }
            return Trouble::new(
                reason,
                format!(
                    "the {kind} {name} does not exist in this namespace; create it, or correct the name in the Plugin (kubelet: {words})"
                ),
            );
        }
    }
    let key = [
        "couldn't find key",
        "couldn't find secret key",
        "references non-existent secret key",
        "references non-existent config key",
    ]
    .iter()
    .any(|marker| lower.contains(marker));
    if key {
        return Trouble::new(
            Reason::KeyMissing,
            format!(
                "a Secret or ConfigMap lacks a key that the Plugin names; add it, or correct the key in the Plugin (kubelet: {words})"
            ),
        );
    }
    None
}

fn last_end(status: &ContainerStatus) -> String {
    let Some(end) = status
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
    else {
        return "for an unknown reason".to_owned();
    };
    let reason = untrusted_text(end.reason.as_deref().unwrap_or("Error"));
    match end.signal.filter(|signal| *signal != 0) {
        Some(signal) => format!("by signal {signal} ({reason})"),
        None => format!("with exit code {} ({reason})", end.exit_code),
    }
}

/// The image that the pod's spec names for a container.
pub fn image(pod: &Pod, container: &str) -> String {
    pod.spec
        .iter()
        .flat_map(|spec| {
            spec.init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
        })
        .find(|c| c.name == container)
        .and_then(|c| c.image.clone())
        .unwrap_or_default()
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .find(|status| status.name == container)
}

fn condition(pod: &Pod, type_: &str) -> Option<(String, String, String)> {
    let condition = pod
        .status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == type_)?;
    Some((
        condition.status.clone(),
        condition.reason.clone().unwrap_or_default(),
        condition.message.clone().unwrap_or_default(),
    ))
}
