//! The tree: plugin, conditions, pods with their handshakes, last trouble, events. Pure.

use super::age::age;
use super::paint::Paint;
use super::view::{ConditionView, EventView, PluginView, Trouble};
use crate::output::clean;
use k8s_openapi::jiff::Timestamp;
use patchbay_api::plugin_status::{HandshakeStatus, InstanceState, InstanceStatus, UpdateStatus};

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
        below.push(Branch::leaf(paint.waiting(&foreign(note))));
    }
    if !view.conditions.is_empty() {
        below.push(conditions(&view.conditions, ink));
    }
    below.push(pods(view, ink));
    if !view.services.is_empty() {
        below.push(Branch::leaf(format!(
            "serves  {}{}",
            foreign(&view.services.join(", ")),
            more(view.services_omitted)
        )));
    }
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
        foreign(&view.image)
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

fn conditions(conditions: &[ConditionView], ink: Ink) -> Branch {
    let width = conditions
        .iter()
        .map(|condition| condition.type_.len())
        .max()
        .unwrap_or(0);
    let below = conditions
        .iter()
        .map(|condition| {
            let name = format!("{:width$}", condition.type_);
            if condition.good {
                return Branch::leaf(format!("{} {name}", ink.paint.good("✓")));
            }
            let mark = match condition.status.as_str() {
                "Unknown" => ink.paint.waiting("?"),
                _ => ink.paint.bad("✗"),
            };
            let text = format!(
                "{mark} {name}  {}",
                said(&condition.reason, &condition.message)
            );
            Branch::with(text, next_move(condition.next_move, ink))
        })
        .collect();
    Branch::with("conditions", below)
}

fn next_move(mover: Option<&str>, ink: Ink) -> Vec<Branch> {
    mover
        .map(|mover| Branch::leaf(ink.paint.strong(&format!("next move: {mover}"))))
        .into_iter()
        .collect()
}

fn pods(view: &PluginView, ink: Ink) -> Branch {
    if view.instances.is_empty() {
        return Branch::leaf("pods  none");
    }
    let mut below: Vec<Branch> = view
        .instances
        .iter()
        .map(|instance| pod(instance, ink))
        .collect();
    if view.instances_omitted > 0 {
        below.push(Branch::leaf(format!("and {} more", view.instances_omitted)));
    }
    Branch::with("pods", below)
}

fn pod(instance: &InstanceStatus, ink: Ink) -> Branch {
    let state = format!("{:?}", instance.state);
    let state = match instance.state {
        InstanceState::Ready => ink.paint.good(&state),
        InstanceState::Failed | InstanceState::BackingOff | InstanceState::Unhealthy => {
            ink.paint.bad(&state)
        }
        _ => ink.paint.waiting(&state),
    };
    let mut below = Vec::new();
    if !instance.reason.is_empty() || !instance.message.is_empty() {
        below.push(Branch::leaf(said(&instance.reason, &instance.message)));
    }
    if let Some(id) = &instance.start_id {
        let since = match &instance.started_at {
            Some(time) => format!(", {} ago", age(time.0, ink.now)),
            None => String::new(),
        };
        let restarts = match instance.restarts {
            0 => "no restart".to_owned(),
            1 => "1 restart".to_owned(),
            n => format!("{n} restarts"),
        };
        let exit = match &instance.last_exit {
            Some(exit) => format!(", before: {}", foreign(exit)),
            None => String::new(),
        };
        below.push(Branch::leaf(format!(
            "start      {id}{since}, {restarts}{exit}"
        )));
    }
    if let Some(done) = &instance.handshake {
        below.push(Branch::leaf(format!("handshake  {}", handshake(done))));
    }
    for (what, image) in [
        ("plugin", &instance.plugin_image),
        ("sidecar", &instance.sidecar_image),
    ] {
        if !image.is_empty() {
            below.push(Branch::leaf(
                ink.paint.faint(&format!("{what:9}  {}", foreign(image))),
            ));
        }
    }
    Branch::with(format!("{}  {state}", instance.pod), below)
}

fn handshake(done: &HandshakeStatus) -> String {
    let offered: Vec<String> = done.offered.iter().map(i64::to_string).collect();
    let mut text = format!("core {}, app {}", done.core_version, done.app_version);
    if offered.len() > 1 {
        text.push_str(&format!(" of {}", offered.join(" ")));
    }
    if !done.transport.is_empty() {
        text.push_str(&format!(", {}", foreign(&done.transport)));
    }
    if !done.tls.is_empty() {
        text.push_str(&format!(", TLS {}", foreign(&done.tls)));
    }
    format!("{text}, {:.2} s", done.seconds)
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
        foreign(&change.change),
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
        _ => vec![Branch::leaf(foreign(&format!(
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
    let place = match &trouble.pod {
        Some(pod) => format!(" ({pod})"),
        None => String::new(),
    };
    let text = format!(
        "last trouble  {when}{place}: {}",
        said(&trouble.reason, &trouble.message)
    );
    Branch::with(text, next_move(trouble.next_move, ink))
}

fn event(event: &EventView, ink: Ink) -> Branch {
    let when = event
        .at
        .map_or_else(|| "?".to_owned(), |at| age(at, ink.now));
    let reason = match event.warning {
        true => ink.paint.waiting(&foreign(&event.reason)),
        false => foreign(&event.reason),
    };
    let place = match &event.pod {
        Some(pod) => format!("{pod}: "),
        None => String::new(),
    };
    Branch::leaf(format!(
        "{when:>4}  {reason}  {place}{}",
        foreign(&event.message)
    ))
}

/// `Reason: message`, whichever there are.
fn said(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => foreign(message),
        (reason, "") => foreign(reason),
        (reason, message) => foreign(&format!("{reason}: {message}")),
    }
}

fn more(omitted: i64) -> String {
    if omitted > 0 {
        format!(" and {omitted} more")
    } else {
        String::new()
    }
}

/// Text that others wrote, on one line and without control characters.
fn foreign(text: &str) -> String {
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}
