//! Leadership: one operator of an installation acts, the others wait.
//!
//! Renewals are replaces with the resource version that the last write answered, so two
//! candidates can never both believe. A term that ends, for whatever reason, ends the process:
//! nothing in it could tell what it still may do.

pub mod lease;

use crate::client::ServerClock;
use crate::clock::WallClock;
use crate::health::{ProcessHealth, ReadinessGate};
use crate::metrics::Metrics;
use crate::skew::{self, SkewVerdict};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use lease::{DURATION, GIVE_UP, LeaseAction, LeaseObserver, POLL, RENEWAL};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Why a term ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Somebody else wrote the Lease.
    #[error("renewing the Lease: it is held by {holder:?} now")]
    Taken { holder: String },
    /// No renewal succeeded for [`GIVE_UP`].
    #[error("renewing the Lease: no success for {} s, last error: {last}", GIVE_UP.as_secs())]
    Unreachable {
        /// What the last attempt said.
        last: String,
    },
    /// The clock differs too much to judge time for others.
    #[error(
        "comparing clocks: the API server's is {seconds:.1} s ahead of ours (more than {} s is too much); set this node's clock",
        skew::TOLERANCE.as_secs()
    )]
    Clock {
        /// Server's clock minus ours.
        seconds: f64,
    },
}

/// What a candidate needs.
pub struct Candidate {
    /// Leases of the operator's own namespace.
    pub leases: Api<Lease>,
    /// Name of the Lease.
    pub name: String,
    /// Name of the pod that this process runs in, if it runs in one.
    pub pod: Option<String>,
    /// Unique name of this process: the pod's name, `_`, and a random part.
    pub identity: String,
    /// Samples of the API server's clock.
    pub clock: Arc<ServerClock>,
    /// Says who leads.
    pub metrics: Arc<Metrics>,
    /// Hears signs of life while this process stands by.
    pub health: Arc<ProcessHealth>,
    /// The time of day.
    pub wall: WallClock,
}

/// A term that has begun.
#[derive(Debug)]
pub struct Term {
    lease: Lease,
    /// The Lease's transition count, the epoch of every session of this term.
    pub epoch: u64,
}

impl Candidate {
    /// Waits until this process is the leader. Errors of the API server are waited out.
    pub async fn begin(&self) -> Term {
        let mut observer = LeaseObserver::new(&self.identity, self.pod.as_deref());
        let mut told = String::new();
        loop {
            let state = match self.attempt(&mut observer).await {
                Ok(LeaseAttempt::Won(term)) => return *term,
                Ok(LeaseAttempt::Waiting(state)) => state,
                Err(error) => format!("asking for the Lease: {error}"),
            };
            if state != told {
                tracing::info!(state, "not the leader");
                told = state;
            }
            self.health.heartbeat();
            sleep(POLL.mul_f64(0.75 + crate::retry::jitter() / 2.0)).await;
        }
    }

    async fn attempt(&self, observer: &mut LeaseObserver) -> Result<LeaseAttempt, kube::Error> {
        let lease = self.leases.get_opt(&self.name).await?;
        self.health.open_gate(ReadinessGate::ApiServer);
        // The answer just received carried a Date.
        match self.clock.verdict() {
            SkewVerdict::Right => {}
            SkewVerdict::Unknown => return Ok(LeaseAttempt::Waiting("comparing clocks".into())),
            SkewVerdict::Wrong => {
                let seconds = self.clock.middle_seconds();
                return Ok(LeaseAttempt::Waiting(
                    LeaderError::Clock { seconds }.to_string(),
                ));
            }
        }
        let seen = lease.as_ref().and_then(|lease| {
            Some((
                lease.metadata.resource_version.as_deref()?,
                lease.spec.as_ref()?,
            ))
        });
        let written = match (observer.next_action(seen, Instant::now()), lease) {
            (LeaseAction::Wait, Some(lease)) => {
                let holder = lease.spec.and_then(|s| s.holder_identity);
                return Ok(LeaseAttempt::Waiting(format!(
                    "{} leads",
                    holder.unwrap_or_default()
                )));
            }
            (LeaseAction::Take { transitions }, Some(lease)) => {
                self.leases
                    .replace(
                        &self.name,
                        &PostParams::default(),
                        &self.written(&lease, transitions, self.wall.now(), None),
                    )
                    .await
            }
            // A Lease without spec is somebody's accident; it is filled like an absent one.
            (LeaseAction::Create, Some(lease)) => {
                self.leases
                    .replace(
                        &self.name,
                        &PostParams::default(),
                        &self.written(&lease, 1, self.wall.now(), None),
                    )
                    .await
            }
            (_, None) => {
                let empty = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: None,
                };
                self.leases
                    .create(
                        &PostParams::default(),
                        &self.written(&empty, 1, self.wall.now(), None),
                    )
                    .await
            }
        };
        match written {
            Ok(lease) => {
                let epoch = transitions(&lease);
                tracing::info!(epoch, identity = self.identity, "leading");
                self.metrics.leader.set(1);
                Ok(LeaseAttempt::Won(Box::new(Term { lease, epoch })))
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(LeaseAttempt::Waiting("somebody else was quicker".into()))
            }
            Err(error) => Err(error),
        }
    }

    /// Renews until the term ends and says why. Never returns while everything is well. Dropping
    /// the future does not release the Lease; [`Candidate::release`] does.
    pub async fn hold(&self, term: &mut Term) -> LeaderError {
        let mut renewed = Instant::now();
        let mut wait = RENEWAL;
        loop {
            sleep(wait).await;
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            let attempt = timeout(left.max(Duration::from_millis(100)), self.renew(term)).await;
            let last = match attempt {
                Ok(Ok(())) => {
                    renewed = Instant::now();
                    wait = RENEWAL;
                    if self.clock.verdict() == SkewVerdict::Wrong {
                        let seconds = self.clock.middle_seconds();
                        return LeaderError::Clock { seconds };
                    }
                    continue;
                }
                Ok(Err(Renewal::Taken(holder))) => return LeaderError::Taken { holder },
                Ok(Err(Renewal::Failed(error))) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if renewed.elapsed() >= GIVE_UP {
                return LeaderError::Unreachable { last };
            }
            tracing::warn!(error = last, "the Lease was not renewed");
            wait = Duration::from_secs(1).min(GIVE_UP.saturating_sub(renewed.elapsed()));
        }
    }

    async fn renew(&self, term: &mut Term) -> Result<(), Renewal> {
        let spec = self.written(
            &term.lease,
            term.lease
                .spec
                .as_ref()
                .and_then(|s| s.lease_transitions)
                .unwrap_or(1),
            self.wall.now(),
            term.lease
                .spec
                .as_ref()
                .and_then(|s| s.acquire_time.clone()),
        );
        match self
            .leases
            .replace(&self.name, &PostParams::default(), &spec)
            .await
        {
            Ok(lease) => {
                term.lease = lease;
                Ok(())
            }
            // An unknown answer may have been a success: read before it is believed.
            Err(error) => {
                let lease = self
                    .leases
                    .get(&self.name)
                    .await
                    .map_err(|_| Renewal::Failed(error))?;
                let holder = lease
                    .spec
                    .as_ref()
                    .and_then(|s| s.holder_identity.clone())
                    .unwrap_or_default();
                if holder == self.identity && transitions(&lease) == term.epoch {
                    term.lease = lease;
                    Ok(())
                } else {
                    Err(Renewal::Taken(holder))
                }
            }
        }
    }

    /// Gives the Lease back, so that the next leader need not wait for its end.
    pub async fn release(&self, term: Term) {
        self.metrics.leader.set(0);
        let mut lease = self.written(
            &term.lease,
            i32::try_from(term.epoch).unwrap_or(i32::MAX),
            self.wall.now(),
            None,
        );
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let released = timeout(
            Duration::from_secs(3),
            self.leases
                .replace(&self.name, &PostParams::default(), &lease),
        )
        .await;
        match released {
            Ok(Ok(_)) => tracing::info!("the Lease is released"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease was not released"),
            Err(_) => tracing::warn!(error = "no answer", "the Lease was not released"),
        }
    }

    fn written(
        &self,
        read: &Lease,
        transitions: i32,
        now: Timestamp,
        acquired: Option<MicroTime>,
    ) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: read.metadata.namespace.clone(),
                resource_version: read.metadata.resource_version.clone(),
                labels: read.metadata.labels.clone(),
                annotations: read.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

enum LeaseAttempt {
    Won(Box<Term>),
    Waiting(String),
}

enum Renewal {
    Taken(String),
    Failed(kube::Error),
}

fn transitions(lease: &Lease) -> u64 {
    lease
        .spec
        .as_ref()
        .and_then(|s| s.lease_transitions)
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(0)
}
