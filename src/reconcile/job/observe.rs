//! What the operator saw of one Job. Nothing else enters a decision of the pass.

use jiff::Timestamp;
use patchbay_api::plugin_status::AdvertisedCommand;
use patchbay_api::{FamilySpec, Job, Plugin};

/// Everything about one Job at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object, with its last known status.
    pub job: Job,
    /// The Plugin that it names; `None` when it does not exist.
    pub plugin: Option<PluginView>,
    /// The pod that has the job.
    pub holder: HolderView,
    /// Whether claims are being written at this moment.
    pub rush: bool,
    /// The moment of this look, by the leader's clock.
    pub now: Timestamp,
    /// A draw from 0 to 1, for the wait before a further attempt.
    pub spread: f64,
}

/// What a Job has to know about its Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginView {
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Its family; `None` when it names none.
    pub family: Option<FamilySpec>,
    /// The commands that it advertises; `None` before it has said any.
    pub commands: Option<Vec<AdvertisedCommand>>,
    /// Whether that list is whole. What is not in a list that was cut may still be known.
    pub complete: bool,
}

impl PluginView {
    /// Reads a Plugin.
    pub fn of(plugin: &Plugin) -> Self {
        let provides = plugin
            .status
            .as_ref()
            .and_then(|status| status.provides.as_ref());
        Self {
            deleting: plugin.metadata.deletion_timestamp.is_some(),
            family: plugin.spec.protocol.family_spec(),
            // A plugin that starts has said nothing yet; one that runs has at least a placeholder.
            commands: provides
                .map(|provides| provides.commands.clone())
                .filter(|commands| !commands.is_empty()),
            complete: provides.is_some_and(|provides| provides.omitted == 0),
        }
    }
}

/// The pod that has a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderView {
    /// Nobody has it, or the operator cannot tell.
    Unknown,
    /// The pod with that uid is there and has not ended.
    Alive,
    /// The pod with that uid does not exist any more, or has ended for good.
    Gone {
        /// What was seen, such as "pod scraper-0-1 was deleted".
        why: String,
    },
}
