//! Prints a description: one line per step, so that it can be searched with grep.

use jiff::Timestamp;

use super::JobDescription;
use super::history::{HistoryEntry, HistoryStep};
use super::rows::OutputEntry;
use super::waiting::CurrentWait;
use crate::age::{age, format_seconds};
use crate::color::Color;
use crate::stdio::one_line;

/// Width of `2026-01-01T00:00:00.123456Z`.
const TIME_WIDTH: usize = 27;
/// Width of the longest name of a step.
const STEP_WIDTH: usize = 14;

pub(super) fn print(description: &JobDescription, now: Timestamp, color: Color) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        text.push_str(&format!("{:<11}{}\n", format!("{name}:"), one_line(&value)));
    };
    field("Name", description.name.clone());
    field("Namespace", description.namespace.clone());
    field("Plugin", description.plugin.clone());
    field("Command", description.command.clone());
    let client = match description.client.as_str() {
        "" => "any".to_owned(),
        client => client.to_owned(),
    };
    field("Client", client);
    let phase = match description.phase {
        Some(phase) => phase.to_string(),
        None => "none yet".to_owned(),
    };
    field("Phase", with_reason(&phase, &description.reason));
    field(
        "Attempt",
        format!("{} of {}", description.attempt, description.max_attempts),
    );
    if let Some(first) = &description.retry_of {
        field("Retry of", first.clone());
    }
    if !description.retries.is_empty() {
        let retries = description.retries.iter().map(|retry| {
            let phase = retry.phase.map(|phase| phase.to_string());
            let phase = phase.unwrap_or_else(|| "no phase yet".to_owned());
            format!("{} {}", retry.name, with_reason(&phase, &retry.reason))
        });
        field("Retries", retries.collect::<Vec<_>>().join(", "));
    }

    text.push_str(&color.strong("History:"));
    text.push('\n');
    for entry in &description.history {
        text.push_str(&line(entry, now, color));
    }
    if let Some(waiting) = &description.waiting {
        text.push_str(&color.strong("Now:"));
        text.push('\n');
        text.push_str(&now_lines(waiting, now));
    }
    for error in &description.errors {
        text.push_str(&format!("Not shown: {}\n", one_line(error)));
    }
    text
}

fn with_reason(phase: &str, reason: &str) -> String {
    match reason {
        "" => phase.to_owned(),
        reason if reason == phase => phase.to_owned(),
        reason => format!("{phase} ({reason})"),
    }
}

fn line(entry: &HistoryEntry, now: Timestamp, color: Color) -> String {
    let (time, ago) = match entry.time {
        Some(time) => (time.to_string(), format!("{} ago", age(time, now))),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let step = format!("{:<STEP_WIDTH$}", format!("{:?}", entry.step));
    let step = match entry.step {
        HistoryStep::Succeeded => color.good(&step),
        HistoryStep::Failed
        | HistoryStep::Invalid
        | HistoryStep::Refused
        | HistoryStep::AttemptEnded => color.bad(&step),
        HistoryStep::Warning | HistoryStep::Suspended | HistoryStep::SuspendRefused => {
            color.waiting(&step)
        }
        _ => step,
    };
    let line = format!("  {time:<TIME_WIDTH$}  {ago:<9}  {step}  {}", detail(entry));
    format!("{}\n", line.trim_end())
}

/// The facts of a step, then its reason and message.
fn detail(entry: &HistoryEntry) -> String {
    let mut facts = Vec::new();
    facts.extend(entry.attempt.map(|attempt| format!("attempt {attempt}")));
    facts.extend(
        entry
            .claim_id
            .as_ref()
            .map(|id| format!("claim {}", one_line(id))),
    );
    facts.extend(
        entry
            .pod
            .as_ref()
            .map(|pod| format!("pod {}", one_line(pod))),
    );
    if let Some(output) = &entry.output {
        facts.extend(output_facts(output));
    }
    let facts = facts.join(", ");
    let reason = match (entry.reason.as_str(), entry.message.as_str()) {
        ("", message) => one_line(message),
        // Accepted, Suspended: the step says it already.
        (reason, message) if reason == format!("{:?}", entry.step) => one_line(message),
        (reason, "") => one_line(reason),
        (reason, message) => one_line(&format!("{reason}: {message}")),
    };
    match (facts.as_str(), reason.as_str()) {
        ("", _) => reason,
        (_, "") => facts,
        _ => format!("{facts}: {reason}"),
    }
}

fn output_facts(output: &OutputEntry) -> Vec<String> {
    let mut facts = vec![format!("row {}", output.row)];
    facts.extend(output.bytes.map(|bytes| format!("{bytes} bytes")));
    facts.extend(match output.chunks {
        0 => None,
        1 => Some("in 1 JobOutput".to_owned()),
        chunks => Some(format!("in {chunks} JobOutputs")),
    });
    facts.extend(output.preview.as_ref().map(|text| format!("{text:?}")));
    if output.omitted > 0 {
        facts.push(format!("and {} further rows", output.omitted));
    }
    facts
}

fn now_lines(waiting: &CurrentWait, now: Timestamp) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let name = format!("{name}:");
        text.push_str(&format!("  {name:<13}{}\n", one_line(value)));
    };
    field("Waiting for", &waiting.waiting_for);
    for (name, time) in [("At", waiting.at), ("Fails at", waiting.fails_at)] {
        if let Some(time) = time {
            let seconds = time.as_second() - now.as_second();
            let distance = match seconds {
                0.. => format!("in {}", format_seconds(seconds)),
                _ => format!("{} ago", format_seconds(-seconds)),
            };
            field(name, &format!("{time} ({distance})"));
        }
    }
    if !waiting.message.is_empty() {
        field("Because", &waiting.message);
    }
    if let Some(mover) = waiting.next_move {
        field("Next move", mover);
    }
    text
}
