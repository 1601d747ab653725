//! The families of plugins: a file for each, with its settings under `spec.protocol` and their
//! rules.

pub mod go_plugin;
pub mod pcp;

pub use go_plugin::GoPlugin;
pub use pcp::PcpController;

use serde_json::Value;

/// A family of plugins: programs that a host starts and speaks to in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// HashiCorp go-plugin over gRPC.
    GoPlugin,
    /// A controller plugin of the PCP job queue.
    PcpController,
}

impl Family {
    /// Every family, in the order of the documentation.
    pub const ALL: [Family; 2] = [Family::GoPlugin, Family::PcpController];

    /// The key in `spec.protocol`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::GoPlugin => "goPlugin",
            Family::PcpController => "pcpController",
        }
    }

    /// The key with the fields that it needs, for messages.
    pub const fn expected(self) -> &'static str {
        match self {
            Family::GoPlugin => "goPlugin with its cookie and versions",
            Family::PcpController => "pcpController with its port",
        }
    }

    /// Its rules on the whole spec of a Plugin.
    pub(crate) fn spec_rules(self) -> Vec<Value> {
        match self {
            Family::GoPlugin => go_plugin::spec_rules(),
            Family::PcpController => pcp::spec_rules(),
        }
    }
}

/// A family with the settings that a Plugin has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilySpec {
    /// HashiCorp go-plugin over gRPC.
    GoPlugin(GoPlugin),
    /// A controller plugin of the PCP job queue.
    PcpController(PcpController),
}

impl FamilySpec {
    /// Which family.
    pub const fn family(&self) -> Family {
        match self {
            FamilySpec::GoPlugin(_) => Family::GoPlugin,
            FamilySpec::PcpController(_) => Family::PcpController,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Family;
    use crate::plugin::Protocol;
    use schemars::schema_for;
    use std::collections::BTreeSet;

    #[test]
    fn every_family_is_a_key_of_protocol() {
        let schema = schema_for!(Protocol);
        let properties = schema.get("properties").and_then(|keys| keys.as_object());
        let keys: BTreeSet<&str> = properties.unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, Family::ALL.map(Family::as_str).into());
    }
}
