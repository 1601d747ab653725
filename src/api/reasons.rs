//! The closed catalogue of reasons: every word that can stand in a condition or an event, what it
//! means to a person, and whose move it is.

use std::fmt;

/// Who has to do something before things get better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mover {
    /// Nobody: this is how it should be.
    Nobody,
    /// Patchbay or Kubernetes is at work; wait.
    Patchbay,
    /// The author of the Plugin object.
    Author,
    /// The author of the Job.
    Submitter,
    /// The author of the plugin program or its image.
    Vendor,
    /// The administrator of the cluster or the installation.
    Administrator,
}

impl Mover {
    /// Ends the sentence "Next move: …".
    pub const fn as_str(self) -> &'static str {
        match self {
            Mover::Nobody => "nobody",
            Mover::Patchbay => "Patchbay",
            Mover::Author => "the author of this Plugin",
            Mover::Submitter => "the author of this Job",
            Mover::Vendor => "the maker of the plugin program",
            Mover::Administrator => "the cluster's administrator",
        }
    }
}

macro_rules! reasons {
    ($($name:ident, $mover:ident, $sentence:literal;)+) => {
        /// A reason. The word, a sentence and the next mover belong together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $sentence] $name,)+ }

        impl Reason {
            /// Every reason, in the order of the catalogue.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The word as it stands in status.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),+ }
            }

            /// What it means, as one sentence for users.
            pub const fn sentence(self) -> &'static str {
                match self { $(Reason::$name => $sentence),+ }
            }

            /// Whose move it is.
            pub const fn mover(self) -> Mover {
                match self { $(Reason::$name => Mover::$mover),+ }
            }

            /// Reads the word; `None` for one that this build does not know.
            pub fn parse(word: &str) -> Option<Reason> {
                match word { $(stringify!($name) => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    // As it should be.
    Accepted, Nobody, "The object can be worked on as it is written.";
    Resolved, Nobody, "Every Secret and ConfigMap that the Plugin names exists.";
    Handshaken, Nobody, "Every replica has announced itself and was understood.";
    Current, Nobody, "Every pod runs the sidecar of this installation.";
    Ready, Nobody, "Every wanted replica is at work.";
    Created, Nobody, "A child object was created.";
    Deleted, Nobody, "A child object was deleted.";
    Restarted, Patchbay, "The plugin process was started again.";
    Swapped, Nobody, "A container's image was changed on the living pod.";
    ScaledToZero, Author, "No replica is wanted; raise spec.replicas to run the plugin.";

    // On the way.
    Pending, Patchbay, "Nothing is known yet.";
    PodPending, Patchbay, "The pod was created and its containers are not up yet.";
    WaitingForIdentity, Patchbay, "The plugin's certificate has not been issued yet.";
    WaitingForSession, Patchbay, "The operator has not reached the sidecar yet.";
    WaitingForLauncher, Patchbay, "The launcher does not answer the sidecar yet.";
    WaitingForRelease, Patchbay, "The plugin is held until the operator releases it.";
    Starting, Patchbay, "The plugin was started and has not announced itself yet.";
    Stopping, Patchbay, "The plugin is being stopped.";
    Updating, Patchbay, "A change of the Plugin is being carried out.";
    Deleting, Patchbay, "The Plugin is being deleted; its pods go first.";

    ReconcileFailed, Patchbay, "Patchbay could not read or write what it needs and tries again.";

    // The object.
    InvalidSpec, Author, "The Plugin contradicts itself; the message names the field.";
    NameTaken, Author, "An object that Patchbay does not own has a name that this Plugin needs.";
    LabelNotAllowed, Administrator, "The installation does not allow this label on pods.";
    SecretMissing, Author, "A Secret that the Plugin names does not exist.";
    ConfigMapMissing, Author, "A ConfigMap that the Plugin names does not exist.";
    KeyMissing, Author, "A Secret or ConfigMap exists and lacks a key that the Plugin names.";

    // The cluster.
    PodRefused, Author, "The API server refused the pod; the message is its own.";
    ChildRefused, Administrator, "The API server refused a Service, policy or Secret of ours.";
    Unschedulable, Administrator, "No node takes the pod.";
    ImagePullFailed, Author, "The plugin's image cannot be pulled.";
    SidecarImagePullFailed, Administrator, "The sidecar's image cannot be pulled.";
    ContainerConfigError, Author, "The kubelet cannot make the container from its configuration.";
    ContainerStartFailed, Author, "The container runtime cannot start the plugin's container.";
    ContainerCrashed, Administrator, "The launcher or the whole plugin container ended again and again.";
    SidecarCrashed, Administrator, "The sidecar ended again and again.";
    PodFailed, Patchbay, "The pod ended for good and is being replaced.";
    SessionLost, Administrator, "The operator had reached the sidecar and cannot reach it any more.";

    // The handshake, in the words of the sidecar.
    ExecFailed, Vendor, "The kernel would not execute the command.";
    ChecksumMismatch, Author, "A file's SHA-256 is not the one in spec.checksums.";
    ChecksumError, Author, "A file of spec.checksums could not be read.";
    StartTimeout, Vendor, "The plugin started and did not announce itself in time.";
    ExitedEarly, Vendor, "The plugin ended before it announced itself.";
    CookieRejected, Author, "The plugin says that its cookie is missing or wrong.";
    NotAHandshake, Vendor, "The first line on stdout is not a handshake.";
    CoreVersionUnsupported, Vendor, "The plugin speaks another core protocol than 1.";
    AppVersionUnsupported, Author, "The plugin offers an application version that spec.protocol.goPlugin.versions does not list.";
    BadAddress, Vendor, "The plugin announced an address that the sidecar will not or cannot reach.";
    ProtocolUnsupported, Vendor, "The plugin speaks another protocol than gRPC.";
    BadCertificate, Vendor, "The certificate in the handshake cannot be read.";
    MtlsNotHonoured, Author, "AutoMTLS was asked for and the plugin did not answer with a certificate.";
    ConnectFailed, Vendor, "The announced address does not accept a connection.";
    TlsFailed, Author, "The TLS handshake with the plugin failed.";
    Unhealthy, Vendor, "The plugin's health check does not pass.";
    Crashed, Vendor, "The plugin ended after it had announced itself, not by Patchbay's doing.";
    PortTaken, Vendor, "The plugin listens on a port that belongs to the sidecar.";
    BadConfig, Administrator, "The sidecar cannot read the configuration that the operator wrote.";

    // Flaws of something that works.
    PartlyReady, Patchbay, "Some wanted replicas are at work and others are not.";
    CrashLoop, Vendor, "The plugin ends again and again.";
    Warned, Vendor, "The plugin works, with a flaw that the message names.";
    SidecarOutdated, Author, "The sidecar is not the installation's, and spec.update.sidecar is Manual.";
    SwapFailed, Administrator, "A new image did not become ready in time and the old one was put back.";
    UnknownReason, Administrator, "The sidecar reported a word that this operator does not know.";

    // A Job on its way.
    Eligible, Patchbay, "The job can be handed out as soon as the plugin asks for it.";
    StartTimeInFuture, Patchbay, "The job's start time has not come.";
    BackingOff, Patchbay, "An attempt was lost or failed; the next one waits for its time.";
    PluginMissing, Submitter, "The Plugin that the job names does not exist or is being deleted.";
    PluginNotReady, Author, "The plugin has not said yet which commands it knows.";
    Unclaimed, Patchbay, "No plugin has the job.";
    Claimed, Patchbay, "A pod has the job.";
    Released, Patchbay, "A pod gave the job back without having handed it to its plugin.";
    NotStarted, Patchbay, "The plugin is not known to work on the job.";
    Started, Patchbay, "The plugin works on the job.";
    Suspended, Submitter, "The job is held back by spec.suspend.";
    Resumed, Nobody, "The job is no longer held back.";
    AlreadyClaimed, Nobody, "A job that a pod has cannot be suspended any more.";

    // The end of a Job.
    Completed, Nobody, "The plugin answered; its output is stored.";
    UnknownCommand, Submitter, "The plugin does not know the command or method that the job names.";
    BadInputs, Submitter, "The job does not fit what the plugin takes; the message names the field.";
    WrongFamily, Submitter, "The job is made for another family of plugins.";
    Expired, Submitter, "The job's time was over before any plugin got it.";
    DeadlineExceeded, Submitter, "The job was not done within its activeDeadlineSeconds.";
    Cancelled, Nobody, "Somebody asked for the end of the job.";
    PluginLost, Vendor, "The plugin that had the job is gone and has not answered.";
    PluginError, Vendor, "The plugin answered that the job went wrong.";
    CallFailed, Vendor, "The call ended with a gRPC error.";
    OutputTooLarge, Submitter, "The plugin gave more output than may be kept.";
    BackoffLimitExceeded, Vendor, "The last attempt that was allowed has failed too.";
    LateOutput, Nobody, "The plugin gave output after the end of the job.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_parses_back_and_has_a_sentence() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
            assert!(reason.sentence().ends_with('.'), "{reason}");
            assert!(reason.as_str().len() <= 64, "{reason}");
        }
        assert_eq!(Reason::parse("ready"), None);
    }
}
