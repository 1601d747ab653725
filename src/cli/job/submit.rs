//! `submit`: creates a Job from the command line.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use patchbay_api::job::{Call, Command, DeliveryPolicy, Input, PluginRef, Target};
use patchbay_api::job_status::Phase;
use patchbay_api::plugin_status::AdvertisedCommand;
use patchbay_api::{Job, JobSpec, Plugin};
use patchbay_reconcile::suggest::{did_you_mean, similar};
use serde_json::{Map, Value};

use super::output::{OutputPrinter, follow};
use super::{JobCommandError, jobs, outcome, phase};
use crate::api_error::ApiError;
use crate::args::{self, RowFormat};
use crate::connect::ClusterClient;
use crate::plugins;
use crate::stdio;
use crate::time_arg;

/// Creates the Job; with `--wait` also waits for its end. Returns false if it did not succeed.
pub(crate) async fn run(
    cluster: &ClusterClient,
    arguments: &args::SubmitArgs,
) -> Result<bool, JobCommandError> {
    let plugin = plugins::get(cluster, &arguments.plugin).await?;
    let job = job(&plugin, arguments, Timestamp::now()).map_err(JobCommandError::Refused)?;
    let what = format!(
        "creating a Job for Plugin {} in namespace {}",
        arguments.plugin, cluster.namespace
    );
    let created = jobs(cluster)
        .create(&PostParams::default(), &job)
        .await
        .map_err(|error| ApiError::from_kube(cluster, what, error))?;
    let name = created.name_any();
    if !arguments.wait {
        stdio::line(&format!("job.patchbay.dev/{name} created"))?;
        return Ok(true);
    }
    stdio::note(&format!("job.patchbay.dev/{name} created"));
    let mut printed = OutputPrinter::new(RowFormat::Raw, false);
    let done = follow(cluster, created, &mut printed).await?;
    let succeeded = phase(&done) == Some(Phase::Succeeded);
    if !succeeded {
        stdio::note(&outcome(&done));
    }
    Ok(succeeded)
}

/// The Job that the arguments describe.
pub(super) fn job(
    plugin: &Plugin,
    arguments: &args::SubmitArgs,
    now: Timestamp,
) -> Result<Job, String> {
    let time = |text: &Option<String>| match text {
        Some(text) => time_arg::time(text, now).map(|time| Some(MicroTime(time))),
        None => Ok(None),
    };
    let (command, call) = match arguments.work.split_once('/') {
        Some((service, method)) => (None, Some(call(service, method, &arguments.values)?)),
        None => (Some(command(plugin, arguments)?), None),
    };
    let name = arguments.name.clone();
    let generate_name = name.is_none().then(|| generate_name(&arguments.plugin));
    let spec = JobSpec {
        plugin_ref: PluginRef {
            name: arguments.plugin.clone(),
        },
        command,
        call,
        target: Target {
            client: arguments.client.clone().unwrap_or_default(),
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
            generate_name,
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}

/// The API server appends five characters; a Job's name has at most 48.
fn generate_name(plugin: &str) -> String {
    let prefix: String = plugin.chars().take(42).collect();
    format!("{prefix}-")
}

fn call(service: &str, method: &str, values: &[String]) -> Result<Call, String> {
    let request = match values {
        [] => Map::new(),
        [text] => match serde_json::from_str(text) {
            Ok(Value::Object(request)) => request,
            Ok(_) => return Err(format!("the request is {text}; expected a JSON object")),
            Err(error) => {
                return Err(format!(
                    "the request {text:?} is not JSON ({error}); expected an object such as {{\"key\": \"a\"}}"
                ));
            }
        },
        several => {
            return Err(format!(
                "{} arguments follow the method; expected one: the request as JSON in quotes",
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

fn command(plugin: &Plugin, arguments: &args::SubmitArgs) -> Result<Command, String> {
    let advertised: &[AdvertisedCommand] = plugin
        .status
        .as_ref()
        .and_then(|status| status.provides.as_ref())
        .map_or(&[], |provides| &provides.commands);
    let known = advertised.iter().find(|c| c.name == arguments.work);
    if known.is_none() && !advertised.is_empty() {
        let names: Vec<&str> = advertised.iter().map(|c| c.name.as_str()).collect();
        return Err(format!(
            "Plugin {} has no command {:?}; it has {}{}",
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
        .optional_inputs
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok(Input {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            None => Err(format!("--optional-input is {text:?}; expected NAME=VALUE")),
        })
        .collect::<Result<_, _>>()?;
    Ok(Command {
        name: arguments.work.clone(),
        inputs,
        optional_inputs,
    })
}

/// `NAME=VALUE` if NAME is an input of the command; anything else is a value by position.
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
            "{text:?} has no name, and the plugin has not reported its inputs yet; use NAME=VALUE"
        )),
    }
}
