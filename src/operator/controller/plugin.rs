//! The kind Plugin: observe → resolve → desire → apply → report, and nothing else.

use super::executor::{ActionError, Execution, PlanExecutor};
use super::{ReconcileOutcome, Reconciled, Reconciler, StepTimer};
use crate::apply::ChildWriter;
use crate::certificates::secrets::Identities;
use crate::clock::WallClock;
use crate::events::{EventContent, Events, Subject};
use crate::health::LivenessCheck;
use crate::key::PluginKey;
use crate::retry::{Policy, Retries};
use crate::session::{DesiredSidecarState, SessionPeer, SidecarSessions};
use crate::status::{StatusWrite, StatusWriteError, StatusWriter};
use crate::watch::Stores;
use crate::watch::kubelet::KubeletWarnings;
use crate::watch::plugin_changes::PluginChangeNotifier;
use kube::{Client, ResourceExt};
use patchbay_api::Plugin;
use patchbay_api::names::{IDENTITY_PREFIX, SESSION_PORT};
use patchbay_reconcile::plugin::action::{Action, Applied, Outcome, Plan, SessionTarget};
use patchbay_reconcile::plugin::observe::{Observed, Settings};
use patchbay_reconcile::plugin::resolve::Resolution;
use patchbay_reconcile::plugin::{desire, report, resolve};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Works on Plugins.
pub struct PluginReconciler {
    pub client: Client,
    pub stores: Arc<Stores>,
    /// Where answers of writes go.
    pub plugin_changes: Arc<PluginChangeNotifier>,
    pub sessions: Arc<SidecarSessions>,
    pub identities: Arc<Identities>,
    /// What the kubelet says of pods that hang.
    pub kubelet: KubeletWarnings,
    pub status: StatusWriter,
    pub events: Events,
    pub settings: Settings,
    /// Objects that were refused: what hinders them may be nothing that we watch.
    pub refusals: Mutex<Retries<PluginKey>>,
    /// The time of day.
    pub wall: WallClock,
}

/// Between two attempts at something that was refused.
pub const REFUSED_AGAIN: Policy = Policy {
    first: Duration::from_secs(5),
    limit: Duration::from_secs(120),
};

/// Why a pass fails. Refusals and waits are no failures; they stand in status.
#[derive(Debug, thiserror::Error)]
pub enum PluginReconcileError {
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] ActionError),
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] StatusWriteError),
}

impl Reconciler for PluginReconciler {
    const NAME: &'static str = "Plugin";
    const LIVENESS: LivenessCheck = LivenessCheck::Main;
    type Error = PluginReconcileError;

    async fn reconcile(
        &self,
        key: &PluginKey,
        steps: &mut StepTimer,
    ) -> Result<Reconciled, PluginReconcileError> {
        let mut begun = false;
        loop {
            steps.enter("observe");
            let Some((observed, look_again)) = self.observe(key).await else {
                self.forget(key);
                return Ok(Reconciled {
                    outcome: ReconcileOutcome::Gone,
                    next: None,
                });
            };
            steps.enter("resolve");
            let resolution = resolve(&observed);
            steps.enter("desire");
            let plan = desire(&observed, &resolution);
            steps.enter("apply");
            self.keep_sessions(key, &observed.plugin, &plan.session_targets);
            let execution = self.carry_out(key, &observed.plugin, &plan).await;
            if !begun && execution.applied.0 == [(&Action::AddFinalizer, Outcome::Done)] {
                // Nothing is worth a report yet; the written Plugin is in the store.
                begun = true;
                continue;
            }
            steps.enter("report");
            let next = self
                .report(key, &observed, &resolution, &plan, &execution.applied)
                .await?;
            if let Some(error) = execution.failure {
                return Err(error.into());
            }
            let renewal = self
                .identities
                .renew_at(key)
                .map(|at| self.wall.instant(at));
            let refused = self.after_refusal(key, execution.refused);
            let next = [
                next,
                look_again,
                renewal,
                refused,
                execution.stale.then(soon),
            ]
            .into_iter()
            .flatten()
            .min();
            let outcome = match resolution {
                Resolution::Refused(_) => ReconcileOutcome::Refused,
                _ if execution.refused => ReconcileOutcome::Refused,
                _ if execution.stale || !plan.pending.is_empty() => ReconcileOutcome::Waiting,
                _ => ReconcileOutcome::Applied,
            };
            return Ok(Reconciled { outcome, next });
        }
    }

    fn subject(&self, key: &PluginKey) -> Option<Subject> {
        let plugin = self.stores.plugins.get(key, &key.name)?;
        Some(Subject::new(key, &plugin))
    }
}

impl PluginReconciler {
    async fn observe(&self, key: &PluginKey) -> Option<(Observed, Option<Instant>)> {
        let plugin = self.stores.plugins.get(key, &key.name)?;
        let now = self.wall.now();
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
            plugin,
            pods,
            services: self.stores.services.of(key),
            network_policies: self.stores.policies.of(key),
            // The operator has no right to look at Secrets and ConfigMaps of users; the kubelet
            // says what is missing.
            pod_events: warnings.events,
            sessions,
            settings: self.settings.clone(),
            now,
        };
        Some((observed, warnings.next))
    }

    fn keep_sessions(&self, key: &PluginKey, plugin: &Plugin, targets: &[SessionTarget]) {
        let plugin_uid = plugin.uid().unwrap_or_default();
        let peers = targets
            .iter()
            .filter_map(|target| {
                let ip: IpAddr = target.ip.parse().ok()?;
                let peer = SessionPeer {
                    pod_uid: target.pod_uid.clone(),
                    pod: target.pod.clone(),
                    plugin: key.clone(),
                    plugin_uid: plugin_uid.clone(),
                    address: SocketAddr::new(ip, SESSION_PORT),
                };
                let wanted = DesiredSidecarState {
                    allow_start: target.allow_start,
                    revision: target.revision,
                    json: target.config.clone(),
                };
                Some((peer, wanted))
            })
            .collect();
        self.sessions.follow(key, peers);
    }

    async fn carry_out<'a>(
        &self,
        key: &PluginKey,
        plugin: &Plugin,
        plan: &'a Plan,
    ) -> Execution<'a> {
        let executor = PlanExecutor {
            writer: ChildWriter::new(&self.client, plugin),
            stores: &self.stores,
            plugin_changes: &self.plugin_changes,
            identities: &self.identities,
            key,
            plugin,
        };
        executor.execute(plan).await
    }

    async fn report(
        &self,
        key: &PluginKey,
        observed: &Observed,
        resolution: &Resolution,
        plan: &Plan,
        applied: &Applied<'_>,
    ) -> Result<Option<Instant>, PluginReconcileError> {
        let report = report(observed, resolution, plan, applied);
        let subject = Subject::new(key, &observed.plugin);
        for event in &report.events {
            let words = EventContent {
                warning: event.warning,
                action: event.action.to_owned(),
                reason: event.reason.as_str().to_owned(),
                note: event.message.clone(),
                pod: event.related.clone(),
            };
            self.events.publish(&subject, words);
        }
        let mut next = report.wake_at.map(|at| self.wall.instant(at));
        // The finalizer may be off and the Plugin gone: nobody reads the status any more.
        if !plan.actions.contains(&Action::RemoveFinalizer) {
            match self
                .status
                .write(key, &observed.plugin, &report.status)
                .await?
            {
                StatusWrite::Same => {}
                StatusWrite::Now(plugin) => self.plugin_changes.record_write(*plugin).await,
                StatusWrite::Later(when) => {
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

/// When a newer view has surely arrived.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(250)
}
