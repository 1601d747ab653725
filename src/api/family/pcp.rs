//! A controller plugin of the PCP job queue: its settings and their rules.

use crate::schema::{rule, telling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Names that belong to the family pcpController; the sidecar sets them. PLUGIN_NAME and LOGLEVEL
/// are the author's to set.
const OF_PCP: &str = "['PORT', 'RETHINK_HOST', 'STAGE', 'PLUGIN', 'PATCHBAY_JOBS_SOCKET']";

/// Settings of the family pcpController.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = settings()))]
pub struct PcpController {
    /// Port on which the plugin listens for external workers. Passed to the plugin in the environment
    /// variable PORT. Must be between 1024 and 65535.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Stage. Passed to the plugin in the environment variable STAGE. Defaults to PROD.
    #[serde(default)]
    #[schemars(transform = crate::schema::explain_values)]
    pub stage: Stage,
    /// Name of the plugin class, which is also the name of its module. Passed to the plugin in the
    /// environment variable PLUGIN. If not specified, the plugin class that is found is used; there must
    /// be only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub class_name: Option<String>,
    /// Maximum number of seconds from the start of the process until it reports that it has started.
    /// Defaults to 60. Must be between 1 and 3600.
    #[serde(default = "PcpController::default_start_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub start_timeout_seconds: i32,
}

impl PcpController {
    fn default_start_timeout() -> i32 {
        60
    }
}

/// The stages that a PCP controller plugin knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    /// Development.
    Dev,
    /// Tests.
    Testing,
    /// Quality assurance.
    Qa,
    /// Production.
    #[default]
    Prod,
}

impl Stage {
    /// The word in the environment.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Dev => "DEV",
            Stage::Testing => "TESTING",
            Stage::Qa => "QA",
            Stage::Prod => "PROD",
        }
    }
}

/// Rules on the whole spec.
pub(crate) fn spec_rules() -> Vec<Value> {
    vec![
        telling(
            &format!(
                "!has(self.env) || !has(self.protocol.pcpController) || self.env.all(e, !(e.name in {OF_PCP}))"
            ),
            &format!(
                "'spec.env sets ' + {OF_PCP}.filter(n, self.env.exists(e, e.name == n))[0] + ', which the sidecar sets from spec.protocol.pcpController; expected another name: remove it'"
            ),
            "spec.env sets PORT, RETHINK_HOST, STAGE, PLUGIN or PATCHBAY_JOBS_SOCKET, which the sidecar sets from spec.protocol.pcpController: remove it",
        ),
        rule(
            "!has(self.protocol.pcpController) || self.jobs.maxRunningPerPod == 4",
            "spec.jobs.maxRunningPerPod is set for a PCP controller plugin; expected it with goPlugin only, because a PCP controller plugin asks for each Job itself: remove it, or set jobs.maxRunning",
        ),
    ]
}

fn settings() -> Value {
    json!([
        rule(
            "self.port < 7443 || self.port > 7445",
            "pcpController.port is between 7443 and 7445; expected another port, because the sidecar uses these: choose another port",
        ),
        telling(
            "!has(self.className) || self.className.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
            "'pcpController.className is ' + self.className + '; expected the name of a Python class, which is also the name of its module: write it without package, path and .py'",
            "pcpController.className is not the name of a Python class: write it without package, path and .py",
        ),
    ])
}
