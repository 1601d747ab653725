//! What the API server gives, by the operator's own client: the floor that hand-outs of Jobs are
//! measured against.
//!
//! ```text
//! raw_replaces [--kubeconfig FILE] --namespace NS rate [--in-flight N]
//! raw_replaces [--kubeconfig FILE] --namespace NS floor --times N --pause-ms MS
//! ```
//!
//! Writes the statuses of Jobs that have ended and prints one line of JSON. Nothing follows from
//! such a write: the claim's sequence grows, which nobody reads any more. Bodies are built as those
//! of claims are: metadata without managed fields, and the status.

use clap::{Parser, Subcommand};
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::Request as Requests;
use kube::{Client, Resource, ResourceExt};
use patchbay_api::Job;
use patchbay_operator::client::{ServerClock, connect};
use patchbay_operator::clock::WallClock;
use patchbay_operator::jobs::status_writer::body;
use patchbay_operator::metrics::Metrics;
use patchbay_reconcile::job::dispatch::DispatchLimits;
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

type WriteOutcome<T = ()> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Arguments {
    /// Kubeconfig of the cluster.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where Jobs are that have ended.
    #[arg(long)]
    namespace: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every such Job once, many at a time.
    Rate {
        /// At a time; as many as the operator has claims in flight when absent.
        #[arg(long)]
        in_flight: Option<usize>,
    },
    /// One Job again and again, one write at a time: until the write is answered and its watch
    /// event is here, and besides a round trip to the API server that reads and writes nothing.
    Floor {
        #[arg(long)]
        times: usize,
        /// Between two of them: a dispatch that comes alone finds everybody asleep, too.
        #[arg(long)]
        pause_ms: u64,
    },
}

fn main() -> WriteOutcome {
    let arguments = Arguments::parse();
    // As the operator's own main does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> WriteOutcome {
    let client = connect(
        arguments.kubeconfig.as_deref(),
        Arc::new(Metrics::new(Arc::default())),
        Arc::<ServerClock>::default(),
        None,
        WallClock::default(),
    )
    .await?;
    let api: Api<Job> = Api::namespaced(client.clone(), &arguments.namespace);
    let mut jobs = api.list(&ListParams::default()).await?.items;
    jobs.retain(|job| {
        let status = job.status.as_ref();
        status.is_some_and(|s| s.claim.is_some() && s.phase.is_some_and(|p| p.is_terminal()))
    });
    if jobs.is_empty() {
        return Err("looking for Jobs that a plugin has done: found none".into());
    }
    match arguments.what {
        What::Rate { in_flight } => {
            let in_flight = in_flight.unwrap_or(DispatchLimits::default().claims_in_flight);
            rate(&client, jobs, in_flight).await
        }
        What::Floor { times, pause_ms } => {
            floor(&client, &api, jobs.swap_remove(0), times, pause_ms).await
        }
    }
}

async fn rate(client: &Client, jobs: Vec<Job>, in_flight: usize) -> WriteOutcome {
    let (count, began) = (jobs.len(), Instant::now());
    let taken: Vec<Taken> = stream::iter(jobs)
        .map(|job| replace(client, job))
        .buffer_unordered(in_flight)
        .map_ok(|(_, taken)| taken)
        .try_collect()
        .await?;
    let all = began.elapsed().as_secs_f64();
    let first = taken.iter().map(|one| one.sent).min().unwrap_or(began);
    let last = taken.iter().map(|one| one.sent).max().unwrap_or(began);
    let bytes: usize = taken.iter().map(|one| one.bytes).sum();
    let milliseconds: Vec<f64> = taken
        .iter()
        .map(|one| one.took.as_secs_f64() * 1e3)
        .collect();
    print(&json!({
        "replaces": count,
        "in_flight": in_flight,
        // From the first one sent to the last one sent, as claims are stamped.
        "sending_seconds": (last - first).as_secs_f64(),
        "seconds": all,
        "body_bytes": bytes / count,
        "milliseconds": milliseconds,
    }))
}

async fn floor(
    client: &Client,
    api: &Api<Job>,
    mut job: Job,
    times: usize,
    pause_ms: u64,
) -> WriteOutcome {
    let only = WatchParams::default()
        .disable_bookmarks()
        .fields(&format!("metadata.name={}", job.name_any()));
    let version = job.resource_version().unwrap_or_default();
    let mut events = api.watch(&only, &version).await?.boxed();
    let (mut writes, mut seen, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let began = Instant::now();
        let written = async {
            let (written, taken) = replace(client, job.clone()).await?;
            Ok::<_, Box<dyn Error>>((written, taken.took))
        };
        let mut heard = None;
        let noticed = async {
            // The version is not known before the answer, which may come second: nobody else
            // writes to this Job, so the next event is the write's.
            match events.try_next().await? {
                Some(WatchEvent::Modified(changed)) => {
                    heard = changed.resource_version();
                    Ok(began.elapsed())
                }
                other => Err(format!("watching a Job: {other:?} came").into()),
            }
        };
        let ((written, write), notice) = tokio::try_join!(written, noticed)?;
        if written.resource_version() != heard {
            return Err("watching a Job: somebody else writes to it".into());
        }
        job = written;
        let began = Instant::now();
        client
            .request_text(Request::get("/version").body(Vec::new())?)
            .await?;
        trips.push(began.elapsed().as_secs_f64() * 1e3);
        writes.push(write.as_secs_f64() * 1e3);
        seen.push(notice.max(write).as_secs_f64() * 1e3);
    }
    print(&json!({
        "replace_ms": writes,
        "replace_and_event_ms": seen,
        "round_trip_ms": trips,
    }))
}

fn print(line: &Value) -> WriteOutcome {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

struct Taken {
    sent: Instant,
    took: Duration,
    bytes: usize,
}

/// One replace of a status by the version that was read.
async fn replace(client: &Client, mut job: Job) -> WriteOutcome<(Job, Taken)> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    job.metadata.managed_fields = None;
    let mut status = job.status.take().unwrap_or_default();
    if let Some(claim) = status.claim.as_mut() {
        claim.sequence += 1;
    }
    let sent = Instant::now();
    let body = body(&job.metadata, &status)?;
    let bytes = body.len();
    let request = Requests::new(Job::url_path(&(), Some(&namespace))).replace_subresource(
        "status",
        &name,
        &PostParams::default(),
        body,
    )?;
    let written: Job = client.request(request).await?;
    let took = sent.elapsed();
    Ok((written, Taken { sent, took, bytes }))
}
