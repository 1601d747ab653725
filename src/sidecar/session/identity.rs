//! Who we are and whom we let in: mutual TLS, names as URIs.
//!
//! A chain to the installation's authority is not enough, since every sidecar has one: only the
//! operator's own name opens the session.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::family::go_plugin::tls::provider;

/// Beginning of every name.
const SCHEME: &str = "patchbay://";

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("read {path}: {why}")]
    File { path: PathBuf, why: String },
    /// The certificate is not a plugin's.
    #[error(
        "read the identity: its certificate carries no name patchbay://<installation>/plugin/<namespace>/<uid>"
    )]
    Name,
    /// Certificate, key and authority do not fit together.
    #[error("use the identity: {0}")]
    Unusable(String),
}

/// Reads `tls.crt`, `tls.key` and `ca.crt` in `folder` and makes of them how connections are accepted.
///
/// # Errors
/// A file that cannot be read or used. During the kubelet's swap of the files the next attempt
/// succeeds.
pub fn load(folder: &Path) -> Result<Arc<ServerConfig>, IdentityError> {
    let chain = certificates(&folder.join("tls.crt"))?;
    let key_file = folder.join("tls.key");
    let key =
        PrivateKeyDer::from_pem_slice(&read(&key_file)?).map_err(|error| file(&key_file, error))?;
    let mut roots = RootCertStore::empty();
    let ca_file = folder.join("ca.crt");
    for certificate in certificates(&ca_file)? {
        roots
            .add(certificate)
            .map_err(|error| file(&ca_file, error))?;
    }
    let operator = match chain.first().and_then(only_uri) {
        Some(own) => operator_of(&own).ok_or(IdentityError::Name)?,
        None => return Err(IdentityError::Name),
    };
    let unusable = |error: &dyn std::fmt::Display| IdentityError::Unusable(error.to_string());
    let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(Arc::new(OnlyOperator { chains, operator }))
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The operator keeps one connection for days; tickets would only cost memory.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// `patchbay://<installation>/plugin/…` to `patchbay://<installation>/operator`.
fn operator_of(own: &str) -> Option<String> {
    let (installation, rest) = own.strip_prefix(SCHEME)?.split_once('/')?;
    (!installation.is_empty() && rest.starts_with("plugin/"))
        .then(|| format!("{SCHEME}{installation}/operator"))
}

/// The URI of a certificate that carries exactly one.
fn only_uri(certificate: &CertificateDer<'_>) -> Option<String> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Some(uri),
        _ => None,
    }
}

fn file(path: &Path, why: impl std::fmt::Display) -> IdentityError {
    IdentityError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|error| file(path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| file(path, error))?;
    if all.is_empty() {
        Err(file(path, "it holds no certificate"))
    } else {
        Ok(all)
    }
}

/// Lets in who has a chain and the operator's name.
#[derive(Debug)]
struct OnlyOperator {
    chains: Arc<dyn ClientCertVerifier>,
    operator: String,
}

impl ClientCertVerifier for OnlyOperator {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chains
            .verify_client_cert(end_entity, intermediates, now)?;
        if only_uri(end_entity).as_deref() == Some(self.operator.as_str()) {
            Ok(verified)
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_name_follows_from_ours() {
        assert_eq!(
            operator_of("patchbay://i/plugin/ns/uid").as_deref(),
            Some("patchbay://i/operator")
        );
        for bad in [
            "patchbay://i/operator",
            "patchbay:///plugin/a/b",
            "https://i/plugin/a/b",
            "patchbay://i",
        ] {
            assert_eq!(operator_of(bad), None, "{bad}");
        }
    }
}
