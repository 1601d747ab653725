//! The connection to a plugin that announced itself: made, described, asked.

use std::time::{Duration, Instant};

use patchbay_launcher::control::StartId;
use patchbay_protocol::pod_config::Tls;
use patchbay_protocol::reason::Reason;
use tonic::transport::Channel;

use super::controller::{self, ShutdownAnswer};
use super::endpoint::{DialError, Endpoint, Io};
use super::health::{self, Health};
use super::reflection;
use super::tls::{self, HostCertificate};
use crate::instance::failure::Failure;
use crate::instance::{Announced, Event};
use crate::paths::Root;

/// Some plugins print their line before they listen: refused connections are tried again for so
/// long.
const DIAL_AGAIN: Duration = Duration::from_secs(3);
/// Pauses between those attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A connection to one plugin process.
#[derive(Clone, Debug)]
pub struct PluginConnection {
    pub endpoint: Endpoint,
    /// For our own calls.
    pub channel: Channel,
    /// For people: `AutoMTLS (TLS 1.3)`.
    pub tls: String,
}

/// Where and how a plugin is dialled.
#[derive(Debug)]
pub struct Address {
    endpoint: Endpoint,
    /// The configured mode in one word.
    mode: &'static str,
}

/// Checks an announced address.
///
/// # Errors
/// An address or a certificate that will not be used.
pub fn address(
    tls: &Tls,
    root: &Root,
    announced: &Announced,
    host: Option<&HostCertificate>,
) -> Result<Address, Failure> {
    let (mode, client) = match (tls, &announced.handshake.certificate, host) {
        (Tls::None, _, _) => ("None", None),
        (Tls::Explicit { server_name }, _, _) => (
            "Explicit",
            Some(tls::Client::explicit(&root.plugin_tls(), server_name)),
        ),
        (Tls::AutoMTLS, Some(certificate), Some(host)) => {
            ("AutoMTLS", Some(tls::Client::pinned(certificate, host)))
        }
        (Tls::AutoMTLS, _, _) => {
            return Err(Failure::new(
                Reason::TlsFailed,
                "the key that this plugin was started with is not known any more",
            ));
        }
    };
    let client = client
        .transpose()
        .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
    let endpoint = Endpoint::new(&announced.handshake.address, &root.run(), client)
        .map_err(|rejected| Failure::new(rejected.reason, rejected.message))?;
    Ok(Address { endpoint, mode })
}

/// Dials, again and again while nobody listens yet.
///
/// # Errors
/// The last attempt's.
pub async fn dial(address: Address) -> Result<PluginConnection, Failure> {
    let began = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        match attempt(&address).await {
            Ok(connection) => return Ok(connection),
            Err(error) if error.reason == Reason::ConnectFailed && began.elapsed() < DIAL_AGAIN => {
                tracing::debug!(%error, "the plugin does not listen yet");
            }
            Err(error) => return Err(Failure::new(error.reason, error.message)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(address: &Address) -> Result<PluginConnection, DialError> {
    let Address { endpoint, mode } = address;
    let tls = if *mode == "None" {
        (*mode).to_owned()
    } else {
        match endpoint.connect().await? {
            Io::Tls { stream, .. } => match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => format!("{mode} (TLS 1.3)"),
                Some(rustls::ProtocolVersion::TLSv1_2) => format!("{mode} (TLS 1.2)"),
                _ => (*mode).to_owned(),
            },
            Io::Plain(_) => (*mode).to_owned(),
        }
    };
    Ok(PluginConnection {
        endpoint: endpoint.clone(),
        channel: endpoint.channel().await?,
        tls,
    })
}

impl PluginConnection {
    /// One health check.
    pub async fn check(&self, start_id: StartId, limit: Duration) -> Event {
        let health = health::check(self.channel.clone(), limit).await;
        match (&health, self.endpoint.failure()) {
            (Health::Failed(_), Some(failure)) if failure.reason == Reason::TlsFailed => {
                Event::ConnectionBroken(start_id, Failure::new(failure.reason, failure.message))
            }
            _ => Event::Health(start_id, health),
        }
    }

    /// Asks the plugin to end itself.
    pub async fn shutdown(&self, limit: Duration) -> ShutdownAnswer {
        controller::shutdown(self.channel.clone(), limit).await
    }

    /// The services by reflection.
    pub async fn list(&self, start_id: StartId, limit: Duration) -> Event {
        let services = reflection::services(self.channel.clone(), limit).await;
        Event::Services(start_id, services.map_err(|error| error.to_string()))
    }
}
