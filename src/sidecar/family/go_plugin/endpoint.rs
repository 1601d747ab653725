//! Where a plugin listens, and how to get there.
//!
//! The address comes from the plugin and is treated so: a path is opened beneath the shared folder
//! without following links, looked at, and connected through the very descriptor that was opened;
//! ports and the socket of ours are refused.

pub use super::io::{Io, Raw};
use super::tls;
use hyper_util::rt::TokioIo;
use patchbay_launcher::layout;
use patchbay_protocol::escape::{QUOTE, printable};
use patchbay_protocol::handshake::{Address, Rejected};
use patchbay_protocol::reason::Reason;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

/// How long a connection, its TLS handshake included, may take.
pub const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Largest header list in bytes that is taken from a plugin.
const MAX_HEADERS: u32 = 1024 * 1024;
/// The pod's own ports: a plugin that announces one would make the sidecar talk to itself.
const OUR_PORTS: [u16; 3] = [
    layout::SESSION_PORT,
    layout::PROXY_PORT,
    layout::CANARY_PORT,
];

/// One plugin's address with everything that is needed to reach it. Cloning is cheap, and clones
/// are the same endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    tls: Option<tls::Client>,
    /// tonic flattens the reason of a failed connection to "transport error", and with TLS 1.3 a
    /// refused certificate shows only at the first read. So the last trouble is kept here.
    failure: Mutex<Option<DialError>>,
}

#[derive(Debug)]
enum Target {
    Unix { run: PathBuf, beneath: PathBuf },
    Tcp(Vec<SocketAddr>),
}

/// Why a plugin could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// `ConnectFailed`, `TlsFailed` or `BadAddress`.
    pub reason: Reason,
    /// What was attempted, what happened, and a hint.
    pub message: String,
}

impl Endpoint {
    /// Judges the address that a plugin announced. `run` is the shared folder as the sidecar sees
    /// it, which is where the plugin sees it too. Without `tls` the link is plain.
    pub fn new(
        address: &Address,
        run: &Path,
        tls: Option<tls::Client>,
    ) -> Result<Endpoint, Rejected> {
        let reject = |why: String| Rejected {
            reason: Reason::BadAddress,
            message: format!(
                "the plugin announced the address `{} {address}`, which cannot be used: {why}",
                address.network()
            ),
        };
        let target = match address {
            Address::Unix(path) => match path.strip_prefix(run) {
                Ok(beneath) if beneath.as_os_str().is_empty() => {
                    return Err(reject("it is the shared folder itself".to_owned()));
                }
                Ok(beneath) => Target::Unix {
                    run: run.to_owned(),
                    beneath: beneath.to_owned(),
                },
                Err(_) => {
                    return Err(reject(format!(
                        "it does not lie in the folder that plugin and sidecar share ({}); listen \
                         in PLUGIN_UNIX_SOCKET_DIR or TMPDIR",
                        run.display()
                    )));
                }
            },
            Address::Tcp(all) => {
                if let Some(ours) = all.iter().find(|one| OUR_PORTS.contains(&one.port())) {
                    return Err(reject(format!(
                        "port {} of the pod belongs to the sidecar",
                        ours.port()
                    )));
                }
                Target::Tcp(all.clone())
            }
        };
        Ok(Endpoint(Arc::new(Inner {
            target,
            tls,
            failure: Mutex::new(None),
        })))
    }

    /// Whether both are clones of one endpoint.
    pub fn is_same(&self, other: &Endpoint) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Opens one connection, TLS included, within [`DIAL_LIMIT`].
    pub async fn connect(&self) -> Result<Io, DialError> {
        let result = match tokio::time::timeout(DIAL_LIMIT, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(DialError {
                reason: Reason::ConnectFailed,
                message: format!(
                    "connecting to {} took longer than {} s",
                    self.describe(),
                    DIAL_LIMIT.as_secs()
                ),
            }),
        };
        if let Err(error) = &result {
            self.note(error.clone());
        }
        result
    }

    /// Opens a connection and keeps a gRPC channel on it, which connects again when it breaks.
    pub async fn channel(&self) -> Result<Channel, DialError> {
        let origin = tonic::transport::Endpoint::from_static("http://localhost")
            .http2_max_header_list_size(MAX_HEADERS);
        match origin.connect_with_connector(Connector(self.clone())).await {
            Ok(channel) => Ok(channel),
            Err(error) => Err(self.failure().unwrap_or_else(|| DialError {
                reason: Reason::ConnectFailed,
                message: format!("connecting to {} failed: {error}", self.describe()),
            })),
        }
    }

    /// The last trouble of a connection to this endpoint: also TLS alerts that came after the
    /// connection was made. `None` while there was none.
    pub fn failure(&self) -> Option<DialError> {
        self.0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps an error of an open connection if it is about TLS.
    pub(super) fn note_io(&self, error: &io::Error) {
        if rustls_error(error).is_some() {
            self.note(self.tls_error(error));
        }
    }

    fn note(&self, error: DialError) {
        *self
            .0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn describe(&self) -> String {
        match &self.0.target {
            Target::Unix { run, beneath } => {
                printable(run.join(beneath).as_os_str().as_encoded_bytes(), QUOTE)
            }
            Target::Tcp(all) => all
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
                .join(" or "),
        }
    }

    async fn dial(&self) -> Result<Io, DialError> {
        let raw = match &self.0.target {
            Target::Unix { run, beneath } => Raw::Unix(self.dial_unix(run, beneath).await?),
            Target::Tcp(all) => Raw::Tcp(self.dial_tcp(all).await?),
        };
        let Some(client) = &self.0.tls else {
            return Ok(Io::Plain(raw));
        };
        match TlsConnector::from(client.config())
            .connect(client.name(), raw)
            .await
        {
            Ok(stream) => Ok(Io::Tls {
                stream: Box::new(stream),
                endpoint: self.clone(),
            }),
            Err(error) => Err(self.tls_error(&error)),
        }
    }

    async fn dial_unix(&self, run: &Path, beneath: &Path) -> Result<UnixStream, DialError> {
        let socket = open_socket(run, beneath).map_err(|error| self.open_error(error))?;
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let mut wait = Duration::from_millis(1);
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => return Ok(stream),
                // The queue of connections is full: the kernel tells no one when it has room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(self.connect_error(&error)),
            }
        }
    }

    async fn dial_tcp(&self, all: &[SocketAddr]) -> Result<TcpStream, DialError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in all {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Only a hint to the kernel; the link works without it.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(self.connect_error(&last))
    }

    fn open_error(&self, error: OpenError) -> DialError {
        let (reason, why) = match error {
            OpenError::System(Errno::NOENT) => (
                Reason::ConnectFailed,
                "there is no such socket; the plugin removed it or has ended".to_owned(),
            ),
            OpenError::System(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => (
                Reason::BadAddress,
                "the path leads through a link or out of the shared folder".to_owned(),
            ),
            OpenError::System(Errno::ACCESS) => (Reason::ConnectFailed, permission_hint()),
            OpenError::System(errno) => (Reason::ConnectFailed, io::Error::from(errno).to_string()),
            OpenError::NotASocket => (Reason::BadAddress, "it is not a socket".to_owned()),
            OpenError::ControlSocket => (
                Reason::BadAddress,
                "it is the launcher's control socket".to_owned(),
            ),
        };
        DialError {
            reason,
            message: format!("connecting to {} failed: {why}", self.describe()),
        }
    }

    fn connect_error(&self, error: &io::Error) -> DialError {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
            io::ErrorKind::PermissionDenied => permission_hint(),
            _ => error.to_string(),
        };
        DialError {
            reason: Reason::ConnectFailed,
            message: format!("connecting to {} failed: {why}", self.describe()),
        }
    }

    fn tls_error(&self, error: &io::Error) -> DialError {
        let why = match (rustls_error(error), &self.0.tls) {
            (Some(inner), Some(client)) => tls::explain(inner, &client.name()),
            _ if error.kind() == io::ErrorKind::UnexpectedEof
                || error.kind() == io::ErrorKind::ConnectionReset =>
            {
                "the plugin closed the connection; perhaps it does not speak TLS".to_owned()
            }
            _ => error.to_string(),
        };
        DialError {
            reason: Reason::TlsFailed,
            message: format!("the TLS handshake with {} failed: {why}", self.describe()),
        }
    }
}

fn permission_hint() -> String {
    "permission denied; plugin and sidecar must run as the same user, or share the group of \
     PLUGIN_UNIX_SOCKET_GROUP"
        .to_owned()
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

enum OpenError {
    System(Errno),
    NotASocket,
    ControlSocket,
}

/// Opens the socket file itself, without connecting: beneath `run`, through no link.
fn open_socket(run: &Path, beneath: &Path) -> Result<OwnedFd, OpenError> {
    let path_only = OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::open(run, path_only | OFlags::DIRECTORY, Mode::empty())
        .map_err(OpenError::System)?;
    let strictly = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| {
        rustix::fs::openat2(
            &folder,
            path,
            path_only | OFlags::NOFOLLOW,
            Mode::empty(),
            strictly,
        )
    };
    let socket = open(beneath).map_err(OpenError::System)?;
    let about = rustix::fs::fstat(&socket).map_err(OpenError::System)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::Socket {
        return Err(OpenError::NotASocket);
    }
    // By number, because a hard link gives the control socket a second name.
    if let Ok(control) = open(Path::new(layout::CONTROL_SOCKET))
        && let Ok(control) = rustix::fs::fstat(&control)
        && (control.st_dev, control.st_ino) == (about.st_dev, about.st_ino)
    {
        return Err(OpenError::ControlSocket);
    }
    Ok(socket)
}

/// Gives tonic finished connections: it cannot be told to verify a certificate our way.
struct Connector(Endpoint);

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Io>, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _origin: http::Uri) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move { endpoint.connect().await.map(TokioIo::new) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "endpoint_tests.rs"]
mod tests;
