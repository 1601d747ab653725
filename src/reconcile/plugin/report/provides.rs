//! `status.provides`: what the plugin that runs longest says that it offers.

use crate::plugin::assess::Assessed;
use crate::plugin::observe::{Instance, Observed};
use patchbay_api::PluginStatus;
use patchbay_api::plugin_status::{
    AdvertisedCommand, MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_INPUTS, MAX_SERVICES, Provides,
};
use std::collections::BTreeSet;

pub(super) fn provides(
    observed: &Observed,
    speaker: &Assessed,
    before: &PluginStatus,
) -> Option<Provides> {
    let instance = observed
        .sessions
        .get(&speaker.line.pod_uid)
        .and_then(|session| session.instance.as_ref());
    let Some(instance) = instance else {
        return before.provides.clone();
    };
    let (services, more_services) = services(instance);
    let (commands, more_commands) = commands(instance);
    let more = i64::try_from(more_services + more_commands).unwrap_or(i64::MAX);
    Some(Provides {
        services,
        commands,
        omitted: i64::from(instance.services_omitted)
            .saturating_add(i64::from(instance.commands_omitted))
            .saturating_add(more),
    })
}

fn services(instance: &Instance) -> (Vec<String>, usize) {
    let mut services = instance.services.clone();
    services.sort();
    services.dedup();
    let more = services.len().saturating_sub(MAX_SERVICES);
    services.truncate(MAX_SERVICES);
    (services, more)
}

/// In the plugin's own order. The list is keyed by name in the schema and counts against the size
/// of the object: a second command of a name, one with too many inputs and everything beyond the
/// limits are counted instead.
fn commands(instance: &Instance) -> (Vec<AdvertisedCommand>, usize) {
    let mut names = BTreeSet::new();
    let mut room = MAX_COMMAND_BYTES;
    let mut kept = Vec::new();
    for command in &instance.commands {
        let fits = command.inputs.len() <= MAX_INPUTS
            && command.optional_inputs.len() <= MAX_INPUTS
            && kept.len() < MAX_COMMANDS;
        let size = size(command);
        if fits && size <= room && names.insert(command.name.as_str()) {
            room -= size;
            kept.push(command.clone());
        }
    }
    let more = instance.commands.len() - kept.len();
    (kept, more)
}

/// Bytes of its texts, and as much again for the names of the fields as they need.
fn size(command: &AdvertisedCommand) -> usize {
    const FIELDS: usize = 48;
    let inputs = command.inputs.iter().chain(&command.optional_inputs);
    let texts: usize = inputs
        .map(|i| FIELDS + i.name.len() + i.type_.len() + i.tooltip.len() + i.value.len())
        .sum();
    FIELDS + command.name.len() + command.tooltip.len() + texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::observe::Phase;
    use crate::plugin::samples::instance;
    use patchbay_api::plugin_status::AdvertisedInput;

    fn command(name: &str, inputs: usize) -> AdvertisedCommand {
        AdvertisedCommand {
            name: name.to_owned(),
            inputs: vec![AdvertisedInput::default(); inputs],
            ..AdvertisedCommand::default()
        }
    }

    fn kept(commands: Vec<AdvertisedCommand>) -> (Vec<String>, usize) {
        let (kept, more) = super::commands(&Instance {
            commands,
            ..instance(Phase::Ready)
        });
        (kept.into_iter().map(|c| c.name).collect(), more)
    }

    #[test]
    fn commands_keep_their_order_and_duplicates_are_counted() {
        let list = vec![command("wget", 1), command("ls", 0), command("wget", 2)];
        assert_eq!(kept(list), (vec!["wget".to_owned(), "ls".to_owned()], 1));
    }

    #[test]
    fn commands_beyond_the_limits_are_counted_as_omitted() {
        let (names, more) = kept(vec![command("a", MAX_INPUTS + 1), command("b", MAX_INPUTS)]);
        assert_eq!((names, more), (vec!["b".to_owned()], 1));

        let many = (0..MAX_COMMANDS + 3).map(|n| command(&n.to_string(), 0));
        let (names, more) = kept(many.collect());
        assert_eq!((names.len(), more), (MAX_COMMANDS, 3));

        let wordy = (0..MAX_COMMANDS).map(|n| AdvertisedCommand {
            inputs: vec![
                AdvertisedInput {
                    tooltip: "x".repeat(256),
                    ..AdvertisedInput::default()
                };
                MAX_INPUTS
            ],
            ..command(&n.to_string(), 0)
        });
        let (names, more) = kept(wordy.collect());
        assert_eq!(names.len() + more, MAX_COMMANDS);
        assert!(names.len() < 20, "{}", names.len());
    }
}
