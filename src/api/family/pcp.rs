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
    /// The plugin's one port: PORT in its environment, and where external workers connect.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// STAGE in its environment.
    #[serde(default)]
    pub stage: Stage,
    /// Class and module to load: PLUGIN in its environment. The runner looks for the only class
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub class_name: Option<String>,
    /// Seconds from the start of the process to its first word.
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
                "'spec.env sets ' + {OF_PCP}.filter(n, self.env.exists(e, e.name == n))[0] + ', which belongs to the family pcpController; expected it only from spec.protocol.pcpController: remove it, the sidecar sets it'"
            ),
            "spec.env sets PORT, RETHINK_HOST, STAGE, PLUGIN or PATCHBAY_JOBS_SOCKET, which belong to the family pcpController: remove it, the sidecar sets it",
        ),
        rule(
            "!has(self.protocol.pcpController) || self.jobs.maxRunningPerPod == 4",
            "spec.jobs.maxRunningPerPod is set for a PCP controller plugin; expected it with goPlugin only, because a PCP controller plugin asks for a job when it wants one: remove it, or limit with jobs.maxRunning",
        ),
    ]
}

fn settings() -> Value {
    json!([
        rule(
            "self.port < 7443 || self.port > 7445",
            "pcpController.port is one of 7443 to 7445, which belong to the sidecar: choose another port",
        ),
        telling(
            "!has(self.className) || self.className.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
            "'pcpController.className is ' + self.className + '; expected the name of a Python class, which is the name of its module too: write it without package, path and .py'",
            "pcpController.className is not the name of a Python class: write it without package, path and .py",
        ),
    ])
}
