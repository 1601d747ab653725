//! The stories, by subject. A story's name is a sentence.

mod bad_input;
mod calls;
mod chaos;
mod debug;
mod faults;
mod job_faults;
mod jobs;
mod lifecycle;
mod network;
mod readme;
mod requests;
mod swaps;
mod workers;

use crate::world::{Outcome, World};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What a story does: it takes the world and ends well or with a reason.
type Story = Box<dyn Fn(Arc<World>) -> Pin<Box<dyn Future<Output = Outcome>>> + Send + Sync>;

pub struct Case {
    /// What has to be true.
    pub name: &'static str,
    /// Fails with the reason when it is not.
    pub story: Story,
    /// Whether it kills what only the embedded cluster may lose.
    pub violent: bool,
}

impl Case {
    /// Keeps the story to the embedded cluster.
    fn violent(self) -> Case {
        Case {
            violent: true,
            ..self
        }
    }
}

/// Wraps an asynchronous function as a story.
fn case<F>(name: &'static str, story: impl Fn(Arc<World>) -> F + Send + Sync + 'static) -> Case
where
    F: Future<Output = Outcome> + 'static,
{
    Case {
        name,
        story: Box::new(move |world| Box::pin(story(world))),
        violent: false,
    }
}

/// Stories that leave the installation alone.
pub fn side_by_side() -> Vec<Case> {
    [
        calls::cases(),
        lifecycle::cases(),
        swaps::cases(),
        network::cases(),
        requests::cases(),
        debug::cases(),
        bad_input::cases(),
        jobs::cases(),
        workers::cases(),
        job_faults::side_by_side(),
        readme::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Stories that stop the operator or the API server.
pub fn one_by_one() -> Vec<Case> {
    [faults::cases(), job_faults::one_by_one(), chaos::cases()]
        .into_iter()
        .flatten()
        .map(Case::violent)
        .collect()
}
