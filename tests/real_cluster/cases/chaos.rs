//! Thousands of jobs while plugins, sidecars, the operator and the API server are killed at
//! random. An independent checker judges afterwards, from records that the product did not write.

use super::{Case, case};
use crate::chronicle::Chronicle;
use crate::job::{Job, from_now};
use crate::operator;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Jobs of a run, unless CHAOS_JOBS says otherwise.
const JOBS: usize = 10_000;
/// Pods that take them.
const REPLICAS: usize = 6;
/// Creates in flight.
const IN_FLIGHT: usize = 8;
/// Nothing may stand still for so long.
const STANDSTILL: Duration = Duration::from_secs(180);

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "chaos::jobs_keep_their_guarantees_while_everything_is_killed",
        chaos,
    )]
}

async fn chaos(world: Arc<World>) -> Outcome {
    let count = match std::env::var("CHAOS_JOBS") {
        Ok(text) => text.parse()?,
        Err(_) => JOBS,
    };
    let checker = match std::env::var_os("PATCHBAY_CHECKER") {
        Some(path) => PathBuf::from(path),
        None => fail!("PATCHBAY_CHECKER names no program; run `make test`"),
    };
    let seed = match std::env::var("CHAOS_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => u64::from(std::process::id()),
    };
    println!("  CHAOS_SEED={seed} CHAOS_JOBS={count}");
    let sandbox = Sandbox::new(world.clone(), "chaos").await?;
    let folder = records(&world).await?;
    let volume = Diaries::make(&sandbox, &folder.join("diaries")).await?;
    let actor = sandbox
        .actor()
        .await?
        .with("/replicas", json!(REPLICAS))
        .with("/restart", json!({"initialSeconds": 1, "maxSeconds": 2}))
        .with("/jobs", json!({"recoverSeconds": 1}))
        .with(
            "/env",
            json!([
                {"name": "DIARY", "value": "/diary"},
                {"name": "CLIENTS", "value": "10.0.0.1,10.0.0.2,"},
            ]),
        )
        .with(
            "/pod/volumes",
            json!([
                {"name": "code", "configMap": {"name": "actor"}},
                {"name": "diary", "persistentVolumeClaim": {"claimName": "diary"}},
            ]),
        )
        .with(
            "/volumeMounts",
            json!([
                {"name": "code", "mountPath": "/plugins", "readOnly": true},
                {"name": "diary", "mountPath": "/diary"},
            ]),
        );
    sandbox.apply(&actor).await?;
    sandbox
        .plugin_until("actor", "every pod is ready", |s| {
            s["readyReplicas"] == REPLICAS
        })
        .await?;
    let chronicle = Chronicle::begin(&sandbox, &folder.join("chronicle")).await?;

    let began = Instant::now();
    let over = AtomicBool::new(false);
    let (submitted, killed, ended) = tokio::join!(
        submit(&sandbox, count, seed),
        kill(&sandbox, seed, &over),
        async {
            let ended = all_ended(&chronicle, count).await;
            over.store(true, Ordering::Relaxed);
            ended
        },
    );
    submitted?;
    let killed = killed?;
    ended?;
    println!(
        "  {count} jobs in {:.0} s, while were killed: {killed}",
        began.elapsed().as_secs_f64()
    );
    chronicle.end();
    let verdict = tokio::process::Command::new(&checker)
        .arg("-chronicle")
        .arg(folder.join("chronicle"))
        .arg("-audit")
        .arg(world.cluster(&["audit-log"]).await?.trim())
        .arg("-diaries")
        .arg(folder.join("diaries"))
        .args(["-namespace", &sandbox.name])
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&verdict.stdout).into_owned();
    for line in text.lines() {
        println!("  {line}");
    }
    if !verdict.status.success() {
        fail!(
            "the checker's verdict (records in {}):\n{text}{}",
            folder.display(),
            String::from_utf8_lossy(&verdict.stderr)
        );
    }
    sandbox.close().await?;
    volume.remove(&world).await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A folder beside the cluster's own state, so that it goes with the cluster.
async fn records(world: &World) -> Outcome<PathBuf> {
    let kubeconfig = PathBuf::from(world.cluster(&["kubeconfig"]).await?.trim());
    let Some(state) = kubeconfig.parent() else {
        fail!(
            "the cluster's kubeconfig {} has no folder",
            kubeconfig.display()
        );
    };
    let folder = state.join("chaos");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(folder.join("diaries"))?;
    Ok(folder)
}

/// A volume of the node that outlives every pod.
struct Diaries(String);

impl Diaries {
    async fn make(sandbox: &Sandbox, folder: &Path) -> Outcome<Diaries> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))?;
        let name = format!("{}-diary", sandbox.name);
        let volumes: Api<PersistentVolume> = Api::all(sandbox.world.client.clone());
        let diaries = Diaries(name.clone());
        // One of a run that did not come to its end.
        diaries.remove(&sandbox.world).await?;
        until("the volume of another run is gone", || async {
            Ok(volumes.get_opt(&name).await?.is_none().then_some(()))
        })
        .await?;
        let volume = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }))?;
        volumes.create(&PostParams::default(), &volume).await?;
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "diary"},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))?;
        sandbox.api().create(&PostParams::default(), &claim).await?;
        Ok(diaries)
    }

    async fn remove(&self, world: &World) -> Outcome {
        let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
        match volumes.delete(&self.0, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Random numbers that a seed repeats: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn one(number: usize, dice: &mut Dice) -> Job {
    let name = format!("job-{number}");
    let job = match dice.roll(200) {
        0 => Job::act(&name, "os._exit(3)"),
        1..10 => Job::act(
            &name,
            "self.respond_output(job, 'a', transition_state=False); self.respond_output(job, 'b')",
        ),
        10..15 => Job::act(&name, "time.sleep(0.3); self.respond_output(job, 'slow')"),
        15..18 => Job::act(&name, "self.respond_error(job, 'as ordered')"),
        18..20 => Job::act(&name, "self.respond_output(job, b'x' * 100000)"),
        _ => Job::echo(&name, &name),
    };
    let job = match dice.roll(3) {
        0 => job.with("/target/client", json!("10.0.0.1")),
        1 => job.with("/target/client", json!("10.0.0.2")),
        _ => job,
    };
    let job = match dice.roll(4) {
        0 => job.with("/startTime", from_now(-(dice.roll(60) as i64))),
        1 => job.with("/startTime", from_now(dice.roll(20) as i64)),
        _ => job,
    };
    match dice.roll(20) {
        0 => job.with("/expireTime", from_now(20 + dice.roll(20) as i64)),
        1 => job.with("/priority", json!(dice.roll(5))),
        _ => job,
    }
}

/// Creates every job, however often the API server is away.
async fn submit(sandbox: &Sandbox, count: usize, seed: u64) -> Outcome {
    let mut dice = Dice(seed);
    stream::iter(0..count)
        .map(|number| {
            let job = one(number, &mut dice);
            async move {
                let object = job.object()?;
                loop {
                    match sandbox.jobs().create(&PostParams::default(), &object).await {
                        Ok(_) => return Ok(()),
                        // An answer was lost, and the job is there.
                        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
                        Err(kube::Error::Api(status))
                            if status.code < 500 && status.code != 429 =>
                        {
                            fail!("making {}: {}", job.name, status.message)
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                    }
                }
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<Outcome>>()
        .await
        .into_iter()
        .collect()
}

/// Kills something every other second, until everything has ended. A container that is killed too
/// often is held back by the kubelet for minutes, so each kind has its number.
async fn kill(sandbox: &Sandbox, seed: u64, over: &AtomicBool) -> Outcome<String> {
    let mut dice = Dice(seed ^ 0x6b69_6c6c);
    let world = &sandbox.world;
    let (mut plugins, mut sidecars, mut operators, mut servers) = (0, 0, 0, 0);
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(500 + dice.roll(2500))).await;
        let what = dice.roll(10);
        // The API server may be away: then nothing is killed this time.
        let pods = sandbox.pods("actor").await.unwrap_or_default();
        let Some(pod) = pods.get(dice.roll(REPLICAS as u64) as usize) else {
            continue;
        };
        let pod = pod.name_any();
        match what {
            0..6 => plugins += usize::from(sandbox.kill_plugin(&pod).await.is_ok()),
            6..8 if sidecars < 3 * REPLICAS => {
                sidecars += usize::from(sandbox.kill_sidecar(&pod).await.is_ok());
            }
            8 if operators < 4 => {
                let labels = "app.kubernetes.io/name=patchbay";
                operators += usize::from(world.kill_all(operator::NAMESPACE, labels).await.is_ok());
            }
            9 if servers < 6 => {
                world.cluster(&["kill-apiserver"]).await?;
                servers += 1;
            }
            _ => {}
        }
    }
    Ok(format!(
        "{plugins} plugins, {sidecars} sidecars, {operators} operators, {servers} API servers"
    ))
}

/// Waits until every job has ended; the number has to grow.
async fn all_ended(chronicle: &Chronicle, count: usize) -> Outcome {
    let (mut best, mut since) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (ended, there) = chronicle.ended()?;
        if ended >= count {
            return Ok(());
        }
        if ended + there > best {
            (best, since) = (ended + there, Instant::now());
        }
        if since.elapsed() > STANDSTILL {
            fail!(
                "{ended} of {there} jobs have ended and nothing has moved for {STANDSTILL:?}: {}",
                chronicle.open().join(", ")
            );
        }
    }
}
