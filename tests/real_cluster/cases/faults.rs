//! The installation itself suffers: operators die between two writes, the API server goes away.

use super::{Case, case};
use crate::operator::{self, Stage};
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::world::{Outcome, World, fail, until};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("faults::a_pass_without_a_difference_writes_nothing", quiet),
        case(
            "faults::the_api_server_is_gone_for_a_minute",
            without_api_server,
        ),
        case(
            "faults::the_operator_dies_after_each_of_its_writes",
            dies_after_each_write,
        ),
    ]
}

async fn quiet(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "quiet").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    sandbox.ready("kv").await?;
    let before = settled(&sandbox).await?;
    // A label of the user's own makes a pass and leaves nothing to do.
    for round in 0..3 {
        let label = json!({"metadata": {"labels": {"a-users-label": round.to_string()}}});
        sandbox
            .plugins()
            .patch("kv", &PatchParams::default(), &Patch::Merge(&label))
            .await?;
        let done = before.passes + round + 1;
        until("the operator made a pass", || async {
            Ok((operator::numbers(&world).await?.passes >= done).then_some(()))
        })
        .await?;
    }
    let after = operator::numbers(&world).await?;
    if after.writes != before.writes {
        fail!(
            "{} writes without a difference",
            after.writes - before.writes
        );
    }
    sandbox.close().await
}

/// Waits until the operator's numbers stood still for a few looks.
async fn settled(sandbox: &Sandbox) -> Outcome<operator::Numbers> {
    let world = &sandbox.world;
    let still = std::sync::Mutex::new((operator::numbers(world).await?, 0));
    until("the operator has nothing left to do", || async {
        let now = operator::numbers(world).await?;
        let Ok(mut still) = still.lock() else {
            fail!("a look panicked")
        };
        *still = if now == still.0 {
            (now, still.1 + 1)
        } else {
            (now, 0)
        };
        Ok((still.1 >= 10).then_some(now))
    })
    .await
}

async fn without_api_server(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "no-api-server").await?;
    sandbox.apply(&Plugin::kv_go("kv")).await?;
    let before = sandbox.ready("kv").await?["instances"][0].clone();
    world.cluster(&["stop-apiserver"]).await?;
    // The fault's length is the story: an outage of one minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.cluster(&["start-apiserver"]).await?;
    sandbox
        .apply(&Plugin::kv_go("kv").with("/replicas", json!(2)))
        .await?;
    let status = sandbox
        .plugin_until("kv", "a change after the outage is carried out", |status| {
            status["readyReplicas"] == 2
        })
        .await?;
    let same = status["instances"].as_array().is_some_and(|all| {
        all.iter()
            .any(|instance| instance["startId"] == before["startId"])
    });
    if !same {
        fail!("the plugin was started again because the API server was away");
    }
    sandbox.close().await
}

async fn dies_after_each_write(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world.clone(), "dying-operator").await?;
    let stage = Stage::clear(&world).await?;
    let told = dying(&sandbox, &stage).await;
    stage.close(told).await?;
    sandbox.close().await
}

/// One Plugin meets an operator that dies after its first write, then one that dies after its
/// second, and so on, until one gets through.
async fn dying(sandbox: &Sandbox, stage: &Stage) -> Outcome {
    let world = &sandbox.world;
    for writes in 1..=60 {
        let name = format!("kv-{writes}");
        sandbox.apply(&Plugin::kv_go(&name)).await?;
        let mut dying = stage
            .operator(&["--abort-after-writes", &writes.to_string()])
            .await?;
        let died = tokio::select! {
            ended = dying.ended() => { ended?; true }
            ready = sandbox.ready(&name) => { ready?; false }
        };
        dying.bury(world).await?;
        if died {
            let whole = stage.operator(&[]).await?;
            sandbox.ready(&name).await?;
            whole.bury(world).await?;
        }
        let pods: BTreeSet<_> = sandbox
            .pods(&name)
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        if pods.len() != 1 {
            fail!("after a death at write {writes} there are pods {pods:?}");
        }
        if !died {
            let deaths = writes - 1;
            println!("  died after each of the first {deaths} writes and converged every time");
            return Ok(());
        }
    }
    fail!("the operator still dies after 60 writes: it does not converge")
}
