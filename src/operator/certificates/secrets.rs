//! Certificates as Secrets: the authority in the operator's own namespace, one leaf per Plugin
//! beside it.
//!
//! The operator has no right to get, list or watch Secrets, but for the one of its authority: such
//! a right could not be limited to its own type. It reads a leaf back by the dry run of an empty
//! patch, which the admission policy allows for Secrets of our type only, and only once per Plugin and
//! process; what it learnt, it remembers.

use super::authority::{AuthorityError, CertificateAuthority, StoredAuthority};
use super::leaf::{Files, Flaw, inspect};
use super::name::CertificateIdentity;
use crate::key::PluginKey;
use crate::metrics::Metrics;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use patchbay_api::names::{IDENTITY_SECRET_TYPE as TYPE, MANAGED_BY, MANAGED_BY_LABEL};
use patchbay_reconcile::plugin::observe::Identity;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the authority's Secret.
pub const AUTHORITY: &str = "patchbay-ca";
const INSTALLATION: &str = "installation";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUST: &str = "ca.crt";

/// Why an identity is not in place.
#[derive(Debug, thiserror::Error)]
pub enum IdentitySecretError {
    /// A Secret of that name exists and is somebody else's. It is never touched.
    #[error("writing the Secret {name}: one of that name exists that is not this Plugin's")]
    NameTaken {
        /// Name of the Secret.
        name: String,
    },
    /// The API server said no, or nothing.
    #[error("{step} the Secret {name}: {source}")]
    Api {
        step: &'static str,
        /// Name of the Secret.
        name: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A certificate could not be made, or the authority could not be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority's Secret lacks a key. Nothing is overwritten: every plugin trusts what was
    /// there.
    #[error(
        "reading the Secret {AUTHORITY}: it has no usable {0}; restore it, or delete it to give every plugin a new identity"
    )]
    Incomplete(&'static str),
}

fn api(step: &'static str, name: &str) -> impl FnOnce(kube::Error) -> IdentitySecretError + use<> {
    let name = name.to_owned();
    move |source| IdentitySecretError::Api {
        step,
        name,
        source: Box::new(source),
    }
}

/// Reads the authority; creates it when it does not exist yet.
pub async fn authority(
    client: &Client,
    namespace: &str,
    now: Timestamp,
) -> Result<CertificateAuthority, IdentitySecretError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let existing = secrets
        .get_opt(AUTHORITY)
        .await
        .map_err(api("reading", AUTHORITY))?;
    let secret = match existing {
        Some(secret) => secret,
        None => {
            let made = authority_secret(&CertificateAuthority::generate(now)?);
            match secrets.create(&PostParams::default(), &made).await {
                Ok(secret) => {
                    tracing::info!(secret = AUTHORITY, "a new authority was made");
                    secret
                }
                // Also after an unknown answer: what is there counts, not what we meant to write.
                Err(error) => match secrets.get(AUTHORITY).await {
                    Ok(secret) => secret,
                    Err(_) => return Err(api("creating", AUTHORITY)(error)),
                },
            }
        }
    };
    let text = |key: &'static str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            .ok_or(IdentitySecretError::Incomplete(key))
    };
    let stored = StoredAuthority {
        installation: text(INSTALLATION)?,
        certificate: text(CERTIFICATE)?,
        key: text(KEY)?,
    };
    Ok(CertificateAuthority::load(&stored)?)
}

fn authority_secret(stored: &StoredAuthority) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(AUTHORITY.into()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY_LABEL.into(),
                MANAGED_BY.into(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        data: Some(BTreeMap::from([
            (INSTALLATION.into(), bytes(&stored.installation)),
            (CERTIFICATE.into(), bytes(&stored.certificate)),
            (KEY.into(), bytes(&stored.key)),
        ])),
        ..Secret::default()
    }
}

/// The Plugin that a leaf is for.
#[derive(Clone, Debug)]
pub struct IdentityOwner {
    /// Namespace and name.
    pub key: PluginKey,
    /// Uid of the object.
    pub uid: String,
    /// Name of the Secret.
    pub secret: String,
    /// Labels of the Secret.
    pub labels: BTreeMap<String, String>,
    /// Makes the Secret go when the Plugin goes.
    pub reference: OwnerReference,
}

/// A leaf is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// When to look again.
    pub renew_at: Timestamp,
    /// Why it was written just now, if it was.
    pub issued: Option<Flaw>,
}

/// Keeps the leaves of Plugins in place.
pub struct Identities {
    client: Client,
    authority: Arc<CertificateAuthority>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<PluginKey, KnownLeaf>>,
}

struct KnownLeaf {
    uid: String,
    state: LeafState,
}

#[derive(Clone, Copy)]
enum LeafState {
    InPlace { renew_at: Timestamp },
    Taken { again: Timestamp },
}

/// A Secret of somebody else is looked at again after this time.
const TAKEN_AGAIN: SignedDuration = SignedDuration::from_secs(30);

impl Identities {
    /// Nothing is known about any leaf yet.
    pub fn new(
        client: Client,
        authority: Arc<CertificateAuthority>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            authority,
            metrics,
            known: Mutex::default(),
        }
    }

    /// The authority that signs.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Makes sure that the owner's Secret has a sound leaf. Asks nobody when this process has
    /// seen one that is still young enough.
    pub async fn ensure(
        &self,
        owner: &IdentityOwner,
        now: Timestamp,
    ) -> Result<InPlace, IdentitySecretError> {
        if let Identity::InPlace = self.state(&owner.key, &owner.uid, now)
            && let Some(renew_at) = self.renew_at(&owner.key)
        {
            return Ok(InPlace {
                renew_at,
                issued: None,
            });
        }
        let result = self.look_and_issue(owner, now).await;
        let state = match &result {
            Ok(in_place) => LeafState::InPlace {
                renew_at: in_place.renew_at,
            },
            Err(IdentitySecretError::NameTaken { .. }) => LeafState::Taken {
                again: now + TAKEN_AGAIN,
            },
            Err(_) => return result,
        };
        let known = KnownLeaf {
            uid: owner.uid.clone(),
            state,
        };
        self.lock().insert(owner.key.clone(), known);
        result
    }

    /// What this process knows about the leaf of a Plugin.
    pub fn state(&self, key: &PluginKey, uid: &str, now: Timestamp) -> Identity {
        match self.lock().get(key) {
            Some(known) if known.uid == uid => match known.state {
                LeafState::InPlace { renew_at } if now < renew_at => Identity::InPlace,
                LeafState::Taken { again } if now < again => Identity::Taken,
                _ => Identity::Unknown,
            },
            _ => Identity::Unknown,
        }
    }

    /// When something about the leaf is to be looked at again.
    pub fn renew_at(&self, key: &PluginKey) -> Option<Timestamp> {
        self.lock().get(key).map(|known| match known.state {
            LeafState::InPlace { renew_at } => renew_at,
            LeafState::Taken { again } => again,
        })
    }

    /// Forgets what was seen: the Plugin is gone, or a pod could not mount its Secret.
    pub fn forget(&self, key: &PluginKey) {
        self.lock().remove(key);
    }

    async fn look_and_issue(
        &self,
        owner: &IdentityOwner,
        now: Timestamp,
    ) -> Result<InPlace, IdentitySecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &owner.key.namespace);
        let name = owner.secret.as_str();
        let look = PatchParams {
            // Nothing is written even if something should have changed on the way.
            dry_run: true,
            ..PatchParams::default()
        };
        let taken = || IdentitySecretError::NameTaken { name: name.into() };
        let read = || async {
            match secrets.patch(name, &look, &Patch::Merge(json!({}))).await {
                Ok(secret) => Ok(Some(secret)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(kube::Error::Api(status)) if refused_by_policy(&status) => Err(taken()),
                Err(error) => Err(api("reading", name)(error)),
            }
        };
        let identity = CertificateIdentity::Plugin {
            namespace: owner.key.namespace.clone(),
            uid: owner.uid.clone(),
        };
        let (flaw, secret) = match read().await? {
            None => {
                let leaf = self.authority.issue(&identity, now)?;
                let secret = leaf_secret(owner, self.data(&leaf));
                match secrets.create(&PostParams::default(), &secret).await {
                    Ok(_) => {
                        self.metrics.leaves_issued.inc();
                        return Ok(InPlace {
                            renew_at: now + super::leaf::RENEWED_AFTER,
                            issued: Some(Flaw::Missing),
                        });
                    }
                    // Made meanwhile, by whomever: the next pass reads it.
                    Err(error) => return Err(api("creating", name)(error)),
                }
            }
            Some(secret) => {
                if !belongs_to(&secret, &owner.uid) {
                    return Err(taken());
                }
                match self.inspect(&secret, &identity, now) {
                    Ok(renew_at) => {
                        return Ok(InPlace {
                            renew_at,
                            issued: None,
                        });
                    }
                    Err(flaw) => (flaw, secret),
                }
            }
        };
        let leaf = self.authority.issue(&identity, now)?;
        let patch = json!({
            "metadata": {
                "uid": secret.metadata.uid,
                "resourceVersion": secret.metadata.resource_version,
            },
            "data": self.data(&leaf),
        });
        secrets
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(api("replacing", name))?;
        self.metrics.leaves_issued.inc();
        tracing::info!(
            namespace = owner.key.namespace,
            plugin = owner.key.name,
            why = flaw.as_str(),
            "the leaf was replaced"
        );
        Ok(InPlace {
            renew_at: now + super::leaf::RENEWED_AFTER,
            issued: Some(flaw),
        })
    }

    fn inspect(
        &self,
        secret: &Secret,
        identity: &CertificateIdentity,
        now: Timestamp,
    ) -> Result<Timestamp, Flaw> {
        let field = |key: &str| {
            secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map_or(&[][..], |bytes| bytes.0.as_slice())
        };
        inspect(
            &Files {
                certificate: field(CERTIFICATE),
                key: field(KEY),
                authority: field(TRUST),
            },
            &identity.uri(self.authority.installation()),
            &self.authority,
            now,
        )
        .map(|sound| sound.renew_at)
    }

    fn data(&self, leaf: &super::authority::IssuedLeaf) -> BTreeMap<String, ByteString> {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        BTreeMap::from([
            (CERTIFICATE.into(), bytes(&leaf.certificate)),
            (KEY.into(), bytes(&leaf.key)),
            (TRUST.into(), bytes(self.authority.certificate_pem())),
        ])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PluginKey, KnownLeaf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a Secret is an identity of the Plugin with this uid. Another one is never touched.
fn belongs_to(secret: &Secret, uid: &str) -> bool {
    let owners = secret.owner_references();
    secret.type_.as_deref() == Some(TYPE) && owners.iter().any(|reference| reference.uid == uid)
}

fn leaf_secret(owner: &IdentityOwner, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(owner.secret.clone()),
            namespace: Some(owner.key.namespace.clone()),
            labels: Some(owner.labels.clone()),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        data: Some(data),
        ..Secret::default()
    }
}

/// The fence around our account speaks, not a missing right: the object is not of our type.
fn refused_by_policy(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("ValidatingAdmissionPolicy")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(kind: &str, owner: &str) -> Secret {
        serde_json::from_value(json!({
            "type": kind,
            "metadata": {"name": "pb-id-kv", "ownerReferences": [
                {"apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin", "name": "kv", "uid": owner},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn secret_belongs_to_the_plugin_whose_uid_owns_it() {
        assert!(belongs_to(&secret(TYPE, "ours"), "ours"));
        assert!(!belongs_to(&secret(TYPE, "another"), "ours"));
        assert!(!belongs_to(&secret("Opaque", "ours"), "ours"));
        assert!(!belongs_to(&Secret::default(), "ours"));
    }
}
