//! The connection to a plugin that announced itself: made, described, asked.

use std::time::{Duration, Instant};

use patchbay_launcher::control::StartId;
use patchbay_protocol::pod_config::{PodConfig, Protocol, Tls};
use patchbay_protocol::reason::Reason;
use tonic::transport::Channel;

use crate::go_plugin::endpoint::{DialError, Endpoint, Io};
use crate::go_plugin::health::{self, Health};
use crate::go_plugin::reflection;
use crate::go_plugin::tls::{self, HostCertificate};
use crate::instance::trouble::Trouble;
use crate::instance::{Announced, Event};
use crate::paths::Root;

/// Some plugins print their line before they listen: refused connections are tried again for so
/// long.
const DIAL_AGAIN: Duration = Duration::from_secs(3);
/// Pauses between those attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A connection to one plugin process.
#[derive(Clone, Debug)]
pub struct Link {
    pub endpoint: Endpoint,
    /// For our own calls.
    pub channel: Channel,
    /// For people: `AutoMTLS (TLS 1.3)`.
    pub tls: String,
}

/// Takes the announced address for what it is worth.
///
/// # Errors
/// An address or a certificate that will not be used.
pub fn endpoint(
    root: &Root,
    announced: &Announced,
    host: Option<&HostCertificate>,
) -> Result<Endpoint, Trouble> {
    let Protocol::GoPlugin(family) = &announced.config.protocol else {
        return Err(Trouble::new(
            Reason::BadConfig,
            "a plugin of another family announced an address",
        ));
    };
    let client = match (&family.tls, &announced.handshake.certificate, host) {
        (Tls::None, _, _) => None,
        (Tls::Explicit { server_name }, _, _) => {
            Some(tls::Client::explicit(&root.plugin_tls(), server_name))
        }
        (Tls::AutoMTLS, Some(certificate), Some(host)) => {
            Some(tls::Client::pinned(certificate, host))
        }
        (Tls::AutoMTLS, _, _) => {
            return Err(Trouble::new(
                Reason::TlsFailed,
                "the key that this plugin was started with is not known any more",
            ));
        }
    };
    let client = client
        .transpose()
        .map_err(|error| Trouble::new(error.reason(), error.to_string()))?;
    Endpoint::new(&announced.handshake.address, &root.run(), client)
        .map_err(|rejected| Trouble::new(rejected.reason, rejected.message))
}

/// The configured mode in one word.
pub fn tls_word(config: &PodConfig) -> &'static str {
    match &config.protocol {
        Protocol::GoPlugin(family) => match family.tls {
            Tls::None => "None",
            Tls::AutoMTLS => "AutoMTLS",
            Tls::Explicit { .. } => "Explicit",
        },
        Protocol::PcpController(_) => "None",
    }
}

/// Dials, again and again while nobody listens yet.
///
/// # Errors
/// The last attempt's.
pub async fn dial(endpoint: Endpoint, how: &'static str) -> Result<Link, Trouble> {
    let began = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        match attempt(&endpoint, how).await {
            Ok(link) => return Ok(link),
            Err(error) if error.reason == Reason::ConnectFailed && began.elapsed() < DIAL_AGAIN => {
                tracing::debug!(%error, "the plugin does not listen yet");
            }
            Err(error) => return Err(Trouble::new(error.reason, error.message)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(endpoint: &Endpoint, how: &'static str) -> Result<Link, DialError> {
    let tls = if how == "None" {
        how.to_owned()
    } else {
        match endpoint.connect().await? {
            Io::Tls { stream, .. } => match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => format!("{how} (TLS 1.3)"),
                Some(rustls::ProtocolVersion::TLSv1_2) => format!("{how} (TLS 1.2)"),
                _ => how.to_owned(),
            },
            Io::Plain(_) => how.to_owned(),
        }
    };
    Ok(Link {
        endpoint: endpoint.clone(),
        channel: endpoint.channel().await?,
        tls,
    })
}

impl Link {
    /// One health check.
    pub async fn check(&self, start_id: StartId, limit: Duration) -> Event {
        let health = health::check(self.channel.clone(), limit).await;
        match (&health, self.endpoint.trouble()) {
            (Health::Failed(_), Some(trouble)) if trouble.reason == Reason::TlsFailed => {
                Event::LinkBroken(start_id, Trouble::new(trouble.reason, trouble.message))
            }
            _ => Event::Health(start_id, health),
        }
    }

    /// The services by reflection.
    pub async fn list(&self, start_id: StartId, limit: Duration) -> Event {
        let services = reflection::services(self.channel.clone(), limit).await;
        Event::Services(start_id, services.map_err(|error| error.to_string()))
    }
}
