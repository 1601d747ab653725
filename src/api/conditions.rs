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
    /// The job's time has come and it can be, or was, handed out.
    Eligible,
    /// A pod has, or had, the job.
    Claimed,
    /// The plugin works, or worked, on the job.
    Started,
    /// The job is done. The word of batch/v1.
    Complete,
    /// The job has ended without being done. The word of batch/v1.
    Failed,
    /// The job is held back. The word of batch/v1.
    Suspended,
}

impl ConditionType {
    /// The conditions of a Plugin that are always there, in the order of a pod's life.
    pub const SUMMARY: [ConditionType; 5] = [
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Handshaken,
        ConditionType::SidecarCurrent,
        ConditionType::Ready,
    ];

    /// The conditions of a Job that are always there, in the order of its life.
    pub const JOB: [ConditionType; 4] = [
        ConditionType::Accepted,
        ConditionType::Eligible,
        ConditionType::Claimed,
        ConditionType::Started,
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
            ConditionType::Eligible => "Eligible",
            ConditionType::Claimed => "Claimed",
            ConditionType::Started => "Started",
            ConditionType::Complete => "Complete",
            ConditionType::Failed => "Failed",
            ConditionType::Suspended => "Suspended",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
