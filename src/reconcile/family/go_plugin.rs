//! HashiCorp go-plugin: client programs call it through the proxy, jobs are calls.

use super::{ClientPort, PluginFamily, Texts, count, port};
use crate::job::acceptance::Acceptance;
use crate::job::observe::PluginView;
use crate::plugin::observe::Instance;
use patchbay_api::names::PROXY_PORT;
use patchbay_api::plugin::{GoPlugin, ServiceType, TlsMode, TrafficPolicy};
use patchbay_api::plugin_status::InstanceStatus;
use patchbay_api::{JobSpec, Reason};
use patchbay_protocol::pod_config::{FamilyConfig, GoPluginConfig, Tls};
use serde_json::{Map, Value, json};

/// Makes meshes and gateways speak HTTP/2 without TLS to the port.
const APP_PROTOCOL: &str = "kubernetes.io/h2c";

impl PluginFamily for GoPlugin {
    fn config(&self) -> FamilyConfig {
        let mut versions: Vec<u32> = self.versions.iter().copied().map(count).collect();
        versions.sort_unstable();
        FamilyConfig::GoPlugin(GoPluginConfig {
            cookie_key: self.cookie.key.clone(),
            cookie_value: self.cookie.value.clone(),
            versions,
            tls: match self.tls.mode {
                TlsMode::None => Tls::None,
                TlsMode::AutoMTLS => Tls::AutoMTLS,
                TlsMode::Explicit => Tls::Explicit {
                    server_name: self.tls.server_name.clone().unwrap_or_default(),
                },
            },
            min_port: port(self.ports.min),
            max_port: port(self.ports.max),
            handshake_timeout_seconds: count(self.handshake.timeout_seconds),
            skip_lines: u16::try_from(self.handshake.skip_lines).unwrap_or_default(),
        })
    }

    fn client_port(&self) -> ClientPort {
        ClientPort {
            number: PROXY_PORT,
            container_port: "proxy",
            service_port: "grpc",
            app_protocol: Some(APP_PROTOCOL),
        }
    }

    fn traffic_policy(&self, _: ServiceType) -> Option<TrafficPolicy> {
        None
    }

    fn certificates(&self) -> Option<&str> {
        match self.tls.mode {
            TlsMode::Explicit => self.tls.secret_name.as_deref(),
            TlsMode::None | TlsMode::AutoMTLS => None,
        }
    }

    fn fixed_at_creation(&self) -> Map<String, Value> {
        Map::from_iter([("certificates".to_owned(), json!(self.certificates()))])
    }

    fn texts(&self) -> Texts {
        Texts {
            handshaken: "have shaken hands",
            ready: "answer calls",
        }
    }

    fn handshake_known(&self, last: Option<&Instance>, before: Option<&InstanceStatus>) -> bool {
        last.is_some_and(|instance| instance.handshake.is_some())
            || before.is_some_and(|line| line.handshake.is_some())
    }

    fn warnings_degrade(&self) -> bool {
        // A plugin without a health service is just as ready.
        false
    }

    fn judge_job(&self, job: &JobSpec, _: &PluginView, name: &str) -> Acceptance {
        match &job.command {
            None => Acceptance::Yes,
            Some(_) => Acceptance::No(
                Reason::WrongFamily,
                format!(
                    "spec has a command and Plugin {name} is of the family goPlugin, which takes spec.call: create a new Job with a call, or name another Plugin"
                ),
            ),
        }
    }
}
