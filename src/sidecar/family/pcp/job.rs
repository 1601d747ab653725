//! A job as PCP writes it.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::commands::{Advertised, inputs_of, listed, text};
use crate::jobs::claims::entry::Entry;
use crate::jobs::clock::epoch_seconds;
use patchbay_protocol::escape::printable;

/// Clients of which telemetry is kept.
const TARGETS: usize = 1024;
/// Telemetry of one client in bytes; more is not kept.
const TELEMETRY: usize = 16 * 1024;

/// Why a job cannot be given to the plugin: the reason's word and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// UnknownCommand or BadInputs.
    pub reason: &'static str,
    /// What was found, what was expected.
    pub message: String,
}

/// The part of a Job's spec that the plugin sees.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    plugin_ref: PluginRef,
    command: Option<Command>,
    pub(crate) call: Option<Call>,
    #[serde(default)]
    target: Target,
    expire_time: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct PluginRef {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    name: String,
    #[serde(default)]
    inputs: Vec<Input>,
    #[serde(default)]
    optional_inputs: Vec<Input>,
}

#[derive(Clone, Debug, Deserialize)]
struct Input {
    name: String,
    value: String,
}

/// A call of a method.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Call {
    pub(crate) service: String,
    pub(crate) method: String,
    /// The request in its JSON form.
    #[serde(default)]
    pub(crate) request: Map<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    client: String,
    port: String,
    optional: Map<String, Value>,
}

impl Spec {
    pub(crate) fn read(json: &str) -> Result<Spec, Unfit> {
        serde_json::from_str(json).map_err(|error| Unfit {
            reason: "BadInputs",
            message: format!("the sidecar cannot read the Job's spec: {error}"),
        })
    }
}

/// The document that the plugin gets.
///
/// # Errors
/// The job asks for something that this plugin does not advertise.
pub fn job(entry: &Entry, advertised: &Advertised, known: &mut Targets) -> Result<String, Unfit> {
    let spec = Spec::read(entry.spec.as_deref().unwrap_or_default())?;
    let Some(command) = &spec.command else {
        return Err(Unfit {
            reason: "UnknownCommand",
            message: format!(
                "the Job has no command; expected one of {}",
                advertised.names()
            ),
        });
    };
    let command = filled(command, advertised)?;
    let mut target = Map::new();
    let name = match advertised.name.as_str() {
        "" => spec.plugin_ref.name.as_str(),
        name => name,
    };
    target.insert("PluginName".to_owned(), json!(name));
    target.insert("Location".to_owned(), json!(spec.target.client));
    target.insert("Port".to_owned(), json!(spec.target.port));
    let optional = known.meet(&spec.target);
    if !optional.is_empty() {
        target.insert("Optional".to_owned(), Value::Object(optional));
    }
    let mut job = json!({
        "id": entry.job_uid,
        "JobTarget": target,
        "Status": "Pending",
        "StartTime": epoch_seconds(&entry.start_time).unwrap_or(json!(0)),
        "JobCommand": command,
    });
    if let (Some(expires), Some(job)) = (
        spec.expire_time.as_deref().and_then(epoch_seconds),
        job.as_object_mut(),
    ) {
        job.insert("ExpireTime".to_owned(), expires);
    }
    Ok(job.to_string())
}

/// The advertised command with the values of the Job.
fn filled(wanted: &Command, advertised: &Advertised) -> Result<Map<String, Value>, Unfit> {
    let Some(command) = advertised.command(&wanted.name) else {
        return Err(Unfit {
            reason: "UnknownCommand",
            message: format!(
                "the plugin does not advertise the command \"{}\"; it advertises {}",
                printable(wanted.name.as_bytes(), 256),
                advertised.names()
            ),
        });
    };
    let mut command = command.clone();
    for (kind, given) in [
        ("Inputs", &wanted.inputs),
        ("OptionalInputs", &wanted.optional_inputs),
    ] {
        let names: Vec<String> = inputs_of(&command, kind)
            .map(|input| text(input, "Name").to_owned())
            .collect();
        let list = command
            .entry(kind)
            .or_insert_with(|| Value::Array(Vec::new()));
        for input in given {
            let place = names.iter().position(|name| *name == input.name);
            let value = place
                .and_then(|place| list.get_mut(place))
                .and_then(|found| found.get_mut("Value"));
            match value {
                Some(value) => *value = Value::String(input.value.clone()),
                None => {
                    return Err(Unfit {
                        reason: "BadInputs",
                        message: format!(
                            "the command \"{}\" has no {} named \"{}\"; it has {}",
                            printable(wanted.name.as_bytes(), 256),
                            if kind == "Inputs" {
                                "input"
                            } else {
                                "optional input"
                            },
                            printable(input.name.as_bytes(), 256),
                            listed(names.iter().map(String::as_str))
                        ),
                    });
                }
            }
        }
    }
    Ok(command)
}

/// Clients that jobs were for, and what the plugin told of them. It goes with the process.
#[derive(Debug, Default)]
pub struct Targets(VecDeque<Known>);

#[derive(Debug)]
struct Known {
    location: String,
    port: String,
    common: Map<String, Value>,
    specific: Map<String, Value>,
}

/// What a plugin tells of a client.
#[derive(Clone, Debug, Deserialize)]
pub struct Telemetry {
    pub location: String,
    /// As text; empty for any.
    #[serde(default)]
    pub port: String,
    /// Merged into Optional.Common.
    #[serde(default)]
    pub common: Map<String, Value>,
    /// Merged into Optional.Specific.
    #[serde(default)]
    pub specific: Map<String, Value>,
}

impl Targets {
    /// What a job for this client is told of it.
    fn meet(&mut self, target: &Target) -> Map<String, Value> {
        let mut optional = target.optional.clone();
        if target.client.is_empty() {
            return optional;
        }
        let location = patchbay_protocol::location::canonical(&target.client);
        match self.find(&location, &target.port) {
            Some(known) => {
                merge(&mut optional, "Common", &known.common);
                merge(&mut optional, "Specific", &known.specific);
            }
            None => {
                if self.0.len() == TARGETS {
                    self.0.pop_front();
                }
                self.0.push_back(Known {
                    location,
                    port: target.port.clone(),
                    common: Map::new(),
                    specific: Map::new(),
                });
            }
        }
        optional
    }

    fn find(&mut self, location: &str, port: &str) -> Option<&mut Known> {
        self.0.iter_mut().find(|known| {
            known.location == location
                && (known.port == port || known.port.is_empty() || port.is_empty())
        })
    }

    /// Keeps it; whether such a client is known.
    pub fn tell(&mut self, told: Telemetry) -> bool {
        let Some(known) = self.find(&told.location, &told.port) else {
            return false;
        };
        let (mut common, mut specific) = (known.common.clone(), known.specific.clone());
        common.extend(told.common);
        specific.extend(told.specific);
        let size = |map: &Map<String, Value>| serde_json::to_vec(map).map_or(0, |json| json.len());
        if size(&common) + size(&specific) <= TELEMETRY {
            (known.common, known.specific) = (common, specific);
        }
        true
    }
}

fn merge(optional: &mut Map<String, Value>, name: &str, told: &Map<String, Value>) {
    if told.is_empty() {
        return;
    }
    let held = optional
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(held) = held {
        held.extend(told.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::pcp::commands::tests::{start, wget};
    use crate::jobs::claims::entry::{Kind, State};
    use crate::jobs::claims::event::{ClaimId, RequestId};
    use patchbay_launcher::control::StartId;

    fn entry(spec: Value) -> Entry {
        Entry {
            claim: ClaimId(1),
            job_uid: "6f0c1b1e-0000-4000-8000-000000000001".to_owned(),
            job: "fetch".to_owned(),
            attempt: 1,
            state: State::Granted { keep_until_ms: 0 },
            kind: Kind::Command {
                request: RequestId(1),
            },
            deadline_ms: None,
            spec: Some(spec.to_string().into()),
            start_time: "2026-11-22T17:07:09.000000Z".to_owned(),
            active_deadline_ms: 0,
            output_max_bytes: 1,
            started: false,
            next_row: 1,
            kept_bytes: 0,
            digest: Default::default(),
            pending: Vec::new(),
            known_rows: Default::default(),
        }
    }

    fn build(spec: Value, known: &mut Targets) -> Result<Value, Unfit> {
        let mut other = wget();
        other["CommandName"] = json!("ping");
        other["OptionalInputs"] = json!([
            {"Name": "count", "Type": "textbox", "Tooltip": "", "Value": "1"}
        ]);
        let advertised = Advertised::read(&start(json!([wget(), other])), StartId(1)).unwrap();
        job(&entry(spec), &advertised, known).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn pcp_33_a_job_is_the_advertised_command_with_other_values() {
        let spec = json!({
            "pluginRef": {"name": "sample"},
            "command": {"name": "wget", "inputs": [
                {"name": "Target IP Address", "value": "http://10.0.0.9"}
            ]},
            "target": {"client": "10.1.2.3", "port": "10000", "optional": {"init": "x"}},
            "expireTime": "2026-11-22T17:08:09.250000Z",
        });
        let mut command = wget();
        command["Inputs"][0]["Value"] = json!("http://10.0.0.9");
        command["OptionalInputs"] = json!([]);
        assert_eq!(
            build(spec, &mut Targets::default()).unwrap(),
            json!({
                "id": "6f0c1b1e-0000-4000-8000-000000000001",
                "JobTarget": {
                    "PluginName": "SamplePlugin", "Location": "10.1.2.3", "Port": "10000",
                    "Optional": {"init": "x"},
                },
                "Status": "Pending",
                "StartTime": 1_795_367_229,
                "ExpireTime": 1_795_367_289.25,
                "JobCommand": command,
            })
        );
        let spec = json!({"pluginRef": {"name": "s"}, "command": {"name": "ping", "optionalInputs": [
            {"name": "count", "value": "3"}
        ]}});
        let job = build(spec, &mut Targets::default()).unwrap();
        assert_eq!(job["JobCommand"]["OptionalInputs"][0]["Value"], "3");
        assert_eq!(job["JobTarget"]["Location"], "");
        assert!(job.get("ExpireTime").is_none());
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_exists() {
        let unfit = |command: Value| {
            let spec = json!({"pluginRef": {"name": "s"}, "command": command});
            let unfit = build(spec, &mut Targets::default()).unwrap_err();
            format!("{}: {}", unfit.reason, unfit.message)
        };
        assert_eq!(
            unfit(json!({"name": "rm"})),
            "UnknownCommand: the plugin does not advertise the command \"rm\"; it advertises \"wget\", \"ping\""
        );
        assert_eq!(
            unfit(json!({"name": "wget", "inputs": [{"name": "url", "value": ""}]})),
            "BadInputs: the command \"wget\" has no input named \"url\"; it has \"Target IP Address\""
        );
        assert_eq!(
            unfit(json!({"name": "wget", "optionalInputs": [{"name": "url", "value": ""}]})),
            "BadInputs: the command \"wget\" has no optional input named \"url\"; it has none"
        );
        assert!(unfit(Value::Null).starts_with("UnknownCommand: the Job has no command"));
        assert!(unfit(json!({"name": 3})).starts_with("BadInputs: the sidecar cannot read"));
    }

    #[test]
    fn pcp_39_telemetry_needs_a_client_that_jobs_were_for() {
        let mut known = Targets::default();
        let told = |location: &str, common: Value| Telemetry {
            location: location.to_owned(),
            port: "10000".to_owned(),
            common: common.as_object().unwrap().clone(),
            specific: Map::new(),
        };
        assert!(!known.tell(told("1.2.3.4", json!({"Checkin": 1.5}))));
        let spec = json!({
            "pluginRef": {"name": "s"}, "command": {"name": "wget"},
            "target": {"client": "::ffff:1.2.3.4", "optional": {"Common": {"User": "u"}}},
        });
        build(spec.clone(), &mut known).unwrap();
        assert!(known.tell(told("1.2.3.4", json!({"Checkin": 1.5}))));
        let job = build(spec.clone(), &mut known).unwrap();
        assert_eq!(
            job["JobTarget"]["Optional"]["Common"],
            json!({"User": "u", "Checkin": 1.5})
        );
        // Too much of it is not kept.
        assert!(known.tell(told("1.2.3.4", json!({"Big": "x".repeat(TELEMETRY)}))));
        let job = build(spec, &mut known).unwrap();
        assert!(job["JobTarget"]["Optional"]["Common"].get("Big").is_none());
    }
}
