//! SidecarSessions: the operator dials every sidecar and keeps one stream open per pod.
//!
//! A session is a view, never a decision: what it hears becomes a snapshot that a pass reads. The
//! pod's uid comes from whom we dialled, never from a message.

pub mod attach;
pub mod bounds;
mod connection;
mod convert;
mod decode;
pub mod dial;
mod error;
mod job_messages;
mod session_loop;
pub mod tls;

#[cfg(test)]
mod tests;

use crate::certificates::name::{CertificateIdentity, Installation};
use crate::jobs::JobContext;
use crate::key::PluginKey;
use crate::logging::SidecarLogFilter;
use crate::metrics::Metrics;
use crate::metrics::sidecar_totals::SidecarTotals;
use patchbay_protocol::session::Instance;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tls::OperatorTls;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

/// The pod behind a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPeer {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the pod, for logs.
    pub pod: String,
    /// The Plugin it belongs to.
    pub plugin: PluginKey,
    /// Uid of that Plugin: the identity that the sidecar must prove.
    pub plugin_uid: String,
    /// Where the sidecar listens.
    pub address: SocketAddr,
}

/// What the sidecar should be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredSidecarState {
    /// Whether the plugin may be started in this sandbox.
    pub allow_start: bool,
    /// Revision of the configuration.
    pub revision: u64,
    /// The document in the pod's annotation.
    pub json: String,
}

/// What is known of one sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whether the session is open now.
    pub attached: bool,
    /// What the sidecar said of itself when the session was opened.
    pub sidecar: Option<SidecarInfo>,
    /// Its last word about the plugin. Stays when the session breaks.
    pub instance: Option<Instance>,
    /// Why the last dial failed; `None` while attached and before the first failure.
    pub trouble: Option<String>,
}

/// A sidecar process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarInfo {
    /// Version of the program.
    pub version: String,
    /// Names the process.
    pub process_id: String,
    /// Version of the session that both speak.
    pub session: u32,
}

/// What every session of a term shares.
pub struct SessionContext {
    /// Name of the installation.
    pub installation: Installation,
    /// The Lease's transition count.
    pub epoch: u64,
    /// Our side of TLS; replaced when the operator's leaf is renewed.
    pub tls: RwLock<OperatorTls>,
    /// Called after a snapshot changed.
    pub changed: Box<dyn Fn(&PluginKey) + Send + Sync>,
    /// Counts sessions and failures.
    pub metrics: Arc<Metrics>,
    /// Sums of the sidecars' counters.
    pub totals: Arc<SidecarTotals>,
    /// Where word of jobs goes.
    pub jobs: Arc<JobContext>,
    /// What sidecars log.
    pub sidecar_log: SidecarLogFilter,
    /// Last word of each sidecar, by the pod's uid.
    pub snapshots: Mutex<HashMap<String, Snapshot>>,
}

impl SessionContext {
    /// The name that the sidecar of `target` has to prove.
    fn expected(&self, target: &SessionPeer) -> crate::certificates::name::Uri {
        CertificateIdentity::Plugin {
            namespace: target.plugin.namespace.clone(),
            uid: target.plugin_uid.clone(),
        }
        .uri(&self.installation)
    }

    fn update(&self, target: &SessionPeer, change: impl FnOnce(&mut Snapshot)) {
        let changed = {
            let mut snapshots = self.lock();
            let Some(snapshot) = snapshots.get_mut(&target.pod_uid) else {
                return;
            };
            let before = snapshot.clone();
            change(snapshot);
            *snapshot != before
        };
        if changed {
            (self.changed)(&target.plugin);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Snapshot>> {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every session of this process.
pub struct SidecarSessions {
    shared: Arc<SessionContext>,
    open: Mutex<HashMap<PluginKey, HashMap<String, OpenSession>>>,
    tasks: TaskTracker,
}

struct OpenSession {
    target: SessionPeer,
    task: AbortHandle,
    wanted: watch::Sender<DesiredSidecarState>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SidecarSessions {
    /// No session yet. `tasks` counts those that live, the aborted ones too.
    pub fn new(shared: Arc<SessionContext>, tasks: TaskTracker) -> Self {
        Self {
            shared,
            open: Mutex::default(),
            tasks,
        }
    }

    /// What all sessions share.
    pub fn shared(&self) -> &SessionContext {
        &self.shared
    }

    /// Makes the sessions of `plugin` be exactly those of `targets`.
    pub fn follow(&self, plugin: &PluginKey, targets: Vec<(SessionPeer, DesiredSidecarState)>) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(plugin.clone()).or_default();
        open.retain(|uid, session| {
            let stays = targets.iter().any(|(target, _)| *target == session.target);
            if !stays {
                self.shared.lock().remove(uid);
                self.shared.totals.forget_pod(uid);
            }
            stays
        });
        for (target, wanted) in targets {
            match open.get(&target.pod_uid) {
                Some(session) => {
                    session.wanted.send_if_modified(|current| {
                        let newer = wanted.revision > current.revision;
                        let released = wanted.allow_start && !current.allow_start;
                        if newer {
                            current.revision = wanted.revision;
                            current.json = wanted.json;
                        }
                        current.allow_start |= wanted.allow_start;
                        newer || released
                    });
                }
                None => {
                    tracing::debug!(
                        namespace = plugin.namespace,
                        plugin = plugin.name,
                        pod = target.pod,
                        address = %target.address,
                        "dialling"
                    );
                    self.shared
                        .lock()
                        .insert(target.pod_uid.clone(), Snapshot::default());
                    let (sender, receiver) = watch::channel(wanted);
                    let task = self.tasks.spawn(connection::keep(
                        target.clone(),
                        Arc::clone(&self.shared),
                        receiver,
                    ));
                    open.insert(
                        target.pod_uid.clone(),
                        OpenSession {
                            target,
                            task: task.abort_handle(),
                            wanted: sender,
                        },
                    );
                }
            }
        }
        if open.is_empty() {
            all.remove(plugin);
        }
    }

    /// What is known of the sidecar in the pod with this uid.
    pub fn snapshot(&self, pod_uid: &str) -> Option<Snapshot> {
        self.shared.lock().get(pod_uid).cloned()
    }
}
