//! The conditions of our kinds. Positive ones exist from the first second as Unknown; a negative
//! one exists only while it is true.

use std::fmt;

/// Type of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object can be worked on as it is written.
    Accepted,
    /// Every Secret and ConfigMap that it names exists.
    ResolvedRefs,
    /// Every replica's plugin has announced itself and was understood.
    Handshaken,
    /// Every pod runs the sidecar image of the installed operator.
    SidecarCurrent,
    /// Every wanted replica answers calls.
    Ready,
    /// Some replicas work, or everything works with a flaw that somebody should look at.
    Degraded,
}

impl ConditionType {
    /// The conditions that are always there, in the order of a pod's life.
    pub const SUMMARY: [ConditionType; 5] = [
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Handshaken,
        ConditionType::SidecarCurrent,
        ConditionType::Ready,
    ];

    /// The word as it stands in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::ResolvedRefs => "ResolvedRefs",
            ConditionType::Handshaken => "Handshaken",
            ConditionType::SidecarCurrent => "SidecarCurrent",
            ConditionType::Ready => "Ready",
            ConditionType::Degraded => "Degraded",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
