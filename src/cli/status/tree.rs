//! The tree: plugin, conditions, pods with their handshakes, last trouble, events. Pure.

use super::age::age;
use super::paint::Paint;
use super::view::{EventView, PluginView, Trouble};
use crate::output::clean;
use k8s_openapi::jiff::Timestamp;
use patchbay_api::Reason;
use patchbay_api::conditions::ConditionType;
use patchbay_api::plugin_status::{HandshakeStatus, InstanceState, InstanceStatus, UpdateStatus};
use patchbay_protocol::reflect::is_machinery;

/// A line and what hangs beneath it.
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

/// What drawing needs besides the text.
#[derive(Clone, Copy)]
struct Ink {
    now: Timestamp,
    paint: Paint,
}

/// Draws one Plugin, with an end of line.
pub(crate) fn draw(view: &PluginView, now: Timestamp, paint: Paint) -> String {
    let ink = Ink { now, paint };
    let mut below = Vec::new();
    if let Some(note) = &view.note {
        below.push(Branch::leaf(paint.waiting(&untrusted_text(note))));
    }
    if !view.conditions.is_empty() {
        below.push(conditions(view, ink));
    }
    below.push(pods(view, ink));
    below.extend(services(view));
    below.extend(view.update.as_ref().map(|change| update(change, ink)));
    below.push(trouble(view.trouble.as_ref(), ink));
    if !view.events.is_empty() {
        below.push(Branch::with(
            "events",
            view.events.iter().map(|one| event(one, ink)).collect(),
        ));
    }

    let state = format!("{}/{} ready", view.ready_replicas, view.wanted_replicas);
    let state = if view.ready {
        paint.good(&state)
    } else {
        paint.bad(&state)
    };
    let name = paint.strong(&format!("{}/{}", view.namespace, view.name));
    let mut text = format!(
        "{name}  {state}  {}  {}\n",
        view.family,
        untrusted_text(&view.image)
    );
    hang(&below, "", &mut text);
    text
}

fn hang(branches: &[Branch], indent: &str, text: &mut String) {
    for (index, branch) in branches.iter().enumerate() {
        let last = index + 1 == branches.len();
        text.push_str(indent);
        text.push_str(if last { "└─ " } else { "├─ " });
        text.push_str(&branch.text);
        text.push('\n');
        let deeper = format!("{indent}{}", if last { "   " } else { "│  " });
        hang(&branch.below, &deeper, text);
    }
}

/// Reasons by their word and what it means. What exactly was found stands at the pods and at the
/// last trouble, or here when no pod has that reason.
fn conditions(view: &PluginView, ink: Ink) -> Branch {
    let bad = || view.conditions.iter().filter(|condition| !condition.good);
    let width = bad()
        .map(|condition| condition.type_.len())
        .max()
        .unwrap_or(0);
    let mut told: Vec<&str> = view
        .trouble
        .iter()
        .filter(|trouble| trouble.present)
        .map(|trouble| trouble.reason.as_str())
        .collect();
    told.extend(
        view.instances
            .iter()
            .map(|instance| instance.reason.as_str())
            .filter(|reason| !reason.is_empty()),
    );
    let mut explained: Vec<&str> = Vec::new();
    let mut below = Vec::new();
    for condition in &view.conditions {
        if condition.good {
            below.push(Branch::leaf(format!(
                "{} {}",
                ink.paint.good("✓"),
                condition.type_
            )));
            continue;
        }
        let mark = match condition.status.as_str() {
            "Unknown" => ink.paint.waiting("?"),
            _ => ink.paint.bad("✗"),
        };
        let reason = condition.reason.as_str();
        // Degraded repeats the pods' words, with a count.
        let repeats = told.contains(&reason)
            || (!told.is_empty() && condition.type_ == ConditionType::Degraded.as_str());
        let meaning = match Reason::parse(reason) {
            _ if explained.contains(&reason) => "",
            Some(known) if repeats => known.sentence(),
            _ => &condition.message,
        };
        explained.push(reason);
        below.push(Branch::leaf(format!(
            "{mark} {:width$}  {}",
            condition.type_,
            said(reason, meaning)
        )));
    }
    Branch::with("conditions", below)
}

fn pods(view: &PluginView, ink: Ink) -> Branch {
    if view.instances.is_empty() {
        return Branch::leaf("pods  none");
    }
    let mut below: Vec<Branch> = view
        .instances
        .iter()
        .map(|instance| pod(instance, view.trouble.as_ref(), ink))
        .collect();
    if view.instances_omitted > 0 {
        below.push(Branch::leaf(format!("and {} more", view.instances_omitted)));
    }
    Branch::with("pods", below)
}

fn pod(instance: &InstanceStatus, trouble: Option<&Trouble>, ink: Ink) -> Branch {
    let state = format!("{:?}", instance.state);
    let state = match instance.state {
        InstanceState::Ready => ink.paint.good(&state),
        InstanceState::Failed | InstanceState::BackingOff | InstanceState::Unhealthy => {
            ink.paint.bad(&state)
        }
        _ => ink.paint.waiting(&state),
    };
    let mut text = format!("{}  {state}", instance.pod);
    if !instance.reason.is_empty() {
        text.push_str(&format!("  {}", untrusted_text(&instance.reason)));
    }
    let mut below = Vec::new();
    // The words of the pod that the last trouble speaks of stand there.
    let spoken = trouble
        .is_some_and(|trouble| trouble.present && trouble.pod.as_ref() == Some(&instance.pod));
    if !instance.message.is_empty() && !spoken {
        below.push(Branch::leaf(untrusted_text(&instance.message)));
    }
    below.extend(process(instance, ink));
    if let Some(done) = &instance.handshake {
        below.push(Branch::leaf(format!("handshake  {}", handshake(done))));
    }
    for (what, image) in [
        ("plugin", &instance.plugin_image),
        ("sidecar", &instance.sidecar_image),
    ] {
        if !image.is_empty() {
            below.push(Branch::leaf(
                ink.paint
                    .faint(&format!("{what:9}  {}", untrusted_text(image))),
            ));
        }
    }
    Branch::with(text, below)
}

/// The plugin process: its start, and how the one before it ended.
fn process(instance: &InstanceStatus, ink: Ink) -> Option<Branch> {
    let mut facts = Vec::new();
    facts.extend(instance.start_id.clone());
    facts.extend(
        instance
            .started_at
            .as_ref()
            .map(|time| format!("{} ago", age(time.0, ink.now))),
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
            .map(|exit| format!("before: {}", untrusted_text(exit))),
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
        text.push_str(&format!(", {}", untrusted_text(&done.transport)));
    }
    if !done.tls.is_empty() {
        text.push_str(&format!(", TLS {}", untrusted_text(&done.tls)));
    }
    match done.seconds {
        short if short < 1.0 => format!("{text}, {:.0} ms", short * 1_000.0),
        long => format!("{text}, {long:.1} s"),
    }
}

/// The plugin's own services; those of gRPC and go-plugin are the same everywhere.
fn services(view: &PluginView) -> Option<Branch> {
    let own: Vec<&str> = view
        .services
        .iter()
        .map(String::as_str)
        .filter(|name| !is_machinery(name))
        .collect();
    let omitted = match view.services_omitted {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    match (own.as_slice(), view.services.as_slice()) {
        (_, []) => None,
        ([], _) => Some(Branch::leaf(format!("serves  nothing of its own{omitted}"))),
        (own, _) => Some(Branch::leaf(format!(
            "serves  {}{omitted}",
            untrusted_text(&own.join(", "))
        ))),
    }
}

fn update(change: &UpdateStatus, ink: Ink) -> Branch {
    let when = match (&change.finished_at, &change.started_at) {
        (Some(end), _) => format!("done {} ago", age(end.0, ink.now)),
        (None, Some(start)) => ink
            .paint
            .waiting(&format!("begun {} ago", age(start.0, ink.now))),
        (None, None) => ink.paint.waiting("not begun"),
    };
    let mut text = format!(
        "change  {}  {when}, {} through",
        untrusted_text(&change.change),
        change.swapped
    );
    if change.failed > 0 {
        text.push_str(&format!(
            ", {}",
            ink.paint.bad(&format!("{} put back", change.failed))
        ));
    }
    let below = match (change.from.is_empty(), change.to.is_empty()) {
        (true, true) => Vec::new(),
        _ => vec![Branch::leaf(untrusted_text(&format!(
            "{} -> {}",
            change.from, change.to
        )))],
    };
    Branch::with(text, below)
}

fn trouble(trouble: Option<&Trouble>, ink: Ink) -> Branch {
    let Some(trouble) = trouble else {
        return Branch::leaf("last trouble  none seen");
    };
    let when = match (trouble.present, trouble.at) {
        (true, Some(at)) => ink.paint.bad(&format!("now, for {}", age(at, ink.now))),
        (true, None) => ink.paint.bad("now"),
        (false, Some(at)) => format!("{} ago", age(at, ink.now)),
        (false, None) => "before".to_owned(),
    };
    let mut text = format!("last trouble  {when}");
    text.extend(trouble.pod.iter().map(|pod| format!(", {pod}")));
    text.push_str(&format!(": {}", untrusted_text(&trouble.reason)));
    let mut below = vec![Branch::leaf(untrusted_text(without_move(&trouble.message)))];
    below.extend(
        trouble
            .next_move
            .map(|mover| Branch::leaf(ink.paint.strong(&format!("next move: {mover}")))),
    );
    Branch::with(text, below)
}

/// Messages of conditions end with the next move, which has a line of its own here.
fn without_move(message: &str) -> &str {
    message
        .rfind(" Next move: ")
        .map_or(message, |end| &message[..end])
}

fn event(event: &EventView, ink: Ink) -> Branch {
    let when = event
        .at
        .map_or_else(|| "?".to_owned(), |at| age(at, ink.now));
    let reason = match event.warning {
        true => ink.paint.waiting(&untrusted_text(&event.reason)),
        false => untrusted_text(&event.reason),
    };
    let words = match &event.pod {
        Some(pod) => format!("{pod}: {}", untrusted_text(&event.message)),
        None => untrusted_text(&event.message),
    };
    Branch::leaf(format!("{when:>4}  {reason}  {}", short(&words)))
}

/// `Reason: message`, whichever there are.
fn said(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => untrusted_text(message),
        (reason, "") => untrusted_text(reason),
        (reason, message) => untrusted_text(&format!("{reason}: {}", without_move(message))),
    }
}

/// At most 160 characters.
fn short(text: &str) -> String {
    const MOST: usize = 160;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Text that others wrote, on one line and without control characters.
fn untrusted_text(text: &str) -> String {
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}
