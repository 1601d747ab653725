//! From the wire to the words of `patchbay-reconcile`: a session's message as it enters a
//! decision.

use super::Snapshot;
use jiff::Timestamp;
use patchbay_api::plugin_status::{AdvertisedCommand, AdvertisedInput};
use patchbay_protocol::session as wire;
use patchbay_reconcile::plugin::observe::{Exit, ExitHow, Handshake, Instance, Phase, Session};

impl From<Snapshot> for Session {
    fn from(snapshot: Snapshot) -> Self {
        Session {
            attached: snapshot.attached,
            trouble: snapshot.trouble,
            instance: snapshot.instance.map(instance),
        }
    }
}

fn instance(wire: wire::Instance) -> Instance {
    Instance {
        phase: phase(wire.phase()),
        reason: wire.reason,
        message: wire.message,
        start_id: wire.start_id,
        started_at: time(wire.started_at_ms),
        restarts: wire.restarts,
        last_exit: wire.last_exit.map(|exit| Exit {
            how: match exit.how {
                Some(wire::exit::How::Code(code)) => ExitHow::Code(code),
                Some(wire::exit::How::Signal(signal)) => ExitHow::Signal(signal),
                None => ExitHow::Unknown,
            },
            ended_by: exit.ended_by,
        }),
        handshake: wire.handshake.map(|handshake| Handshake {
            core_version: handshake.core_version,
            app_version: handshake.app_version,
            offered: handshake.offered,
            transport: handshake.transport,
            tls: handshake.tls,
            seconds: handshake.seconds,
        }),
        services: wire.services,
        services_omitted: wire.services_omitted,
        services_note: wire.services_note,
        revision: wire.revision,
        next_start: time(wire.next_start_ms),
        warnings: wire.warnings,
        commands: wire.commands.into_iter().map(command).collect(),
        commands_omitted: wire.commands_omitted,
    }
}

fn command(wire: wire::CommandInfo) -> AdvertisedCommand {
    AdvertisedCommand {
        name: wire.name,
        tooltip: wire.tooltip,
        output: wire.output,
        inputs: wire.inputs.into_iter().map(input).collect(),
        optional_inputs: wire.optional_inputs.into_iter().map(input).collect(),
    }
}

fn input(wire: wire::InputInfo) -> AdvertisedInput {
    AdvertisedInput {
        name: wire.name,
        type_: wire.r#type,
        tooltip: wire.tooltip,
        value: wire.value,
    }
}

fn phase(phase: wire::Phase) -> Phase {
    match phase {
        wire::Phase::Unspecified | wire::Phase::WaitingForLauncher => Phase::WaitingForLauncher,
        wire::Phase::AwaitingPermission => Phase::Held,
        wire::Phase::Starting => Phase::Starting,
        wire::Phase::Ready => Phase::Ready,
        wire::Phase::Unhealthy => Phase::Unhealthy,
        wire::Phase::BackingOff => Phase::BackingOff,
        wire::Phase::Stopping => Phase::Stopping,
    }
}

/// Zero is "never"; a time out of range is nonsense and reads the same.
fn time(millis: u64) -> Option<Timestamp> {
    if millis == 0 {
        return None;
    }
    Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_phase_and_a_nonsensical_time_are_survived() {
        let read = instance(wire::Instance {
            phase: 77,
            started_at_ms: u64::MAX,
            next_start_ms: 0,
            ..wire::Instance::default()
        });
        assert_eq!(read.phase, Phase::WaitingForLauncher);
        assert_eq!(read.started_at, None);
        assert_eq!(read.next_start, None);
    }
}
