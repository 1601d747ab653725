//! The API server in memory, over which the operator is tested, answers as a real one.

use super::{Case, case};
use crate::sandbox::Sandbox;
use crate::world::{Outcome, Why, World, until};
use patchbay_fake_api::script;
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "requests::the_api_server_answers_as_the_one_in_memory",
        answers,
    )]
}

async fn answers(world: Arc<World>) -> Outcome {
    let sandbox = Sandbox::new(world, "requests").await?;
    // The operator says once that the Plugin is missing.
    let settled = || async {
        let judged = || async {
            let job = sandbox.jobs().get(script::JOB).await?;
            Ok(job.data["status"]["phase"].is_string().then_some(()))
        };
        until("the operator has looked at the Job", judged)
            .await
            .map_err(|why| why.0)
    };
    script::run(&sandbox.world.client, &sandbox.name, settled)
        .await
        .map_err(Why)?;
    sandbox.close().await
}
