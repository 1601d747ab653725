//! The rules of a Plugin in CEL. Each message names the field, what was found, what is expected
//! and what to do. Every rule has an accepted and a rejected example in `rules_tests`.
//!
//! Two facts shape them. A missing required field keeps the API server from evaluating any rule,
//! so fields whose absence deserves a sentence are optional in the schema. And each rule has a
//! budget that is estimated from the bounds of the fields it reads. Messages have the same budget:
//! the API server takes the text of a number for endless, so messages about numbers are fixed.

use crate::family::Family;
use crate::schema::{rule, telling};
use serde_json::{Value, json};

/// On the object itself.
pub(crate) const NAME: &str =
    "size(self.metadata.name) <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
/// What [`NAME`] says.
pub(crate) const NAME_MESSAGE: &str = "'metadata.name is ' + self.metadata.name + '; expected at most 48 characters of a-z, 0-9 and -, beginning with a letter, because names of pods and Services are made from it: choose a shorter or simpler name'";

/// Names that belong to the handshake; the sidecar sets them.
pub(crate) const RESERVED: &str = "['PLUGIN_MIN_PORT', 'PLUGIN_MAX_PORT', 'PLUGIN_PROTOCOL_VERSIONS', 'PLUGIN_CLIENT_CERT', 'PLUGIN_MULTIPLEX_GRPC', 'PLUGIN_UNIX_SOCKET_DIR', 'PLUGIN_UNIX_SOCKET_GROUP', 'TMPDIR']";

pub(super) fn spec() -> Value {
    let mut rules = vec![
        rule(
            "has(self.command) && size(self.command) > 0 && size(self.command[0]) > 0",
            "spec.command is empty; expected the program and its arguments, because the launcher starts it and cannot read the image's ENTRYPOINT: copy ENTRYPOINT from the image's documentation",
        ),
        rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.pod.volumes) && self.pod.volumes.exists(v, v.name == m.name))",
            "spec.volumeMounts names a volume that spec.pod.volumes does not contain: add it or correct the name",
        ),
    ];
    rules.extend(Family::ALL.into_iter().flat_map(Family::spec_rules));
    Value::Array(rules)
}

pub(super) fn env_item() -> Value {
    json!([
        telling(
            &format!("!(self.name in {RESERVED})"),
            "'env sets ' + self.name + ', which the sidecar sets for the handshake; expected another name: remove it'",
            "env sets a variable that the sidecar sets for the handshake: remove it",
        ),
        rule(
            "!has(self.valueFrom) || !has(self.valueFrom.secretKeyRef) || !self.valueFrom.secretKeyRef.name.startsWith('pb-id-')",
            "env reads a Secret whose name begins with pb-id-; expected a Secret of your own, because those hold identities of Patchbay: use another Secret",
        ),
    ])
}

pub(super) fn env_from_item() -> Value {
    json!([
        rule(
            "!has(self.secretRef) || !self.secretRef.name.startsWith('pb-id-')",
            "envFrom reads a Secret whose name begins with pb-id-; expected a Secret of your own, because those hold identities of Patchbay: use another Secret",
        ),
        rule(
            "has(self.configMapRef) != has(self.secretRef)",
            "envFrom sets both configMapRef and secretRef, or neither; expected exactly one of configMapRef and secretRef: keep one",
        ),
        telling(
            "!has(self.prefix) || !self.prefix.startsWith('PLUGIN_')",
            "'envFrom has the prefix ' + self.prefix + '; expected one that does not begin with PLUGIN_, because the handshake uses such names: choose another prefix'",
            "envFrom has a prefix that the handshake uses: choose another prefix",
        ),
    ])
}

pub(super) fn volume_mount_item() -> Value {
    json!([
        telling(
            "self.mountPath.matches('^(/[^/:]+)+$') && !self.mountPath.matches('/[.][.]?(/|$)')",
            "'mountPath is ' + self.mountPath + '; expected an absolute path without empty parts, dots, colons or a slash at its end: remove them'",
            "mountPath is not an absolute path without empty parts, dots, colons or a slash at its end: correct it",
        ),
        telling(
            "self.mountPath != '/patchbay' && !self.mountPath.startsWith('/patchbay/') && self.mountPath != '/tmp'",
            "'mountPath is ' + self.mountPath + '; expected a path that is neither /tmp nor beneath /patchbay, because the pod already has volumes there: choose another path'",
            "mountPath is /tmp or beneath /patchbay, where the pod already has volumes: choose another path",
        ),
    ])
}

pub(super) fn checksum() -> Value {
    json!([
        telling(
            "self.path.startsWith('/')",
            "'path is ' + self.path + '; expected an absolute path in the plugin container: begin it with /'",
            "path is not absolute: begin it with /",
        ),
        telling(
            "self.sha256.matches('^[0-9a-f]{64}$')",
            "'sha256 is ' + self.sha256 + '; expected 64 lower-case hexadecimal digits without a prefix: copy what sha256sum prints'",
            "sha256 is not 64 lower-case hexadecimal digits: copy what sha256sum prints",
        ),
    ])
}

pub(super) fn scratch() -> Value {
    json!([telling(
        "isQuantity(self.sizeLimit) && quantity(self.sizeLimit).isGreaterThan(quantity('0'))",
        "'sizeLimit is ' + self.sizeLimit + '; expected a positive quantity such as 64Mi: correct it'",
        "sizeLimit is not a positive quantity such as 64Mi: correct it",
    )])
}

pub(super) fn protocol() -> Value {
    let present = Family::ALL.map(|family| format!("has(self.{})", family.as_str()));
    let expected = Family::ALL.map(Family::expected);
    json!([rule(
        &format!("[{}].exists_one(present, present)", present.join(", ")),
        &format!(
            "spec.protocol has no key or more than one; expected exactly one family: {}",
            expected.join(", or ")
        ),
    )])
}

pub(super) fn restart() -> Value {
    json!([rule(
        "self.initialSeconds <= self.maxSeconds",
        "restart.initialSeconds is greater than maxSeconds: correct one of them",
    )])
}

pub(super) fn service() -> Value {
    json!([rule(
        "!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'",
        "service.externalTrafficPolicy is set and service.type is ClusterIP; expected it with NodePort or LoadBalancer only: remove it or change the type",
    )])
}

pub(super) fn client() -> Value {
    json!([rule(
        "has(self.pods) != has(self.ipBlock)",
        "a client sets both pods and ipBlock, or neither; expected exactly one of pods and ipBlock: keep one, or add a second client",
    )])
}

pub(super) fn pod_peers() -> Value {
    json!([rule(
        "has(self.podSelector) || has(self.namespaceSelector)",
        "pods has no selector; expected podSelector or namespaceSelector: write podSelector: {} for every pod of this namespace",
    )])
}

pub(super) fn ip_block() -> Value {
    json!([
        telling(
            "isCIDR(self.cidr)",
            "'cidr is ' + self.cidr + '; expected a CIDR such as 10.0.0.0/8: correct it'",
            "cidr is not a CIDR such as 10.0.0.0/8: correct it",
        ),
        telling(
            "!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) && cidr(self.cidr).containsCIDR(e))",
            "'except contains a value that is not a CIDR within ' + self.cidr + '; expected CIDRs within cidr: correct or remove it'",
            "except contains a value that is not a CIDR within cidr: correct or remove it",
        ),
    ])
}

pub(super) fn pod() -> Value {
    json!([
        rule(
            "!has(self.labels) || self.labels.all(k, !k.contains('patchbay.dev/') && k != 'app.kubernetes.io/managed-by')",
            "pod.labels contains a label that Patchbay sets; expected other labels: remove those of patchbay.dev and app.kubernetes.io/managed-by",
        ),
        rule(
            "!has(self.annotations) || self.annotations.all(k, !k.contains('patchbay.dev/') && k != 'kubectl.kubernetes.io/default-container')",
            "pod.annotations contains an annotation that Patchbay sets; expected other annotations: remove those of patchbay.dev and kubectl.kubernetes.io/default-container",
        ),
    ])
}

pub(super) fn volume() -> Value {
    json!([
        telling(
            "self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !self.name.startsWith('patchbay-')",
            "'a volume has the name ' + self.name + '; expected a name of a-z, 0-9 and - that does not begin with patchbay-: rename it'",
            "the name of a volume contains other characters than a-z, 0-9 and -, or begins with patchbay-: rename it",
        ),
        telling(
            "[has(self.configMap), has(self.secret), has(self.emptyDir), has(self.persistentVolumeClaim), has(self.csi)].filter(b, b).size() == 1",
            "'the volume ' + self.name + ' has no source or more than one; expected exactly one of configMap, secret, emptyDir, persistentVolumeClaim and csi: keep one'",
            "a volume has no source or more than one; expected exactly one of configMap, secret, emptyDir, persistentVolumeClaim and csi: keep one",
        ),
        telling(
            "!has(self.secret) || (has(self.secret.secretName) && !self.secret.secretName.startsWith('pb-id-'))",
            "'the volume ' + self.name + ' has no secretName or one that begins with pb-id-; expected a Secret of your own, because those hold identities of Patchbay: use another Secret'",
            "a volume has no secretName or one that begins with pb-id-: use a Secret of your own",
        ),
        telling(
            "!has(self.csi) || !has(self.csi.nodePublishSecretRef) || !self.csi.nodePublishSecretRef.name.startsWith('pb-id-')",
            "'the volume ' + self.name + ' passes a Secret that begins with pb-id- to a CSI driver; expected a Secret of your own, because those hold identities of Patchbay: use another Secret'",
            "a volume passes a Secret that begins with pb-id- to a CSI driver: use another Secret",
        ),
    ])
}
