//! How to speak to a plugin: one key per family.

use super::rules;
use crate::family::{Family, FamilySpec, GoPlugin, PcpController};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The family and its settings.
///
/// A struct of options and not an enum: the API server then answers a missing or doubled key with
/// our sentence. [`Protocol::family_spec`] gives the enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::protocol()))]
pub struct Protocol {
    /// Settings of a plugin that uses HashiCorp go-plugin over gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_plugin: Option<GoPlugin>,
    /// Settings of a controller plugin of the PCP job queue: a Python program that uses
    /// `src.controller_plugin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcp_controller: Option<PcpController>,
}

impl Protocol {
    /// The family with its settings, or `None` when no key is there (an API server never lets that
    /// in).
    pub fn family_spec(&self) -> Option<FamilySpec> {
        // Every key by its name: a family that is added and not read here does not compile.
        let Protocol {
            go_plugin,
            pcp_controller,
        } = self.clone();
        let go_plugin = go_plugin.map(FamilySpec::GoPlugin);
        go_plugin.or_else(|| pcp_controller.map(FamilySpec::PcpController))
    }

    /// The family, or `None` when no key is there.
    pub fn family(&self) -> Option<Family> {
        self.family_spec().map(|spec| spec.family())
    }
}
