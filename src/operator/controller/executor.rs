//! Carries out a plan for one Plugin: in order, up to the first action that is not done.

use crate::apply::{ApplyError, ChildWriter, WrittenChild};
use crate::certificates::secrets::{Identities, IdentityOwner, IdentitySecretError};
use crate::key::PluginKey;
use crate::watch::plugin_changes::PluginChangeNotifier;
use crate::watch::{Stores, trim};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL};
use patchbay_reconcile::plugin::action::{Action, Applied, Child, Outcome, Plan};
use std::collections::BTreeMap;

/// What it takes to act for one Plugin.
pub struct PlanExecutor<'a> {
    /// Writes its children.
    pub writer: ChildWriter<'a>,
    /// Hear of what was written.
    pub stores: &'a Stores,
    /// Where answers of writes of a Plugin go.
    pub plugin_changes: &'a PluginChangeNotifier,
    pub identities: &'a Identities,
    pub key: &'a PluginKey,
    /// As it was observed.
    pub plugin: &'a Plugin,
}

/// What became of a plan.
#[derive(Default)]
pub struct Execution<'a> {
    pub applied: Applied<'a>,
    /// An action has to be executed again after a while.
    pub failure: Option<ActionError>,
    /// What was seen is not what is there; a newer view is on its way.
    pub stale: bool,
    /// Somebody has to change something.
    pub refused: bool,
}

/// Why one action is not done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A child or the finalizer.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The identity Secret.
    #[error(transparent)]
    Identity(#[from] IdentitySecretError),
}

impl<'a> Execution<'a> {
    fn add(&mut self, action: &'a Action, result: Result<(), ActionError>) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(error) => {
                let message = error.to_string();
                match &error {
                    ActionError::Apply(ApplyError::Taken { .. })
                    | ActionError::Identity(IdentitySecretError::NameTaken { .. }) => {
                        self.refused = true;
                        Outcome::Taken
                    }
                    ActionError::Apply(ApplyError::Refused { message, .. }) => {
                        self.refused = true;
                        Outcome::Refused {
                            message: message.clone(),
                        }
                    }
                    ActionError::Apply(ApplyError::Stale { .. }) => {
                        self.stale = true;
                        Outcome::Failed { message }
                    }
                    ActionError::Apply(ApplyError::Api { .. }) | ActionError::Identity(_) => {
                        self.failure = Some(error);
                        Outcome::Failed { message }
                    }
                }
            }
        };
        self.applied.0.push((action, outcome));
    }
}

impl PlanExecutor<'_> {
    /// Executes the plan in order, up to the first action that is not done. Neighbours that do
    /// not build on each other go together: every round trip is time to Ready.
    pub async fn execute<'a>(&self, plan: &'a Plan) -> Execution<'a> {
        let mut execution = Execution::default();
        for batch in plan
            .actions
            .chunk_by(|a, b| independent(a) && independent(b))
        {
            let results = join_all(batch.iter().map(|action| self.execute_one(action))).await;
            for (action, result) in batch.iter().zip(results) {
                let done = result.is_ok();
                execution.add(action, result);
                if !done {
                    return execution;
                }
            }
        }
        execution
    }

    async fn execute_one(&self, action: &Action) -> Result<(), ActionError> {
        let (writer, key) = (&self.writer, self.key);
        match action {
            Action::AddFinalizer => {
                self.plugin_changes
                    .record_write(writer.add_finalizer().await?)
                    .await
            }
            Action::RemoveFinalizer => writer.remove_finalizer().await?,
            Action::Create(child) => {
                let written = writer.create(child).await?;
                log_created(key, child);
                self.store(written);
            }
            Action::Patch(patch) => {
                let written = writer.patch(patch).await?;
                tracing::info!(
                    namespace = key.namespace,
                    plugin = key.name,
                    kind = patch.kind.as_str(),
                    name = patch.name,
                    reason = patch.why.reason.as_str(),
                    why = patch.why.message,
                    "patched"
                );
                self.store(written);
            }
            Action::DeletePod(pod) => {
                writer.delete_pod(pod).await?;
                tracing::info!(
                    namespace = key.namespace,
                    plugin = key.name,
                    pod = pod.name,
                    reason = pod.why.reason.as_str(),
                    why = pod.why.message,
                    "deleted"
                );
            }
            Action::EnsureIdentity { secret } => {
                let identity_owner = identity_owner(key, self.plugin, secret);
                self.identities
                    .ensure(&identity_owner, Timestamp::now())
                    .await?;
            }
        }
        Ok(())
    }

    fn store(&self, written: WrittenChild) {
        match written {
            WrittenChild::Pod(mut pod) => {
                trim::pod(&mut pod);
                self.stores.pods.record_write(&pod);
            }
            WrittenChild::Service(mut service) => {
                trim::service(&mut service);
                self.stores.services.record_write(&service);
            }
            WrittenChild::NetworkPolicy(mut policy) => {
                trim::policy(&mut policy);
                self.stores.policies.record_write(&policy);
            }
            WrittenChild::Nothing => {}
        }
    }
}

/// Whether an action neither needs its neighbours nor is needed by them. Pods need all that
/// stands before them.
fn independent(action: &Action) -> bool {
    match action {
        Action::Create(Child::Service(_) | Child::NetworkPolicy(_))
        | Action::EnsureIdentity { .. } => true,
        Action::Create(Child::Pod(_))
        | Action::Patch(_)
        | Action::DeletePod(_)
        | Action::AddFinalizer
        | Action::RemoveFinalizer => false,
    }
}

fn identity_owner(key: &PluginKey, plugin: &Plugin, secret: &str) -> IdentityOwner {
    let uid = plugin.uid().unwrap_or_default();
    IdentityOwner {
        key: key.clone(),
        uid: uid.clone(),
        secret: secret.to_owned(),
        labels: BTreeMap::from([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (PLUGIN_LABEL.to_owned(), key.name.clone()),
        ]),
        reference: OwnerReference {
            api_version: Plugin::api_version(&()).into_owned(),
            kind: Plugin::kind(&()).into_owned(),
            name: key.name.clone(),
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
    }
}

fn log_created(key: &PluginKey, child: &Child) {
    tracing::info!(
        namespace = key.namespace,
        plugin = key.name,
        kind = child.kind().as_str(),
        name = child.name(),
        "created"
    );
}
