//! The only place that writes children of a Plugin and its finalizer.
//!
//! Ownership comes first: an object without the Plugin's uid as its controller is never touched,
//! whatever its name. Children are created by POST, which cannot hit what is there, and then only
//! patched with the uid and the version that were seen.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{FINALIZER, MANAGED_BY};
use patchbay_reconcile::plugin::action::{Child, ChildKind, ChildPatch, DeletePod, PatchFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else's object has the name. Refusal.
    #[error("{kind} {name} exists and does not belong to this Plugin")]
    Taken {
        /// ChildResource of the child.
        kind: String,
        /// Name of the child.
        name: String,
    },
    /// The API server will not have the object as it is. Refusal.
    #[error("writing {kind} {name}: {message}")]
    Refused {
        /// ChildResource of the child.
        kind: String,
        /// Name of the child.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// The object has changed since it was seen; a newer view is on its way. Waiting.
    #[error("writing {kind} {name}: it has changed meanwhile")]
    Stale {
        /// ChildResource of the child.
        kind: String,
        /// Name of the child.
        name: String,
    },
    /// No answer, or a broken one. Failure.
    #[error("writing {kind} {name}: {source}")]
    Api {
        /// ChildResource of the child.
        kind: String,
        /// Name of the child.
        name: String,
        /// The client's words.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A child as the API server answered it, for the store.
#[derive(Debug)]
pub enum WrittenChild {
    Pod(Box<Pod>),
    Service(Box<Service>),
    NetworkPolicy(Box<NetworkPolicy>),
    /// A Secret, which is not stored.
    Nothing,
}

/// Writes the children of one Plugin.
pub struct ChildWriter<'a> {
    client: &'a Client,
    plugin: &'a Plugin,
}

impl<'a> ChildWriter<'a> {
    /// For this Plugin and no other.
    pub fn new(client: &'a Client, plugin: &'a Plugin) -> Self {
        Self { client, plugin }
    }

    /// Creates a child. One of that name that is ours already is success: the store was behind.
    pub async fn create(&self, child: &Child) -> Result<WrittenChild, ApplyError> {
        Ok(match child {
            Child::Pod(pod) => WrittenChild::Pod(Box::new(self.post(pod.as_ref()).await?)),
            Child::Service(service) => {
                WrittenChild::Service(Box::new(self.post(service.as_ref()).await?))
            }
            Child::NetworkPolicy(policy) => {
                WrittenChild::NetworkPolicy(Box::new(self.post(policy.as_ref()).await?))
            }
        })
    }

    /// Changes exactly the child that was seen.
    pub async fn patch(&self, patch: &ChildPatch) -> Result<WrittenChild, ApplyError> {
        Ok(match patch.kind {
            ChildKind::Pod => WrittenChild::Pod(Box::new(self.merge(patch).await?)),
            ChildKind::Service => WrittenChild::Service(Box::new(self.merge(patch).await?)),
            ChildKind::NetworkPolicy => {
                WrittenChild::NetworkPolicy(Box::new(self.merge(patch).await?))
            }
            ChildKind::Secret => {
                self.merge::<k8s_openapi::api::core::v1::Secret>(patch)
                    .await?;
                WrittenChild::Nothing
            }
        })
    }

    /// Deletes exactly the pod that was seen. One that is gone, or whose name belongs to another
    /// by now, is success.
    pub async fn delete_pod(&self, pod: &DeletePod) -> Result<(), ApplyError> {
        let params = DeleteParams {
            grace_period_seconds: pod.grace_seconds,
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api::<Pod>().delete(&pod.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(failed::<Pod>(&pod.name, error)),
        }
    }

    /// Puts the finalizer on the Plugin.
    pub async fn add_finalizer(&self) -> Result<Plugin, ApplyError> {
        let mut finalizers = self.plugin.finalizers().to_vec();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        self.set_finalizers(finalizers).await
    }

    /// Takes it off. A Plugin that is gone is success.
    pub async fn remove_finalizer(&self) -> Result<(), ApplyError> {
        let mut finalizers = self.plugin.finalizers().to_vec();
        finalizers.retain(|f| f != FINALIZER);
        match self.set_finalizers(finalizers).await {
            Ok(_) => Ok(()),
            Err(ApplyError::Api { source, .. }) if is_code(&source, 404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn set_finalizers(&self, finalizers: Vec<String>) -> Result<Plugin, ApplyError> {
        let name = self.plugin.name_any();
        let meta = self.plugin.meta();
        // The list is replaced as a whole, so nobody may have changed it since.
        let patch = json!({
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
                "finalizers": finalizers,
            },
        });
        self.api::<Plugin>()
            .patch(&name, &params(), &Patch::Merge(patch))
            .await
            .map_err(|error| failed::<Plugin>(&name, error))
    }

    async fn post<K: ChildResource>(&self, wanted: &K) -> Result<K, ApplyError> {
        let (api, name) = (self.api::<K>(), wanted.name_any());
        let params = PostParams {
            field_manager: Some(MANAGED_BY.to_owned()),
            ..PostParams::default()
        };
        match api.create(&params, wanted).await {
            Ok(made) => Ok(made),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                match api
                    .get_opt(&name)
                    .await
                    .map_err(|e| failed::<K>(&name, e))?
                {
                    Some(found) if self.owns(found.meta()) => Ok(found),
                    Some(_) => Err(ApplyError::Taken {
                        kind: kind::<K>(),
                        name,
                    }),
                    None => Err(stale::<K>(&name)),
                }
            }
            Err(error) => Err(failed::<K>(&name, error)),
        }
    }

    async fn merge<K: ChildResource>(&self, patch: &ChildPatch) -> Result<K, ApplyError> {
        let body: Patch<&Value> = match patch.format {
            PatchFormat::Merge => Patch::Merge(&patch.body),
            PatchFormat::Strategic => Patch::Strategic(&patch.body),
        };
        self.api::<K>()
            .patch(&patch.name, &params(), &body)
            .await
            .map_err(|error| match error {
                error if is_code(&error, 404) => stale::<K>(&patch.name),
                error => failed::<K>(&patch.name, error),
            })
    }

    fn owns(&self, meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
        let uid = self.plugin.meta().uid.as_deref();
        meta.owner_references
            .iter()
            .flatten()
            .any(|owner| Some(owner.uid.as_str()) == uid && owner.controller == Some(true))
    }

    fn api<K: ChildResource>(&self) -> Api<K> {
        let namespace = self.plugin.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }
}

/// What all written kinds have in common.
trait ChildResource:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> ChildResource for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGED_BY.to_owned()),
        ..PatchParams::default()
    }
}

fn kind<K: ChildResource>() -> String {
    K::kind(&()).into_owned()
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn stale<K: ChildResource>(name: &str) -> ApplyError {
    ApplyError::Stale {
        kind: kind::<K>(),
        name: name.to_owned(),
    }
}

fn failed<K: ChildResource>(name: &str, error: kube::Error) -> ApplyError {
    match error {
        // 403 is a quota, an admission policy or a missing right; 400 and 422 the object itself.
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => {
            ApplyError::Refused {
                kind: kind::<K>(),
                name: name.to_owned(),
                message: crate::text::bounded_text(&status.message, 768),
            }
        }
        kube::Error::Api(status) if status.code == 409 => stale::<K>(name),
        source => ApplyError::Api {
            kind: kind::<K>(),
            name: name.to_owned(),
            source: Box::new(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_will_never_take_is_a_refusal_and_the_rest_is_not() {
        let answer = |code: u16| {
            failed::<Pod>(
                "p",
                kube::Error::Api(Box::new(
                    kube::core::Status::failure("no", "Because").with_code(code),
                )),
            )
        };
        for code in [400, 403, 422] {
            assert!(matches!(answer(code), ApplyError::Refused { .. }), "{code}");
        }
        for code in [404, 429, 500, 503] {
            assert!(matches!(answer(code), ApplyError::Api { .. }), "{code}");
        }
        assert!(matches!(answer(409), ApplyError::Stale { .. }));
    }
}
