//! Draws a summary as a tree: conditions, pods with their handshakes, last problem, events.

use jiff::Timestamp;
use patchbay_api::Reason;
use patchbay_api::conditions::ConditionType;
use patchbay_api::plugin_status::{HandshakeStatus, InstanceState, InstanceStatus, UpdateStatus};
use patchbay_protocol::reflect::is_machinery;

use super::summary::{EventSummary, PluginSummary, Problem};
use crate::age::age;
use crate::color::Color;
use crate::reason_text::without_next_move;
use crate::stdio::one_line;

/// A line and the lines below it.
struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: impl Into<String>) -> Branch {
        Branch {
            text: text.into(),
            below: Vec::new(),
        }
    }

    fn with(text: impl Into<String>, below: Vec<Branch>) -> Branch {
        Branch {
            text: text.into(),
            below,
        }
    }
}

#[derive(Clone, Copy)]
struct Style {
    now: Timestamp,
    color: Color,
}

pub(crate) fn draw(summary: &PluginSummary, now: Timestamp, color: Color) -> String {
    let style = Style { now, color };
    let mut below = Vec::new();
    if let Some(note) = &summary.note {
        below.push(Branch::leaf(color.waiting(&one_line(note))));
    }
    if !summary.conditions.is_empty() {
        below.push(conditions(summary, style));
    }
    below.push(pods(summary, style));
    below.extend(services(summary));
    below.extend(summary.update.as_ref().map(|change| update(change, style)));
    below.push(last_problem(summary.last_problem.as_ref(), style));
    if !summary.events.is_empty() {
        below.push(Branch::with(
            "events",
            summary.events.iter().map(|one| event(one, style)).collect(),
        ));
    }

    let state = format!(
        "{}/{} ready",
        summary.ready_replicas, summary.wanted_replicas
    );
    let state = if summary.ready {
        color.good(&state)
    } else {
        color.bad(&state)
    };
    let name = color.strong(&format!("{}/{}", summary.namespace, summary.name));
    let mut text = format!(
        "{name}  {state}  {}  {}\n",
        summary.family,
        one_line(&summary.image)
    );
    draw_branches(&below, "", &mut text);
    text
}

fn draw_branches(branches: &[Branch], indent: &str, text: &mut String) {
    for (index, branch) in branches.iter().enumerate() {
        let last = index + 1 == branches.len();
        text.push_str(indent);
        text.push_str(if last { "└─ " } else { "├─ " });
        text.push_str(&branch.text);
        text.push('\n');
        let deeper = format!("{indent}{}", if last { "   " } else { "│  " });
        draw_branches(&branch.below, &deeper, text);
    }
}

/// Each condition that is not good, with its reason and what the reason means. The message itself is
/// shown at the pods and at the last problem, or here if no pod has that reason.
fn conditions(summary: &PluginSummary, style: Style) -> Branch {
    let bad = || {
        summary
            .conditions
            .iter()
            .filter(|condition| !condition.good)
    };
    let width = bad()
        .map(|condition| condition.type_.len())
        .max()
        .unwrap_or(0);
    let mut shown_elsewhere: Vec<&str> = summary
        .last_problem
        .iter()
        .filter(|problem| problem.present)
        .map(|problem| problem.reason.as_str())
        .collect();
    shown_elsewhere.extend(
        summary
            .instances
            .iter()
            .map(|instance| instance.reason.as_str())
            .filter(|reason| !reason.is_empty()),
    );
    let mut explained: Vec<&str> = Vec::new();
    let mut below = Vec::new();
    for condition in &summary.conditions {
        if condition.good {
            below.push(Branch::leaf(format!(
                "{} {}",
                style.color.good("✓"),
                condition.type_
            )));
            continue;
        }
        let mark = match condition.status.as_str() {
            "Unknown" => style.color.waiting("?"),
            _ => style.color.bad("✗"),
        };
        let reason = condition.reason.as_str();
        // Degraded repeats the messages of the pods, with a count.
        let repeats = shown_elsewhere.contains(&reason)
            || (!shown_elsewhere.is_empty() && condition.type_ == ConditionType::Degraded.as_str());
        let meaning = match Reason::parse(reason) {
            _ if explained.contains(&reason) => "",
            Some(known) if repeats => known.sentence(),
            _ => &condition.message,
        };
        explained.push(reason);
        below.push(Branch::leaf(format!(
            "{mark} {:width$}  {}",
            condition.type_,
            reason_and_message(reason, meaning)
        )));
    }
    Branch::with("conditions", below)
}

fn pods(summary: &PluginSummary, style: Style) -> Branch {
    if summary.instances.is_empty() {
        return Branch::leaf("pods  none");
    }
    let mut below: Vec<Branch> = summary
        .instances
        .iter()
        .map(|instance| pod(instance, summary.last_problem.as_ref(), style))
        .collect();
    if summary.instances_omitted > 0 {
        below.push(Branch::leaf(format!(
            "and {} more",
            summary.instances_omitted
        )));
    }
    Branch::with("pods", below)
}

fn pod(instance: &InstanceStatus, problem: Option<&Problem>, style: Style) -> Branch {
    let state = format!("{:?}", instance.state);
    let state = match instance.state {
        InstanceState::Ready => style.color.good(&state),
        InstanceState::Failed | InstanceState::BackingOff | InstanceState::Unhealthy => {
            style.color.bad(&state)
        }
        _ => style.color.waiting(&state),
    };
    let mut text = format!("{}  {state}", instance.pod);
    if !instance.reason.is_empty() {
        text.push_str(&format!("  {}", one_line(&instance.reason)));
    }
    let mut below = Vec::new();
    // The message of the pod with the last problem is shown there.
    let is_last_problem = problem
        .is_some_and(|problem| problem.present && problem.pod.as_ref() == Some(&instance.pod));
    if !instance.message.is_empty() && !is_last_problem {
        below.push(Branch::leaf(one_line(&instance.message)));
    }
    below.extend(process(instance, style));
    if let Some(done) = &instance.handshake {
        below.push(Branch::leaf(format!("handshake  {}", handshake(done))));
    }
    for (what, image) in [
        ("plugin", &instance.plugin_image),
        ("sidecar", &instance.sidecar_image),
    ] {
        if !image.is_empty() {
            below.push(Branch::leaf(
                style.color.faint(&format!("{what:9}  {}", one_line(image))),
            ));
        }
    }
    Branch::with(text, below)
}

/// The start of the plugin process, and how the previous one ended.
fn process(instance: &InstanceStatus, style: Style) -> Option<Branch> {
    let mut facts = Vec::new();
    facts.extend(instance.start_id.clone());
    facts.extend(
        instance
            .started_at
            .as_ref()
            .map(|time| format!("{} ago", age(time.0, style.now))),
    );
    facts.extend(match instance.restarts {
        0 => None,
        1 => Some("1 restart".to_owned()),
        n => Some(format!("{n} restarts")),
    });
    facts.extend(
        instance
            .last_exit
            .as_ref()
            .map(|exit| format!("previous: {}", one_line(exit))),
    );
    if facts.is_empty() {
        return None;
    }
    Some(Branch::leaf(format!("start      {}", facts.join(", "))))
}

fn handshake(done: &HandshakeStatus) -> String {
    let offered: Vec<String> = done.offered.iter().map(i64::to_string).collect();
    let mut text = format!("core {}, app {}", done.core_version, done.app_version);
    if offered.len() > 1 {
        text.push_str(&format!(" (offered {})", offered.join(", ")));
    }
    if !done.transport.is_empty() {
        text.push_str(&format!(", {}", one_line(&done.transport)));
    }
    if !done.tls.is_empty() {
        text.push_str(&format!(", TLS {}", one_line(&done.tls)));
    }
    match done.seconds {
        short if short < 1.0 => format!("{text}, {:.0} ms", short * 1_000.0),
        long => format!("{text}, {long:.1} s"),
    }
}

/// The plugin's own services, without those of gRPC and go-plugin.
fn services(summary: &PluginSummary) -> Option<Branch> {
    let own: Vec<&str> = summary
        .services
        .iter()
        .map(String::as_str)
        .filter(|name| !is_machinery(name))
        .collect();
    let omitted = match summary.services_omitted {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    match (own.as_slice(), summary.services.as_slice()) {
        (_, []) => None,
        ([], _) => Some(Branch::leaf(format!(
            "serves  no services of its own{omitted}"
        ))),
        (own, _) => Some(Branch::leaf(format!(
            "serves  {}{omitted}",
            one_line(&own.join(", "))
        ))),
    }
}

fn update(change: &UpdateStatus, style: Style) -> Branch {
    let when = match (&change.finished_at, &change.started_at) {
        (Some(end), _) => format!("finished {} ago", age(end.0, style.now)),
        (None, Some(start)) => style
            .color
            .waiting(&format!("started {} ago", age(start.0, style.now))),
        (None, None) => style.color.waiting("not started"),
    };
    let mut text = format!(
        "change  {}  {when}, {} updated",
        one_line(&change.change),
        change.swapped
    );
    if change.failed > 0 {
        text.push_str(&format!(
            ", {}",
            style.color.bad(&format!("{} rolled back", change.failed))
        ));
    }
    let below = match (change.from.is_empty(), change.to.is_empty()) {
        (true, true) => Vec::new(),
        _ => vec![Branch::leaf(one_line(&format!(
            "{} -> {}",
            change.from, change.to
        )))],
    };
    Branch::with(text, below)
}

fn last_problem(problem: Option<&Problem>, style: Style) -> Branch {
    let Some(problem) = problem else {
        return Branch::leaf("last problem  none");
    };
    let when = match (problem.present, problem.at) {
        (true, Some(at)) => style.color.bad(&format!("now, for {}", age(at, style.now))),
        (true, None) => style.color.bad("now"),
        (false, Some(at)) => format!("{} ago", age(at, style.now)),
        (false, None) => "before".to_owned(),
    };
    let mut text = format!("last problem  {when}");
    text.extend(problem.pod.iter().map(|pod| format!(", {pod}")));
    text.push_str(&format!(": {}", one_line(&problem.reason)));
    let mut below = vec![Branch::leaf(one_line(without_next_move(&problem.message)))];
    below.extend(
        problem
            .next_move
            .map(|mover| Branch::leaf(style.color.strong(&format!("next move: {mover}")))),
    );
    Branch::with(text, below)
}

fn event(event: &EventSummary, style: Style) -> Branch {
    let when = event
        .at
        .map_or_else(|| "?".to_owned(), |at| age(at, style.now));
    let reason = match event.warning {
        true => style.color.waiting(&one_line(&event.reason)),
        false => one_line(&event.reason),
    };
    let text = match &event.pod {
        Some(pod) => format!("{pod}: {}", one_line(&event.message)),
        None => one_line(&event.message),
    };
    Branch::leaf(format!("{when:>4}  {reason}  {}", truncate(&text)))
}

/// `Reason: message`, or the one that is not empty.
fn reason_and_message(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => one_line(message),
        (reason, "") => one_line(reason),
        (reason, message) => one_line(&format!("{reason}: {}", without_next_move(message))),
    }
}

/// At most 160 characters.
fn truncate(text: &str) -> String {
    const MAX: usize = 160;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
