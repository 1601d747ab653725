//! What one sidecar process leaves for the next, so that a running plugin is taken over instead
//! of restarted: which start it is, how to speak TLS to it, what it announced.
//!
//! The record is written before the plugin is ordered, because the key that goes with a plugin
//! must not be lost while that plugin lives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use patchbay_launcher::control::StartId;
use patchbay_protocol::pod_config::PodConfig;
use serde::{Deserialize, Serialize};

use crate::error::SystemError;
use crate::family::go_plugin::tls::HostCertificate;
use crate::instance::Resumed;
use crate::paths::{Root, replace};

/// Version of the record's shape. A record of another version is not used.
const VERSION: u32 = 1;
/// Largest record in bytes.
const MAX_RECORD: u64 = 1024 * 1024;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    pub start_id: u64,
    /// Ordered from this launcher.
    pub launcher_id: u64,
    /// With this configuration.
    pub config: Box<PodConfig>,
    /// Starts after the first in this container.
    pub restarts: u32,
    /// The pause that was used last, in milliseconds.
    pub backoff: u64,
    identity: Option<Identity>,
    announced: Option<Announced>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    certificate: String,
    key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Announced {
    line: String,
    millis: u64,
}

impl Record {
    /// Before the order.
    pub fn new(
        start_id: StartId,
        launcher_id: u64,
        config: Box<PodConfig>,
        host: Option<&HostCertificate>,
    ) -> Record {
        let identity = host.map(|host| Identity {
            certificate: STANDARD.encode(host.certificate_der()),
            key: STANDARD.encode(host.key_der()),
        });
        Record {
            version: VERSION,
            start_id: start_id.0,
            launcher_id,
            config,
            restarts: 0,
            backoff: 0,
            identity,
            announced: None,
        }
    }

    /// After the handshake.
    pub fn announce(&mut self, line: &[u8], millis: u64) {
        self.announced = Some(Announced {
            line: STANDARD.encode(line),
            millis,
        });
    }

    /// The certificate that the plugin was started with.
    pub fn host(&self) -> Option<HostCertificate> {
        let identity = self.identity.as_ref()?;
        let certificate = STANDARD.decode(&identity.certificate).ok()?;
        let key = STANDARD.decode(&identity.key).ok()?;
        Some(HostCertificate::from_parts(certificate, key))
    }

    /// For the state machine of the next process.
    pub fn resumed(&self) -> Resumed {
        let announced = self.announced.as_ref();
        let announced = announced
            .and_then(|announced| Some((STANDARD.decode(&announced.line).ok()?, announced.millis)));
        Resumed {
            start_id: StartId(self.start_id),
            launcher_id: self.launcher_id,
            config: self.config.clone(),
            announced,
            restarts: self.restarts,
            backoff: self.backoff,
        }
    }

    /// Writes the record by rename.
    ///
    /// # Errors
    /// What was attempted.
    pub fn write(&self, root: &Root) -> Result<(), SystemError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| SystemError::new("write the hand-over record", error))?;
        replace(&path(root), &json, 0o600)
    }

    /// What an earlier process left; `None` if nothing that can be used.
    pub fn read(root: &Root) -> Option<Record> {
        use std::io::Read;
        let mut json = Vec::new();
        std::fs::File::open(path(root))
            .ok()?
            .take(MAX_RECORD)
            .read_to_end(&mut json)
            .ok()?;
        let record: Record = match serde_json::from_slice(&json) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, "the hand-over record cannot be read");
                return None;
            }
        };
        (record.version == VERSION).then_some(record)
    }
}

fn path(root: &Root) -> std::path::PathBuf {
    root.private().join("handover.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::config;

    #[test]
    fn a_record_survives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        assert_eq!(Record::read(&root), None);
        let host = HostCertificate::generate().unwrap();
        let mut record = Record::new(StartId(u64::MAX), 7, Box::new(config(3)), Some(&host));
        record.announce(b"1|5|unix|/x|grpc|\xff", 12);
        record.write(&root).unwrap();
        let read = Record::read(&root).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.host().unwrap().key_der(), host.key_der());
        assert_eq!(
            read.resumed().announced,
            Some((b"1|5|unix|/x|grpc|\xff".to_vec(), 12))
        );

        std::fs::write(path(&root), b"{").unwrap();
        assert_eq!(Record::read(&root), None);
        std::fs::write(path(&root), serde_json::to_vec(&record).unwrap().as_slice()).unwrap();
        let other = std::fs::read_to_string(path(&root))
            .unwrap()
            .replace("\"version\":1", "\"version\":9");
        std::fs::write(path(&root), other).unwrap();
        assert_eq!(Record::read(&root), None);
    }
}
