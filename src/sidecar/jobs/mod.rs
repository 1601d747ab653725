//! Jobs, on the sidecar's side: asks for them, hands each over at most once, keeps what the plugin
//! gives back until the operator has stored it.
//!
//! The rest of the sidecar holds a [`Jobs`] and tells it what happens to the plugin process.

pub mod book;
pub mod ledger;
pub mod spool;

use std::sync::Arc;

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::session::CommandInfo;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::paths::Root;

/// What a plugin of the family `controller` said of itself with its first call on the jobs socket.
/// It stays true for the whole life of that process, also for a sidecar that came later.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    /// Which start of the plugin process said it.
    pub start_id: StartId,
    /// The advertised commands, at most 256, strings escaped and at most 256 bytes.
    pub commands: Vec<CommandInfo>,
    /// How many more there were.
    pub omitted: u32,
    /// Flaws that do not hinder readiness, at most 8.
    pub warnings: Vec<String>,
}

/// Where external workers really are. The sidecar gives each of them an address of its own in
/// 127/8 towards the plugin.
pub trait Translate: Send + Sync {
    /// The canonical address of the worker that the plugin knows as `local` (such as 127.0.3.7);
    /// `None` when no worker has that address.
    fn real(&self, local: &str) -> Option<String>;
}

/// The handle. Clones are the same.
#[derive(Clone)]
pub struct Jobs {
    greeting: Arc<watch::Sender<Option<Greeting>>>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

impl Jobs {
    /// Reads the ledger and begins. Within a runtime.
    ///
    /// # Errors
    /// The ledger's folder cannot be used.
    pub fn start(root: &Root) -> Result<Jobs, String> {
        let _ = root;
        Ok(Jobs {
            greeting: Arc::new(watch::Sender::new(None)),
        })
    }

    /// The plugin process with this id is about to be ordered, or was found running by a sidecar
    /// that came later. Any other process is gone from now on.
    pub fn plugin_started(&self, start_id: StartId) {
        let _ = start_id;
    }

    /// That process is gone; `exit` is absent when nobody saw how. Also to be called for the
    /// process of an earlier sidecar's record that is found dead.
    pub fn plugin_ended(&self, start_id: StartId, exit: Option<Exit>) {
        let _ = (start_id, exit);
    }

    /// Family `goPlugin`: the process is ready and is called through `channel`, or is not any more.
    pub fn plugin_serves(&self, start_id: StartId, channel: Option<Channel>) {
        let _ = (start_id, channel);
    }

    /// The configuration in force.
    pub fn configure(&self, config: &PodConfig) {
        let _ = config;
    }

    /// Changes when the plugin has introduced itself; `None` before and after its process ended.
    pub fn greetings(&self) -> watch::Receiver<Option<Greeting>> {
        self.greeting.subscribe()
    }

    /// From now on locations in requests are translated by this.
    pub fn translate_with(&self, workers: Arc<dyn Translate>) {
        let _ = workers;
    }

    /// The sidecar is being stopped: no further job is taken.
    pub fn leave(&self) {}

    /// Waits until no call of a job is under way; after [`Jobs::leave`].
    pub async fn calls_done(&self) {}
}
