//! Jobs, on the sidecar's side: asks for them, delivers each at most once, keeps what the plugin gives
//! back until the operator has stored it.
//!
//! `claims/` decides and `claim_driver.rs` carries out; `ledger.rs` and `spool.rs` are the files. How a
//! plugin gets a job is its family's: `family/pcp/jobs_api.rs` is where one asks,
//! `family/go_plugin/calls.rs` calls the other.
//!
//! The rest of the sidecar holds a [`Jobs`] and tells it what happens to the plugin process.

pub mod claim_driver;
pub mod claims;
pub mod clock;
pub mod ledger;
pub mod rows;
pub mod spool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use patchbay_launcher::control::{Exit, StartId};
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::session::CommandInfo;
use patchbay_protocol::session::from_operator::Message as Down;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use crate::error::SystemError;
use crate::family::pcp::commands::Advertised;
use crate::family::pcp::jobs_api;
use crate::family::{self, JobDelivery};
use crate::paths::Root;
pub use claim_driver::OpenedSession;
use claim_driver::{ClaimDriver, Shared};
use claims::ClaimsSnapshot;
use claims::event::{CallerId, ClaimId, Event, Room, RowAnswer, RowGiven, RowId, RowOwner};
use spool::Spool;

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
pub struct Jobs(Arc<Inner>);

struct Inner {
    root: Root,
    driver: Shared,
    spool: Spool,
    greeting: watch::Sender<Option<Greeting>>,
    workers: Mutex<Option<Arc<dyn Translate>>>,
    /// When time has to be looked at next.
    wake: watch::Sender<Option<u64>>,
    /// Calls under way.
    calls: watch::Sender<usize>,
    /// Jobs that the plugin process has and has not answered.
    held: watch::Sender<usize>,
    /// Rows were stored.
    freed: Notify,
    /// Whether the socket is there already.
    listens: Mutex<bool>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Reads the ledger and begins. Within a runtime.
    ///
    /// # Errors
    /// The ledger's folder cannot be used.
    pub fn start(root: &Root) -> Result<Jobs, SystemError> {
        let driver = ClaimDriver::open(root)?;
        let spool = driver.spool().clone();
        let jobs = Jobs(Arc::new(Inner {
            root: root.clone(),
            driver: Arc::new(Mutex::new(driver)),
            spool,
            greeting: watch::Sender::new(None),
            workers: Mutex::new(None),
            wake: watch::Sender::new(None),
            calls: watch::Sender::new(0),
            held: watch::Sender::new(0),
            freed: Notify::new(),
            listens: Mutex::new(false),
        }));
        tokio::spawn(look_at_time(
            Arc::downgrade(&jobs.0),
            jobs.0.wake.subscribe(),
        ));
        Ok(jobs)
    }

    /// The plugin process with this id is about to be ordered, or was found running by a sidecar
    /// that came later. Any other process is gone from now on.
    pub fn plugin_started(&self, start_id: StartId) {
        self.with(|driver| driver.plugin_started(self, start_id));
    }

    /// That process is gone; `exit` is absent when nobody saw how. Also to be called for the
    /// process of an earlier sidecar's record that is found dead.
    pub fn plugin_ended(&self, start_id: StartId, exit: Option<Exit>) {
        self.with(|driver| driver.plugin_ended(self, start_id, exit));
    }

    /// That process is being stopped: no further job goes to it. Resolves when it has answered all
    /// that it has.
    pub fn stopping(&self, start_id: StartId) -> impl Future<Output = ()> + Send + use<> {
        self.handle(Event::Stopping(start_id));
        let mut held = self.0.held.subscribe();
        async move {
            let _ = held.wait_for(|held| *held == 0).await;
        }
    }

    /// Family `goPlugin`: the process is ready and is called through `channel`, or is not any more.
    pub fn plugin_serves(&self, start_id: StartId, channel: Option<Channel>) {
        self.with(|driver| driver.serves(self, start_id, channel));
    }

    /// The configuration in force.
    pub fn configure(&self, config: &PodConfig) {
        let per_pod = match family::of(&config.protocol).job_delivery(&config.jobs) {
            JobDelivery::Calls { per_pod } => per_pod,
            JobDelivery::Socket => {
                self.listen();
                0
            }
        };
        self.handle(Event::Configured {
            per_pod,
            recover_ms: u64::from(config.jobs.recover_seconds) * 1000,
        });
    }

    fn listen(&self) {
        let mut listens = lock(&self.0.listens);
        if *listens {
            return;
        }
        match jobs_api::serve(&self.0.root.jobs_socket(), self.clone()) {
            Ok(()) => *listens = true,
            Err(error) => tracing::error!(%error, "PCP controller plugins cannot ask for jobs"),
        }
    }

    /// Changes when the plugin has introduced itself; `None` before and after its process ended.
    pub fn greetings(&self) -> watch::Receiver<Option<Greeting>> {
        self.0.greeting.subscribe()
    }

    /// From now on locations in requests are translated by this.
    pub fn translate_with(&self, workers: Arc<dyn Translate>) {
        *lock(&self.0.workers) = Some(workers);
    }

    pub(crate) fn workers(&self) -> Option<Arc<dyn Translate>> {
        lock(&self.0.workers).clone()
    }

    /// The sidecar is being stopped: no further job is taken.
    pub fn leave(&self) {
        self.handle(Event::ShuttingDown);
    }

    /// Waits until no call of a job is under way; after [`Jobs::leave`].
    pub async fn calls_done(&self) {
        let mut calls = self.0.calls.subscribe();
        let _ = calls.wait_for(|calls| *calls == 0).await;
    }

    /// A session begins: nothing of an older one is heard from here on. `knows_jobs` is false for
    /// an operator of session version 1.
    pub fn open_session(&self, session: u64, knows_jobs: bool) -> OpenedSession {
        self.with(|driver| driver.open_session(self, session, knows_jobs))
    }

    /// The operator of that session said this.
    pub fn handle_operator_message(&self, session: u64, message: Down) {
        self.handle(Event::Down(session, message));
    }

    /// That session is over.
    pub fn close_session(&self, session: u64) {
        self.with(|driver| driver.close_session(self, session));
    }

    /// The state of the claims, for people.
    pub fn snapshot(&self) -> ClaimsSnapshot {
        self.with(|driver| driver.machine().snapshot())
    }

    pub fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// Hears one thing.
    pub(crate) fn handle(&self, event: Event) {
        self.with(|driver| driver.handle(self, event));
    }

    /// Does something with the claim driver, and tells everybody what came of it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut ClaimDriver) -> T) -> T {
        let mut driver = lock(&self.0.driver);
        let done = act(&mut driver);
        let (wake, calls) = (driver.wake_at(), driver.machine().calls());
        let held = driver.machine().unanswered();
        let current = driver.current();
        let said = driver
            .advertised()
            .filter(|said| current == Some(StartId(said.start_id)));
        let changed = |known: &Option<Greeting>| {
            known.as_ref().map(|known| known.start_id) != said.map(|said| StartId(said.start_id))
        };
        let greeting = changed(&self.0.greeting.borrow()).then(|| said.map(|said| said.greeting()));
        drop(driver);
        if let Some(greeting) = greeting {
            self.0.greeting.send_replace(greeting);
        }
        let differs = |known: &mut usize| std::mem::replace(known, calls) != calls;
        self.0.calls.send_if_modified(differs);
        let differs = |known: &mut usize| std::mem::replace(known, held) != held;
        self.0.held.send_if_modified(differs);
        let differs = |known: &mut Option<u64>| std::mem::replace(known, wake) != wake;
        self.0.wake.send_if_modified(differs);
        done
    }

    /// The plugin introduced itself.
    pub(crate) fn introduce(&self, advertised: Advertised) {
        self.with(|driver| driver.introduce(advertised.clone()));
        // Also when the same process says something else than before.
        let greeting = advertised.greeting();
        self.0.greeting.send_if_modified(|known| {
            let other = known
                .as_ref()
                .is_some_and(|known| known.start_id == greeting.start_id && *known != greeting);
            if other {
                *known = Some(greeting);
            }
            other
        });
    }

    pub(crate) fn room(&self, whose: &RowOwner, id: RowId) -> Room {
        self.with(|driver| driver.machine().room(whose, id))
    }

    /// `None` when it could not be written down: to be given again.
    pub(crate) fn give_row(&self, row: impl FnOnce(CallerId) -> RowGiven) -> Option<RowAnswer> {
        self.with(|driver| {
            let caller = driver.caller();
            driver.handle(self, Event::RowGiven(Box::new(row(caller))));
            driver.row_answer(caller)
        })
    }

    pub(crate) fn freed(&self) {
        self.0.freed.notify_waiters();
    }

    pub(crate) fn call_ended(&self, claim: ClaimId) {
        self.with(|driver| driver.call_ended(claim));
    }
}

async fn look_at_time(jobs: std::sync::Weak<Inner>, mut wake: watch::Receiver<Option<u64>>) {
    loop {
        let at = *wake.borrow_and_update();
        let pause = async {
            match at {
                // The clock counts whole milliseconds.
                Some(at) => {
                    let left = at.saturating_sub(clock::since_boot()) + 1;
                    tokio::time::sleep(Duration::from_millis(left)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wake.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = pause => match jobs.upgrade() {
                Some(inner) => Jobs(inner).handle(Event::Tick),
                None => return,
            },
        }
    }
}
