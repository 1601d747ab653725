//! A controller plugin of the PCP job queue: it asks for jobs, and external workers connect to it.

use super::{ClientPort, PluginFamily, Texts, count, port};
use crate::job::acceptance::{Acceptance, judge_command, not_ready};
use crate::job::observe::PluginView;
use crate::plugin::observe::{Instance, Phase};
use patchbay_api::plugin::{PcpController, ServiceType, TrafficPolicy};
use patchbay_api::plugin_status::{InstanceState, InstanceStatus};
use patchbay_api::{JobSpec, Reason};
use patchbay_protocol::pod_config::{FamilyConfig, PcpConfig};
use serde_json::{Map, Value, json};

impl PluginFamily for PcpController {
    fn config(&self) -> FamilyConfig {
        FamilyConfig::PcpController(PcpConfig {
            port: port(self.port),
            stage: self.stage.as_str().to_owned(),
            class_name: self.class_name.clone(),
            start_timeout_seconds: count(self.start_timeout_seconds),
        })
    }

    fn client_port(&self) -> ClientPort {
        ClientPort {
            number: port(self.port),
            container_port: "workers",
            service_port: "workers",
            // What workers and plugin say to each other is their own business.
            app_protocol: None,
        }
    }

    /// The address of a worker decides whose jobs it gets, so it stays visible.
    fn traffic_policy(&self, service: ServiceType) -> Option<TrafficPolicy> {
        match service {
            ServiceType::ClusterIP => None,
            ServiceType::NodePort | ServiceType::LoadBalancer => Some(TrafficPolicy::Local),
        }
    }

    fn certificates(&self) -> Option<&str> {
        None
    }

    fn fixed_at_creation(&self) -> Map<String, Value> {
        Map::from_iter([
            ("certificates".to_owned(), Value::Null),
            // A port of the sidecar's container; it also tells the families apart.
            ("workers".to_owned(), json!(self.port)),
        ])
    }

    fn texts(&self) -> Texts {
        Texts {
            handshaken: "have announced their commands",
            ready: "take jobs",
        }
    }

    /// Nothing is agreed upon in its handshake, so only the state tells of it.
    fn handshake_known(&self, last: Option<&Instance>, before: Option<&InstanceStatus>) -> bool {
        last.is_some_and(|instance| matches!(instance.phase, Phase::Ready | Phase::Unhealthy))
            || before.is_some_and(|line| line.state == InstanceState::Ready)
    }

    fn warnings_degrade(&self) -> bool {
        // What a sidecar notes about such a plugin hinders its jobs.
        true
    }

    fn judge_job(&self, job: &JobSpec, plugin: &PluginView, name: &str) -> Acceptance {
        let Some(command) = &job.command else {
            return Acceptance::No(
                Reason::WrongFamily,
                format!(
                    "spec has a call and Plugin {name} is of the family pcpController, which takes spec.command: create a new Job with a command, or name another Plugin"
                ),
            );
        };
        match &plugin.commands {
            Some(known) => judge_command(command, known, plugin.complete, name),
            None => not_ready(name),
        }
    }
}
