//! Security contexts: Pod Security Standard "restricted" and the same user in both containers.

use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};
use patchbay_api::plugin::PodSecurity;

/// Of the pod: ids of both containers.
pub fn of_pod(ids: &PodSecurity) -> PodSecurityContext {
    PodSecurityContext {
        run_as_user: ids.run_as_user,
        run_as_group: ids.run_as_group,
        fs_group: ids.fs_group,
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// Of the sidecar: it writes into its volumes and nowhere else.
pub fn of_sidecar() -> SecurityContext {
    SecurityContext {
        read_only_root_filesystem: Some(true),
        ..of_plugin()
    }
}

/// Of the plugin. Its root file system stays writable: plugins of others expect that.
pub fn of_plugin() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}
