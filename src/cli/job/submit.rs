//! `submit`: makes a Job from a line.

use super::deliver::{self, Printed};
use super::{JobError, jobs, phase, verdict, when::when};
use crate::args;
use crate::connect::Connection;
use crate::output;
use crate::plugins;
use crate::trouble::explain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use patchbay_api::job::{Call, Command, DeliveryPolicy, Input, PluginRef, Target};
use patchbay_api::job_status::Phase;
use patchbay_api::plugin_status::AdvertisedCommand;
use patchbay_api::{Job, JobSpec, Plugin};
use patchbay_reconcile::suggest::{did_you_mean, similar};
use serde_json::{Map, Value};

/// Makes the Job; with `--wait` also waits for its end. Whether it is well.
pub(crate) async fn run(
    connection: &Connection,
    arguments: &args::Submit,
) -> Result<bool, JobError> {
    let plugin = plugins::one(connection, &arguments.plugin).await?;
    let job = job(&plugin, arguments, Timestamp::now()).map_err(JobError::Refused)?;
    let what = format!(
        "making a Job for plugin {} in namespace {}",
        arguments.plugin, connection.namespace
    );
    let made = jobs(connection)
        .create(&PostParams::default(), &job)
        .await
        .map_err(|error| explain(connection, what, error))?;
    let name = made.name_any();
    if !arguments.wait {
        output::line(&format!("job.patchbay.dev/{name} created"))?;
        return Ok(true);
    }
    output::note(&format!("job.patchbay.dev/{name} created"));
    let mut printed = Printed::new(false, false);
    let done = deliver::follow(connection, made, &mut printed).await?;
    let well = phase(&done) == Some(Phase::Succeeded);
    if !well {
        output::note(&verdict(&done));
    }
    Ok(well)
}

/// The Job that the line describes.
pub(super) fn job(
    plugin: &Plugin,
    arguments: &args::Submit,
    now: Timestamp,
) -> Result<Job, String> {
    let time = |text: &Option<String>| match text {
        Some(text) => when(text, now).map(|time| Some(MicroTime(time))),
        None => Ok(None),
    };
    let (command, call) = match arguments.work.split_once('/') {
        Some((service, method)) => (None, Some(call(service, method, &arguments.values)?)),
        None => (Some(command(plugin, arguments)?), None),
    };
    let name = arguments.name.clone();
    let generated = name.is_none().then(|| stem(&arguments.plugin));
    let spec = JobSpec {
        plugin_ref: PluginRef {
            name: arguments.plugin.clone(),
        },
        command,
        call,
        target: Target {
            location: arguments.client.clone().unwrap_or_default(),
            port: arguments.port.map(|p| p.to_string()).unwrap_or_default(),
            optional: Map::new(),
        },
        start_time: time(&arguments.start)?,
        expire_time: time(&arguments.expire)?,
        suspend: false,
        priority: arguments.priority,
        active_deadline_seconds: arguments.deadline,
        ttl_seconds_after_finished: arguments.ttl,
        backoff_limit: arguments.retries.unwrap_or_default(),
        backoff: Default::default(),
        delivery_policy: match arguments.retries {
            Some(_) => DeliveryPolicy::AtLeastOnce,
            None => DeliveryPolicy::AtMostOnce,
        },
        output_policy: Default::default(),
    };
    Ok(Job {
        metadata: ObjectMeta {
            name,
            generate_name: generated,
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}

/// The API server adds five characters; a Job's name has at most 48.
fn stem(plugin: &str) -> String {
    let stem: String = plugin.chars().take(42).collect();
    format!("{stem}-")
}

fn call(service: &str, method: &str, values: &[String]) -> Result<Call, String> {
    let request = match values {
        [] => Map::new(),
        [text] => match serde_json::from_str(text) {
            Ok(Value::Object(request)) => request,
            Ok(_) => return Err(format!("the request is {text}; expected a JSON object")),
            Err(error) => {
                return Err(format!(
                    "the request {text:?} is no JSON ({error}); expected an object such as {{\"key\": \"a\"}}"
                ));
            }
        },
        several => {
            return Err(format!(
                "{} words follow the method; expected one: the request as JSON in quotes",
                several.len()
            ));
        }
    };
    Ok(Call {
        service: service.to_owned(),
        method: method.to_owned(),
        request,
    })
}

fn command(plugin: &Plugin, arguments: &args::Submit) -> Result<Command, String> {
    let advertised: &[AdvertisedCommand] = plugin
        .status
        .as_ref()
        .and_then(|status| status.provides.as_ref())
        .map_or(&[], |provides| &provides.commands);
    let known = advertised.iter().find(|c| c.name == arguments.work);
    if known.is_none() && !advertised.is_empty() {
        let names: Vec<&str> = advertised.iter().map(|c| c.name.as_str()).collect();
        return Err(format!(
            "plugin {} has no command {:?}; it has {}{}",
            arguments.plugin,
            arguments.work,
            names.join(", "),
            did_you_mean(&similar(&arguments.work, names.iter().copied()))
        ));
    }
    let mut inputs = Vec::new();
    for (place, value) in arguments.values.iter().enumerate() {
        inputs.push(input(value, place, known)?);
    }
    let optional_inputs = arguments
        .options
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok(Input {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            None => Err(format!("--option is {text:?}; expected NAME=VALUE")),
        })
        .collect::<Result<_, _>>()?;
    Ok(Command {
        name: arguments.work.clone(),
        inputs,
        optional_inputs,
    })
}

/// `NAME=VALUE` where NAME is an input; anything else is the value of the input in that place.
fn input(text: &str, place: usize, known: Option<&AdvertisedCommand>) -> Result<Input, String> {
    let named = text.split_once('=').map(|(name, value)| Input {
        name: name.to_owned(),
        value: value.to_owned(),
    });
    match (known, named) {
        (Some(command), Some(named)) if command.inputs.iter().any(|i| i.name == named.name) => {
            Ok(named)
        }
        (Some(command), _) => match command.inputs.get(place) {
            Some(input) => Ok(Input {
                name: input.name.clone(),
                value: text.to_owned(),
            }),
            None => Err(format!(
                "{text:?} is value number {}; command {} has {} inputs: {}",
                place + 1,
                command.name,
                command.inputs.len(),
                command
                    .inputs
                    .iter()
                    .map(|i| i.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        },
        (None, Some(named)) => Ok(named),
        (None, None) => Err(format!(
            "{text:?} has no name, and the plugin has not said yet which inputs it has; write NAME=VALUE"
        )),
    }
}
