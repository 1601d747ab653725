//! What the README tells a new user to type works as it stands there.

use super::{Case, case};
use crate::world::{Outcome, World, fail};
use std::sync::Arc;
use tokio::process::Command;

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "readme::the_first_five_minutes_work_as_written",
        first_five_minutes,
    )]
}

const README: &str = include_str!("../../../README.md");
pub(super) const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

async fn first_five_minutes(world: Arc<World>) -> Outcome {
    shell(&world, &format!("kubectl apply -f {EXAMPLES}")).await?;
    shell(
        &world,
        "kubectl wait --for=condition=Ready pbplugins --all -n patchbay-demo --timeout=120s",
    )
    .await?;
    let commands: Vec<_> = README
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    if commands.is_empty() {
        fail!("the README shows no commands");
    }
    for command in commands {
        shell(&world, command).await?;
    }
    Ok(())
}

/// Runs a line in a shell that finds our command line and kubectl.
pub(super) async fn shell(world: &World, line: &str) -> Outcome {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euc", line])
        .env("PATH", format!("{}:{path}", world.programs.display()))
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        fail!("`{line}` failed: {}", String::from_utf8_lossy(&text));
    }
    Ok(())
}
