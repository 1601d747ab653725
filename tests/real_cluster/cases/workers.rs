//! External workers connect through the Service; each gets its own jobs only.

use super::{Case, case};
use crate::world::{Outcome, World};
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "workers::each_of_three_addresses_gets_its_own_jobs",
        three_workers,
    )]
}

async fn three_workers(_world: Arc<World>) -> Outcome {
    Ok(())
}
