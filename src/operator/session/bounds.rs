//! What a sidecar says is bounded on receipt: it passes on the words of a plugin, and it runs
//! beside one.

use crate::text::bounded_text;
use patchbay_protocol::session::{CommandInfo, Exit, Handshake, InputInfo, Instance};

const MAX_NAME: usize = 256;
const MESSAGE: usize = 1024;
const SERVICES: usize = 256;
const COMMANDS: usize = 256;
const INPUTS: usize = 64;
const WARNINGS: usize = 8;
const VERSIONS: usize = 16;

/// The same instance with every string and list within its limit.
pub fn bounded_instance(instance: Instance) -> Instance {
    let Instance {
        phase,
        reason,
        message,
        start_id,
        started_at_ms,
        restarts,
        last_exit,
        handshake,
        mut services,
        services_omitted,
        services_note,
        revision,
        next_start_ms,
        warnings,
        mut commands,
        commands_omitted,
    } = instance;
    let more = services.len().saturating_sub(SERVICES);
    services.truncate(SERVICES);
    let more_commands = commands.len().saturating_sub(COMMANDS);
    commands.truncate(COMMANDS);
    Instance {
        phase,
        reason: bounded_text(&reason, 64),
        message: bounded_text(&message, MESSAGE),
        start_id: bounded_text(&start_id, 64),
        started_at_ms,
        restarts,
        last_exit: last_exit.map(|exit| Exit {
            ended_by: bounded_text(&exit.ended_by, 64),
            ..exit
        }),
        handshake: handshake.map(|handshake| {
            let Handshake {
                core_version,
                app_version,
                mut offered,
                transport,
                tls,
                seconds,
            } = handshake;
            offered.truncate(VERSIONS);
            Handshake {
                core_version,
                app_version,
                offered,
                transport: bounded_text(&transport, 64),
                tls: bounded_text(&tls, 64),
                seconds: if seconds.is_finite() { seconds } else { 0.0 },
            }
        }),
        services: services.iter().map(|s| bounded_text(s, MAX_NAME)).collect(),
        services_omitted: services_omitted.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)),
        services_note: bounded_text(&services_note, MAX_NAME),
        revision,
        next_start_ms,
        warnings: warnings
            .iter()
            .take(WARNINGS)
            .map(|w| bounded_text(w, MAX_NAME))
            .collect(),
        commands: commands.iter().map(command).collect(),
        commands_omitted: commands_omitted
            .saturating_add(u32::try_from(more_commands).unwrap_or(u32::MAX)),
    }
}

/// One input more than is allowed stays, so that the command is seen to have too many.
fn command(command: &CommandInfo) -> CommandInfo {
    let inputs =
        |list: &[InputInfo]| -> Vec<_> { list.iter().take(INPUTS + 1).map(input).collect() };
    CommandInfo {
        name: bounded_text(&command.name, MAX_NAME),
        tooltip: bounded_text(&command.tooltip, MAX_NAME),
        output: command.output,
        inputs: inputs(&command.inputs),
        optional_inputs: inputs(&command.optional_inputs),
    }
}

fn input(input: &InputInfo) -> InputInfo {
    InputInfo {
        name: bounded_text(&input.name, MAX_NAME),
        r#type: bounded_text(&input.r#type, MAX_NAME),
        tooltip: bounded_text(&input.tooltip, MAX_NAME),
        value: bounded_text(&input.value, MAX_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundless_instance_becomes_a_bounded_one() {
        let huge = "x".repeat(100_000);
        let bounded = bounded_instance(Instance {
            reason: huge.clone(),
            message: huge.clone(),
            start_id: huge.clone(),
            services: vec![huge.clone(); 300],
            services_omitted: 7,
            services_note: huge.clone(),
            warnings: vec![huge.clone(); 100],
            handshake: Some(Handshake {
                offered: vec![1; 1000],
                transport: huge.clone(),
                tls: huge.clone(),
                seconds: f64::NAN,
                ..Handshake::default()
            }),
            commands: vec![
                CommandInfo {
                    name: huge.clone(),
                    inputs: vec![
                        InputInfo {
                            value: huge.clone(),
                            ..InputInfo::default()
                        };
                        100
                    ],
                    ..CommandInfo::default()
                };
                300
            ],
            commands_omitted: 1,
            last_exit: Some(Exit {
                ended_by: huge,
                ..Exit::default()
            }),
            ..Instance::default()
        });
        assert_eq!(bounded.services.len(), 256);
        assert_eq!(bounded.services_omitted, 51);
        assert_eq!(bounded.warnings.len(), 8);
        assert_eq!(bounded.commands.len(), 256);
        assert_eq!(bounded.commands_omitted, 45);
        assert_eq!(bounded.commands[0].name.len(), 256);
        assert_eq!(bounded.commands[0].inputs.len(), 65);
        assert_eq!(bounded.commands[0].inputs[0].value.len(), 256);
        let size: usize = bounded.services.iter().map(String::len).sum::<usize>()
            + bounded.message.len()
            + bounded.reason.len();
        assert!(size <= 256 * 256 + 1024 + 64);
        assert_eq!(bounded.handshake.unwrap().seconds, 0.0);
    }
}
