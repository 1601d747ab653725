//! Why a plugin instance is not ready: the words that a sidecar reports. The catalogue of the API
//! contains each of them under the same name.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Reason of a plugin instance.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The word as it stands in status.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),+ }
            }

            /// Reads the word; `None` for one that this build does not know.
            pub fn parse(word: &str) -> Option<Reason> {
                match word { $(stringify!($name) => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The launcher's control socket does not answer yet.
    WaitingForLauncher,
    /// The operator has not released the plugin in this sandbox.
    WaitingForRelease,
    /// The plugin was started and has not finished its handshake.
    Starting,
    /// The plugin is being stopped.
    Stopping,
    /// The kernel would not execute the command.
    ExecFailed,
    /// A file's SHA-256 is not the one in `spec.checksums`.
    ChecksumMismatch,
    /// A file of `spec.checksums` could not be read.
    ChecksumError,
    /// No handshake line in time.
    StartTimeout,
    /// The process ended before its handshake line.
    ExitedEarly,
    /// The plugin says that the cookie is wrong.
    CookieRejected,
    /// The first line on stdout is not a handshake.
    NotAHandshake,
    /// Another core protocol than 1.
    CoreVersionUnsupported,
    /// An application version that `versions` does not list.
    AppVersionUnsupported,
    /// An address that the sidecar will not or cannot reach.
    BadAddress,
    /// Another protocol than gRPC.
    ProtocolUnsupported,
    /// The certificate in the handshake cannot be read.
    BadCertificate,
    /// AutoMTLS was asked for and not answered.
    MtlsNotHonoured,
    /// The announced address does not accept a connection.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsFailed,
    /// The health check does not pass.
    Unhealthy,
    /// The process ended after its handshake, not by our doing.
    Crashed,
    /// Another program of the pod listens on a port of ours.
    PortTaken,
    /// The configuration in the annotation cannot be read.
    BadConfig,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
