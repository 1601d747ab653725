//! Whether a plugin takes a job as it is written: a list of small refusals, the first of which is
//! said.

use super::location::is_port;
use super::observe::PluginView;
use crate::family;
use crate::suggest::similar;
use crate::text::untrusted_name;
use patchbay_api::job::{Command, Input};
use patchbay_api::plugin_status::{AdvertisedCommand, AdvertisedInput};
use patchbay_api::{JobSpec, Reason};

/// Longest `target.optional` in bytes of JSON.
const MAX_OPTIONAL: usize = 16 * 1024;
/// Maximum number of names in a message.
const LISTED: usize = 12;

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Yes,
    /// It cannot be said yet.
    Unknown(Reason, String),
    /// It does not and never will.
    No(Reason, String),
}

/// Judges a Job's spec.
pub fn judge(spec: &JobSpec, plugin: Option<&PluginView>) -> Acceptance {
    if let Some(message) = contradiction(spec) {
        return Acceptance::No(Reason::BadInputs, message);
    }
    let name = untrusted_name(&spec.plugin_ref.name);
    let Some(plugin) = plugin.filter(|plugin| !plugin.deleting) else {
        return Acceptance::Unknown(
            Reason::PluginMissing,
            format!(
                "Plugin {name} does not exist in this namespace or is being deleted; create it, or delete the Job"
            ),
        );
    };
    match &plugin.family {
        Some(family) => family::of(family).judge_job(spec, plugin, &name),
        None => not_ready(&name),
    }
}

/// It cannot be said before the plugin has said which commands it knows.
pub(crate) fn not_ready(name: &str) -> Acceptance {
    Acceptance::Unknown(
        Reason::PluginNotReady,
        format!("Plugin {name} has not said yet which commands it knows"),
    )
}

/// What no plugin can make sense of.
fn contradiction(spec: &JobSpec) -> Option<String> {
    if spec.command.is_some() == spec.call.is_some() {
        return Some("spec has both command and call, or neither; expected exactly one".to_owned());
    }
    let target = &spec.target;
    if !is_port(&target.port) {
        return Some(format!(
            "spec.target.port is {:?}; expected a number from 1 to 65535 without leading zeros, or nothing for any port",
            untrusted_name(&target.port)
        ));
    }
    if let (Some(start), Some(expire)) = (&spec.start_time, &spec.expire_time)
        && expire.0 <= start.0
    {
        return Some(format!(
            "spec.expireTime {} is not after spec.startTime {}: there is no moment at which the job could be handed out",
            expire.0, start.0
        ));
    }
    let optional = if target.optional.is_empty() {
        0
    } else {
        serde_json::to_vec(&target.optional).map_or(0, |json| json.len())
    };
    (optional > MAX_OPTIONAL).then(|| {
        format!("spec.target.optional has {optional} bytes; expected at most {MAX_OPTIONAL}")
    })
}

/// Whether a list of advertised commands has this one. `plugin` is safe to print.
pub(crate) fn judge_command(
    command: &Command,
    known: &[AdvertisedCommand],
    complete: bool,
    plugin: &str,
) -> Acceptance {
    // What a plugin says is escaped and cut before it comes into a status.
    let shown = untrusted_name(&command.name);
    let found = known
        .iter()
        .find(|known| known.name == command.name || known.name == shown);
    let Some(found) = found else {
        if !complete {
            return Acceptance::Yes;
        }
        let names = || known.iter().map(|known| known.name.as_str());
        return Acceptance::No(
            Reason::UnknownCommand,
            format!(
                "spec.command.name is {shown:?}; {}Plugin {plugin} advertises {}",
                meant(&shown, names()),
                list(names())
            ),
        );
    };
    let inputs = &command.inputs;
    let optional = &command.optional_inputs;
    let refusal = unknown_input(
        "inputs",
        inputs,
        &found.inputs,
        &found.optional_inputs,
        &shown,
    )
    .or_else(|| {
        unknown_input(
            "optionalInputs",
            optional,
            &found.optional_inputs,
            &found.inputs,
            &shown,
        )
    })
    .or_else(|| twice(inputs).or_else(|| twice(optional)));
    refusal.map_or(Acceptance::Yes, |message| {
        Acceptance::No(Reason::BadInputs, message)
    })
}

fn unknown_input(
    field: &str,
    given: &[Input],
    known: &[AdvertisedInput],
    other: &[AdvertisedInput],
    command: &str,
) -> Option<String> {
    let has = |list: &[AdvertisedInput], name: &str| {
        let shown = untrusted_name(name);
        list.iter()
            .any(|input| input.name == name || input.name == shown)
    };
    let bad = given.iter().find(|input| !has(known, &input.name))?;
    let name = untrusted_name(&bad.name);
    if has(other, &bad.name) {
        let right = if field == "inputs" {
            "optionalInputs"
        } else {
            "inputs"
        };
        return Some(format!(
            "spec.command.{field} names {name:?}, which command {command:?} has among its {right}"
        ));
    }
    let names = || known.iter().map(|input| input.name.as_str());
    Some(format!(
        "spec.command.{field} names {name:?}; {}command {command:?} has {}",
        meant(&name, names()),
        list(names())
    ))
}

fn twice(given: &[Input]) -> Option<String> {
    let mut names: Vec<&str> = given.iter().map(|input| input.name.as_str()).collect();
    names.sort_unstable();
    let pair = names.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(format!(
        "spec.command names input {:?} twice",
        untrusted_name(pair[0])
    ))
}

/// Names as a list for people, bounded.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The name that was probably meant.
fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    similar(name, known)
        .first()
        .map(|near| format!("did you mean {near:?}? "))
        .unwrap_or_default()
}
