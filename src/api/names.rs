//! Every name that appears in a cluster because of us: groups, labels, annotations, names of
//! children and ports. Made here once, so that nobody formats a name by hand.

use std::fmt;

/// API group of all kinds.
pub const GROUP: &str = "patchbay.dev";
/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Label that says who looks after an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on everything of ours; also our name as field manager.
pub const MANAGED_BY: &str = "patchbay";
/// Label with the name of the Plugin that a child belongs to.
pub const PLUGIN_LABEL: &str = "patchbay.dev/plugin";
/// Label with the ordinal of a pod, from 0 to replicas - 1.
pub const ORDINAL_LABEL: &str = "patchbay.dev/ordinal";
/// Label with the name of the Job that a JobOutput belongs to.
pub const JOB_LABEL: &str = "patchbay.dev/job";
/// Label with the name of the Job whose work a Job does again.
pub const RETRY_OF_LABEL: &str = "patchbay.dev/retry-of";
/// Annotation that asks for the end of a Job; its value says who asks.
pub const CANCEL_ANNOTATION: &str = "patchbay.dev/cancel";

/// Annotation with the document that the sidecar reads through the downward API.
pub const CONFIG_ANNOTATION: &str = "patchbay.dev/config";
/// Annotation with what a pod was built from: the contract's version and one hash per class of
/// change.
pub const BUILT_ANNOTATION: &str = "patchbay.dev/built";
/// Annotation that makes `kubectl logs` and `kubectl exec` choose the plugin's container.
pub const DEFAULT_CONTAINER_ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Finalizer of a Plugin: its pods are gone before its policy is.
pub const FINALIZER: &str = "patchbay.dev/stop";
/// Type of the Secrets that hold identities.
pub const IDENTITY_SECRET_TYPE: &str = "patchbay.dev/identity";
/// Names of identity Secrets begin with this; nobody may mount or read such a Secret.
pub const IDENTITY_PREFIX: &str = "pb-id-";
/// Keys of an identity Secret: chain, key, and the installation's authority, all PEM.
pub const IDENTITY_KEYS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
/// Names of the volumes that we add to a pod begin with this.
pub const VOLUME_PREFIX: &str = "patchbay-";

/// The native sidecar's container.
pub const SIDECAR_CONTAINER: &str = "sidecar";
/// The plugin's container.
pub const PLUGIN_CONTAINER: &str = "plugin";

/// Session between operator and sidecar.
pub const SESSION_PORT: u16 = 7443;
/// Calls of client programs.
pub const PROXY_PORT: u16 = 7444;
/// The operator's canary.
pub const CANARY_PORT: u16 = 7445;

/// Longest name of a Plugin: names of children, labels and host names are made from it.
pub const MAX_PLUGIN_NAME: usize = 48;

/// Name of the object that holds a piece of a Job's output. Attempts have one digit or two, rows
/// and pieces are bounded by the limit of output, so it has at most 63 characters.
pub fn job_output_name(job: &str, attempt: i32, row: i32, chunk: i32) -> String {
    format!("{job}-{attempt}-{row}-{chunk}")
}

/// Name of a Plugin: DNS-1035, at most [`MAX_PLUGIN_NAME`] characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(String);

/// A name that cannot be a Plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    found: String,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "metadata.name is {:?}; expected at most {MAX_PLUGIN_NAME} characters of a-z, 0-9 and -, \
             beginning with a letter and ending with a letter or digit",
            self.found.chars().take(64).collect::<String>()
        )
    }
}

impl std::error::Error for BadName {}

impl PluginName {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is not DNS-1035 or too long.
    pub fn parse(name: &str) -> Result<Self, BadName> {
        let alphabet = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if alphabet && begins && !name.ends_with('-') && name.len() <= MAX_PLUGIN_NAME {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadName {
                found: name.to_owned(),
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Secret with the identity of the plugin's sidecars.
    pub fn identity_secret(&self) -> String {
        format!("{IDENTITY_PREFIX}{}", self.0)
    }

    /// Service that client programs call.
    pub fn service(&self) -> String {
        self.0.clone()
    }

    /// Headless Service: one address per pod, ready or not.
    pub fn headless_service(&self) -> String {
        format!("{}-pods", self.0)
    }

    /// NetworkPolicy of the plugin's pods.
    pub fn network_policy(&self) -> String {
        format!("pb-net-{}", self.0)
    }

    /// Selector of the plugin's pods, as text for the scale subresource.
    pub fn pod_selector(&self) -> String {
        format!("{MANAGED_BY_LABEL}={MANAGED_BY},{PLUGIN_LABEL}={}", self.0)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of one pod: which replica, and the how manieth pod of that replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Whose pod.
    pub plugin: PluginName,
    /// From 0 to replicas - 1.
    pub ordinal: u16,
    /// Counts the pods of this ordinal, from 1.
    pub incarnation: u32,
}

impl PodName {
    /// Reads the name of a pod of `plugin`; `None` when it is not one of ours.
    pub fn parse(plugin: &PluginName, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(plugin.as_str())?.strip_prefix('-')?;
        let (ordinal, incarnation) = rest.split_once('-')?;
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(ordinal) || !digits(incarnation) {
            return None;
        }
        Some(Self {
            plugin: plugin.clone(),
            ordinal: ordinal.parse().ok()?,
            incarnation: incarnation.parse().ok()?,
        })
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.plugin, self.ordinal, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_outside_dns_1035_is_rejected_and_shown_in_the_message() {
        for bad in ["", "9kv", "-kv", "kv-", "Kv", "k_v", "k.v", &"a".repeat(49)] {
            let error = PluginName::parse(bad).expect_err(bad);
            assert!(error.to_string().starts_with("metadata.name is"), "{error}");
        }
        assert!(PluginName::parse(&"a".repeat(48)).is_ok());
    }

    #[test]
    fn longest_names_fit_into_63_characters() {
        let plugin = PluginName::parse(&"a".repeat(48)).expect("a good name");
        let pod = PodName {
            plugin: plugin.clone(),
            ordinal: 199,
            incarnation: u32::MAX,
        };
        for name in [
            pod.to_string(),
            plugin.identity_secret(),
            plugin.headless_service(),
            plugin.network_policy(),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
    }

    #[test]
    fn pod_name_parses_back_and_other_names_do_not() {
        let plugin = PluginName::parse("kv-1").expect("a good name");
        let pod = PodName {
            plugin: plugin.clone(),
            ordinal: 2,
            incarnation: 17,
        };
        assert_eq!(PodName::parse(&plugin, &pod.to_string()), Some(pod));
        for foreign in [
            "kv-1",
            "kv-1-2",
            "kv-1-2-",
            "kv-1-x-1",
            "kv-1-2-3-4",
            "kv-2-1",
            "kv-1-+2-1",
        ] {
            assert_eq!(PodName::parse(&plugin, foreign), None, "{foreign}");
        }
    }
}
