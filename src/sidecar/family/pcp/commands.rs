//! What a PCP controller plugin advertises: checked, kept word for word for its jobs, and reported to the
//! operator in bounded, printable form.

use patchbay_launcher::control::StartId;
use patchbay_protocol::escape::printable;
use patchbay_protocol::session::{CommandInfo, InputInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::jobs::Greeting;

/// Most commands that the operator is reported.
const MAX_REPORTED: usize = 256;
/// Most inputs of one command that the operator is json_response, of each kind.
const TOLD_INPUTS: usize = 64;
/// Longest text that the operator is json_response, in bytes.
const TEXT: usize = 256;
/// All of it together, in bytes: it travels with every picture of the instance.
const MAX_REPORTED_BYTES: usize = 512 * 1024;
/// Version of the calls on the jobs socket.
const VERSION: u64 = 1;
/// Fields of an input, all of them text.
const INPUT: [&str; 4] = ["Name", "Type", "Tooltip", "Value"];

/// What a plugin says of itself with its first call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advertised {
    /// Which process said it.
    pub start_id: u64,
    /// As it calls itself.
    pub name: String,
    /// As it was reported that it is called.
    pub service_name: String,
    /// The port that it listens on, as text.
    pub port: String,
    /// Word for word; of equal names only the last.
    pub commands: Vec<Map<String, Value>>,
    /// Flaws that do not hinder it.
    pub warnings: Vec<String>,
}

impl Advertised {
    /// Reads the body of `/v1/start`.
    ///
    /// # Errors
    /// A sentence: what was found, what was expected.
    pub fn read(body: &[u8], start_id: StartId) -> Result<Advertised, String> {
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the introduction is not JSON: {error}"))?;
        let Value::Object(document) = document else {
            return Err(wrong("the introduction", &document, "an object"));
        };
        if document.get("version").and_then(Value::as_u64) != Some(VERSION) {
            let found = document.get("version").unwrap_or(&Value::Null);
            return Err(format!(
                "the introduction has version {}; expected {VERSION}: the library and the sidecar do not belong together",
                printable(found.to_string().as_bytes(), 64)
            ));
        }
        let text = |name: &str| match document.get(name) {
            Some(Value::String(text)) if text.len() <= TEXT => Ok(text.clone()),
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(other) => Err(wrong(name, other, "text of at most 256 bytes")),
        };
        let mut warnings = Vec::new();
        if document.get("placeholder") == Some(&Value::Bool(true)) {
            warnings.push("the plugin could not load its list of commands and advertises a placeholder; give ControllerPlugin a list, or the file that it looks for".to_owned());
        }
        let commands = document.get("commands").unwrap_or(&Value::Null);
        let Value::Array(listed) = commands else {
            return Err(wrong("the list of commands", commands, "a list"));
        };
        let mut commands: Vec<Map<String, Value>> = Vec::new();
        for (index, command) in listed.iter().enumerate() {
            let command = check(index, command)?;
            let name = command.get("CommandName");
            let known = commands
                .iter()
                .position(|other| other.get("CommandName") == name);
            if let Some(known) = known {
                warnings.push(format!(
                    "the command {} is advertised twice; the last one counts",
                    quoted(command)
                ));
                commands.remove(known);
            }
            commands.push(command.clone());
        }
        warnings.truncate(8);
        Ok(Advertised {
            start_id: start_id.0,
            name: text("name")?,
            service_name: text("serviceName")?,
            port: text("port")?,
            commands,
            warnings,
        })
    }

    /// One of the commands.
    pub fn command(&self, name: &str) -> Option<&Map<String, Value>> {
        self.commands
            .iter()
            .find(|command| text(command, "CommandName") == name)
    }

    /// The names, for people.
    pub fn names(&self) -> String {
        listed(
            self.commands
                .iter()
                .map(|command| text(command, "CommandName")),
        )
    }

    /// For the rest of the sidecar.
    pub fn greeting(&self) -> Greeting {
        let mut reported = Vec::new();
        let mut bytes = 0;
        for command in self.commands.iter().take(MAX_REPORTED) {
            let info = CommandInfo {
                name: shown(command, "CommandName"),
                tooltip: shown(command, "Tooltip"),
                output: command.get("Output") == Some(&Value::Bool(true)),
                inputs: inputs(command, "Inputs"),
                optional_inputs: inputs(command, "OptionalInputs"),
            };
            bytes += prost::Message::encoded_len(&info);
            if bytes > MAX_REPORTED_BYTES {
                break;
            }
            reported.push(info);
        }
        Greeting {
            start_id: StartId(self.start_id),
            omitted: u32::try_from(self.commands.len() - reported.len()).unwrap_or(u32::MAX),
            commands: reported,
            warnings: self.warnings.clone(),
        }
    }
}

/// The names in one line of bounded length.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names
        .map(|name| format!("\"{}\"", printable(name.as_bytes(), 64)))
        .collect();
    match names.len() {
        0 => "none".to_owned(),
        1..=16 => names.join(", "),
        more => format!("{} and {} more", names[..16].join(", "), more - 16),
    }
}

/// The inputs of one kind; none when there is no such list.
pub(crate) fn inputs_of<'a>(
    command: &'a Map<String, Value>,
    kind: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = command.get(kind).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

pub(crate) fn text<'a>(holder: &'a Map<String, Value>, field: &str) -> &'a str {
    holder
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn inputs(command: &Map<String, Value>, kind: &str) -> Vec<InputInfo> {
    let inputs = inputs_of(command, kind).take(TOLD_INPUTS);
    inputs
        .map(|input| InputInfo {
            name: shown(input, "Name"),
            r#type: shown(input, "Type"),
            tooltip: shown(input, "Tooltip"),
            value: shown(input, "Value"),
        })
        .collect()
}

fn shown(holder: &Map<String, Value>, field: &str) -> String {
    printable(text(holder, field).as_bytes(), TEXT)
}

fn quoted(command: &Map<String, Value>) -> String {
    format!("\"{}\"", shown(command, "CommandName"))
}

fn check(index: usize, command: &Value) -> Result<&Map<String, Value>, String> {
    let place = format!("command {index}");
    let Value::Object(fields) = command else {
        return Err(wrong(&place, command, "an object"));
    };
    field(&place, fields, "CommandName", "text", Value::is_string)?;
    if text(fields, "CommandName").is_empty() {
        return Err(format!("{place} has an empty CommandName; expected a name"));
    }
    let place = format!("command {}", quoted(fields));
    field(&place, fields, "Tooltip", "text", Value::is_string)?;
    field(&place, fields, "Output", "true or false", Value::is_boolean)?;
    if fields.contains_key("id") {
        field(&place, fields, "id", "text", Value::is_string)?;
    }
    for kind in ["Inputs", "OptionalInputs"] {
        let list = match fields.get(kind) {
            None => continue,
            Some(Value::Array(list)) => list,
            Some(other) => return Err(wrong(&format!("{kind} of {place}"), other, "a list")),
        };
        for (index, input) in list.iter().enumerate() {
            let place = format!("{kind}[{index}] of {place}");
            let Value::Object(input) = input else {
                return Err(wrong(&place, input, "an object"));
            };
            for name in INPUT {
                field(&place, input, name, "text", Value::is_string)?;
            }
        }
    }
    Ok(fields)
}

fn field(
    place: &str,
    fields: &Map<String, Value>,
    name: &str,
    expected: &str,
    fits: fn(&Value) -> bool,
) -> Result<(), String> {
    match fields.get(name) {
        None => Err(format!("{place} lacks {name}; expected {expected}")),
        Some(value) if fits(value) => Ok(()),
        Some(value) => Err(wrong(&format!("{name} of {place}"), value, expected)),
    }
}

fn wrong(what: &str, found: &Value, expected: &str) -> String {
    let found = match found {
        Value::Null => "absent or null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("{what} is {found}; expected {expected}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn wget() -> Value {
        json!({
            "CommandName": "wget",
            "Tooltip": "Retrieves raw webpage content",
            "Output": true,
            "Inputs": [{
                "Name": "Target IP Address", "Type": "textbox",
                "Tooltip": "Modify the URL", "Value": "",
            }],
            "x-vendor": {"kept": [1, 2.5]},
        })
    }

    pub(crate) fn start(commands: Value) -> Vec<u8> {
        let document = json!({
            "version": 1, "name": "SamplePlugin", "serviceName": "sample", "port": "10000",
            "stage": "PROD", "commands": commands, "placeholder": false,
        });
        serde_json::to_vec(&document).unwrap()
    }

    fn read(commands: Value) -> Result<Advertised, String> {
        Advertised::read(&start(commands), StartId(3))
    }

    #[test]
    fn commands_are_kept_verbatim_and_reported_shortened() {
        let read = read(json!([wget()])).unwrap();
        assert_eq!(Value::Object(read.command("wget").unwrap().clone()), wget());
        let greeting = read.greeting();
        assert_eq!(greeting.commands[0].inputs[0].name, "Target IP Address");
        assert_eq!((greeting.omitted, greeting.start_id), (0, StartId(3)));
        assert!(greeting.warnings.is_empty());
    }

    #[test]
    fn each_break_of_the_schema_is_named_with_its_place() {
        let with = |path: &str, value: Value| {
            let mut command = wget();
            *command.pointer_mut(path).unwrap() = value;
            read(json!([command])).unwrap_err()
        };
        let without = |field: &str| {
            let mut command = wget();
            command.as_object_mut().unwrap().remove(field);
            read(json!([command]))
        };
        for (said, expected) in [
            (
                with("/CommandName", json!(13)),
                "CommandName of command 0 is a number; expected text",
            ),
            (
                with("/CommandName", json!("")),
                "command 0 has an empty CommandName; expected a name",
            ),
            (
                with("/Output", json!("yes")),
                "Output of command \"wget\" is text; expected true or false",
            ),
            (
                with("/Output", json!(1)),
                "Output of command \"wget\" is a number; expected true or false",
            ),
            (
                with("/Inputs", json!({})),
                "Inputs of command \"wget\" is an object; expected a list",
            ),
            (
                with("/Inputs/0", json!("x")),
                "Inputs[0] of command \"wget\" is text; expected an object",
            ),
            (
                with("/Inputs/0/Value", json!(13)),
                "Value of Inputs[0] of command \"wget\" is a number; expected text",
            ),
            (
                without("Tooltip").unwrap_err(),
                "command \"wget\" lacks Tooltip; expected text",
            ),
            (
                read(json!({})).unwrap_err(),
                "the list of commands is an object; expected a list",
            ),
            (
                read(json!([[]])).unwrap_err(),
                "command 0 is a list; expected an object",
            ),
        ] {
            assert_eq!(said, expected);
        }
        assert!(without("Inputs").is_ok());
        let mut later: Value = serde_json::from_slice(&start(json!([]))).unwrap();
        later["version"] = json!(2);
        let later = serde_json::to_vec(&later).unwrap();
        assert!(
            Advertised::read(&later, StartId(1))
                .unwrap_err()
                .contains("version 2")
        );
        assert!(
            Advertised::read(b"[", StartId(1))
                .unwrap_err()
                .contains("not JSON")
        );
        let deep = "[".repeat(100_000);
        assert!(Advertised::read(deep.as_bytes(), StartId(1)).is_err());
    }

    #[test]
    fn commands_for_the_operator_are_bounded() {
        let mut long = wget();
        long["Tooltip"] = json!("x\n".repeat(400));
        long["Inputs"] = json!(vec![wget()["Inputs"][0].clone(); 100]);
        let commands: Vec<Value> = (0..300)
            .map(|number| {
                let mut command = long.clone();
                command["CommandName"] = json!(format!("c{number}"));
                command
            })
            .collect();
        let read = read(json!(commands)).unwrap();
        assert_eq!(read.commands.len(), 300);
        let greeting = read.greeting();
        let bytes: usize = greeting
            .commands
            .iter()
            .map(prost::Message::encoded_len)
            .sum();
        assert!(bytes <= MAX_REPORTED_BYTES);
        assert_eq!(greeting.commands.len() + greeting.omitted as usize, 300);
        assert!(
            greeting.commands[0].tooltip.len() <= TEXT
                && !greeting.commands[0].tooltip.contains('\n')
        );
        assert_eq!(greeting.commands[0].inputs.len(), TOLD_INPUTS);
    }

    #[test]
    fn pcp_34_placeholder_and_duplicate_command_are_warnings() {
        let mut document: Value = serde_json::from_slice(&start(json!([wget(), wget()]))).unwrap();
        document["placeholder"] = json!(true);
        let body = serde_json::to_vec(&document).unwrap();
        let read = Advertised::read(&body, StartId(1)).unwrap();
        assert_eq!(read.commands.len(), 1);
        assert!(read.warnings[0].contains("placeholder"));
        assert!(read.warnings[1].contains("\"wget\" is advertised twice"));
    }
}
