//! The kind Plugin: observe → resolve → desire → apply → report, and nothing else.

use super::{Kind, Outcome as Ended, Passed, Steps};
use crate::apply::{ApplyError, Writer, Written};
use crate::certificates::secrets::{Holder, Identities, IdentityError};
use crate::events::{Events, Subject, Words};
use crate::key::PluginKey;
use crate::retry::{Policy, Retries};
use crate::session::{Sessions, Target, Wanted};
use crate::status::{StatusError, StatusWriter, Written as StatusWritten};
use crate::watch::Stores;
use crate::watch::kubelet::KubeletWarnings;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Client, Resource, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{
    IDENTITY_PREFIX, MANAGED_BY, MANAGED_BY_LABEL, PLUGIN_LABEL, SESSION_PORT,
};
use patchbay_reconcile::plugin::action::{Action, Applied, Child, Follow, Outcome, Plan};
use patchbay_reconcile::plugin::observe::{Observed, Settings};
use patchbay_reconcile::plugin::resolve::Resolution;
use patchbay_reconcile::plugin::{desire, report, resolve};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Works on Plugins.
pub struct Plugins {
    /// For writes.
    pub client: Client,
    /// What was seen.
    pub stores: Arc<Stores>,
    /// What sidecars say.
    pub sessions: Arc<Sessions>,
    /// Leaves.
    pub identities: Arc<Identities>,
    /// What the kubelet says of pods that hang.
    pub kubelet: KubeletWarnings,
    /// Status.
    pub status: StatusWriter,
    /// Events.
    pub events: Events,
    /// The installation.
    pub settings: Settings,
    /// Objects that were refused: what hinders them may be nothing that we watch.
    pub refusals: Mutex<Retries<PluginKey>>,
}

/// Between two attempts at something that was refused.
pub const REFUSED_AGAIN: Policy = Policy {
    first: Duration::from_secs(5),
    limit: Duration::from_secs(120),
};

/// Why a pass fails. Refusals and waits are no failures; they stand in status.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] ActionError),
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Kind for Plugins {
    const NAME: &'static str = "Plugin";
    type Error = PluginError;

    async fn pass(&self, key: &PluginKey, steps: &mut Steps) -> Result<Passed, PluginError> {
        let mut begun = false;
        loop {
            steps.enter("observe");
            let Some((observed, look_again)) = self.observe(key).await else {
                self.forget(key);
                return Ok(Passed {
                    outcome: Ended::Gone,
                    next: None,
                });
            };
            steps.enter("resolve");
            let resolution = resolve(&observed);
            steps.enter("desire");
            let plan = desire(&observed, &resolution);
            steps.enter("apply");
            self.follow(key, &observed.plugin, &plan.follow);
            let tried = self.apply(key, &observed.plugin, &plan).await;
            if !begun
                && plan.actions == [Action::AddFinalizer]
                && tried.applied.outcomes == [Outcome::Done]
            {
                // Nothing is worth a report yet; the written Plugin is in the store.
                begun = true;
                continue;
            }
            steps.enter("report");
            let next = self
                .report(key, &observed, &resolution, &plan, &tried.applied)
                .await?;
            if let Some(error) = tried.failure {
                return Err(error.into());
            }
            let renewal = self.identities.renew_at(key).map(instant);
            let refused = self.after_refusal(key, tried.refused);
            let next = [next, look_again, renewal, refused, tried.stale.then(soon)]
                .into_iter()
                .flatten()
                .min();
            let outcome = match resolution {
                Resolution::Refused(_) => Ended::Refused,
                _ if tried.refused => Ended::Refused,
                _ if tried.stale || !plan.pending.is_empty() => Ended::Waiting,
                _ => Ended::Applied,
            };
            return Ok(Passed { outcome, next });
        }
    }

    fn subject(&self, key: &PluginKey) -> Option<Subject> {
        let plugin = self.stores.plugins.get(key, &key.name)?;
        Some(Subject::new(key, &plugin))
    }
}

/// What became of a plan.
#[derive(Default)]
struct Tried {
    applied: Applied,
    /// An action has to be tried again after a while.
    failure: Option<ActionError>,
    /// What was seen is not what is there; a newer view is on its way.
    stale: bool,
    /// Somebody has to change something.
    refused: bool,
}

impl Tried {
    fn add(&mut self, result: Result<(), ActionError>) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(error) => {
                let message = error.to_string();
                match &error {
                    ActionError::Apply(ApplyError::Taken { .. })
                    | ActionError::Identity(IdentityError::NameTaken { .. }) => {
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
        self.applied.outcomes.push(outcome);
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

impl Plugins {
    async fn observe(&self, key: &PluginKey) -> Option<(Observed, Option<Instant>)> {
        let plugin = self.stores.plugins.get(key, &key.name)?;
        let now = Timestamp::now();
        let pods = self.stores.pods.of(key);
        let warnings = self.kubelet.about(key, &pods, now).await;
        if warnings
            .events
            .iter()
            .any(|event| event.message.contains(IDENTITY_PREFIX))
        {
            // The kubelet cannot mount the leaf: what this process remembers of it is wrong.
            self.identities.forget(key);
        }
        let uid = plugin.uid().unwrap_or_default();
        let sessions = pods
            .iter()
            .filter_map(|pod| {
                let uid = pod.uid()?;
                let snapshot = self.sessions.snapshot(&uid)?;
                Some((uid, snapshot.into()))
            })
            .collect();
        let observed = Observed {
            identity: self.identities.state(key, &uid, now),
            plugin: Plugin::clone(&plugin),
            pods: pods.iter().map(|pod| (**pod).clone()).collect(),
            services: owned_copies(self.stores.services.of(key)),
            network_policies: owned_copies(self.stores.policies.of(key)),
            // The operator has no right to look at Secrets and ConfigMaps of users; the kubelet
            // says what is missing.
            references: BTreeMap::new(),
            pod_events: warnings.events,
            sessions,
            settings: self.settings.clone(),
            now,
        };
        Some((observed, warnings.next))
    }

    fn follow(&self, key: &PluginKey, plugin: &Plugin, follow: &[Follow]) {
        let plugin_uid = plugin.uid().unwrap_or_default();
        let targets = follow
            .iter()
            .filter_map(|follow| {
                let ip: IpAddr = follow.ip.parse().ok()?;
                let target = Target {
                    pod_uid: follow.pod_uid.clone(),
                    pod: follow.pod.clone(),
                    plugin: key.clone(),
                    plugin_uid: plugin_uid.clone(),
                    address: SocketAddr::new(ip, SESSION_PORT),
                };
                let wanted = Wanted {
                    release: follow.release,
                    revision: follow.revision,
                    json: follow.config.clone(),
                };
                Some((target, wanted))
            })
            .collect();
        self.sessions.follow(key, targets);
    }

    /// Executes the plan in order, up to the first action that is not done. Neighbours that do
    /// not build on each other go together: every round trip is time to Ready.
    async fn apply(&self, key: &PluginKey, plugin: &Plugin, plan: &Plan) -> Tried {
        let mut tried = Tried::default();
        for batch in plan
            .actions
            .chunk_by(|a, b| independent(a) && independent(b))
        {
            let results = join_all(batch.iter().map(|action| self.one(key, plugin, action))).await;
            for result in results {
                let done = result.is_ok();
                tried.add(result);
                if !done {
                    return tried;
                }
            }
        }
        tried
    }

    async fn one(
        &self,
        key: &PluginKey,
        plugin: &Plugin,
        action: &Action,
    ) -> Result<(), ActionError> {
        let writer = Writer::new(&self.client, plugin);
        match action {
            Action::AddFinalizer => self.wrote_plugin(writer.add_finalizer().await?),
            Action::RemoveFinalizer => writer.remove_finalizer().await?,
            Action::Create(child) => {
                let written = writer.create(child).await?;
                log_created(key, child);
                self.wrote(written);
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
                self.wrote(written);
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
                let holder = holder(key, plugin, secret);
                self.identities.ensure(&holder, Timestamp::now()).await?;
            }
        }
        Ok(())
    }

    async fn report(
        &self,
        key: &PluginKey,
        observed: &Observed,
        resolution: &Resolution,
        plan: &Plan,
        applied: &Applied,
    ) -> Result<Option<Instant>, PluginError> {
        let report = report(observed, resolution, plan, applied);
        let subject = Subject::new(key, &observed.plugin);
        for event in &report.events {
            let words = Words {
                warning: event.warning,
                action: event.action.to_owned(),
                reason: event.reason.as_str().to_owned(),
                note: event.message.clone(),
                pod: event.related.clone(),
            };
            self.events.say(&subject, words);
        }
        let mut next = report.wake_at.map(instant);
        // The finalizer may be off and the Plugin gone: nobody reads the status any more.
        if !plan.actions.contains(&Action::RemoveFinalizer) {
            match self
                .status
                .write(key, &observed.plugin, &report.status)
                .await?
            {
                StatusWritten::Same => {}
                StatusWritten::Now(plugin) => self.wrote_plugin(*plugin),
                StatusWritten::Later(when) => {
                    next = Some(next.map_or(when, |next| next.min(when)));
                }
            }
        }
        Ok(next)
    }

    /// When to try again what was refused: the foreign object, the quota or the policy in the way
    /// may go without a word to us.
    fn after_refusal(&self, key: &PluginKey, refused: bool) -> Option<Instant> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refused {
            Some(Instant::now() + refusals.failed(key))
        } else {
            refusals.succeeded(key);
            None
        }
    }

    fn wrote(&self, written: Written) {
        match written {
            Written::Pod(mut pod) => {
                crate::watch::trim::pod(&mut pod);
                self.stores.pods.wrote(*pod);
            }
            Written::Service(mut service) => {
                crate::watch::trim::metadata(service.as_mut());
                self.stores.services.wrote(*service);
            }
            Written::NetworkPolicy(mut policy) => {
                crate::watch::trim::metadata(policy.as_mut());
                self.stores.policies.wrote(*policy);
            }
            Written::Nothing => {}
        }
    }

    fn wrote_plugin(&self, mut plugin: Plugin) {
        crate::watch::trim::plugin(&mut plugin);
        self.stores.plugins.wrote(plugin);
    }

    /// The Plugin is gone: nothing in this process remembers it.
    fn forget(&self, key: &PluginKey) {
        self.sessions.follow(key, Vec::new());
        self.sessions.shared().totals.forget_plugin(key);
        self.identities.forget(key);
        self.status.forget(key);
        self.kubelet.forget(key);
        self.after_refusal(key, false);
    }
}

/// Why one action is not done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A child or the finalizer.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The identity Secret.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn holder(key: &PluginKey, plugin: &Plugin, secret: &str) -> Holder {
    let uid = plugin.uid().unwrap_or_default();
    Holder {
        key: key.clone(),
        uid: uid.clone(),
        secret: secret.to_owned(),
        labels: BTreeMap::from([
            (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
            (PLUGIN_LABEL.to_owned(), key.name.clone()),
        ]),
        owner: OwnerReference {
            api_version: Plugin::api_version(&()).into_owned(),
            kind: Plugin::kind(&()).into_owned(),
            name: key.name.clone(),
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
    }
}

fn owned_copies<K: Clone>(objects: Vec<Arc<K>>) -> Vec<K> {
    objects.iter().map(|object| (**object).clone()).collect()
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

/// The monotonic moment of a wall-clock time; the past is now.
fn instant(when: Timestamp) -> Instant {
    let left = when.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

/// When a newer view has surely arrived.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(250)
}
