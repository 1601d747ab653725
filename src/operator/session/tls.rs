//! TLS towards a sidecar: we show the operator's leaf and accept exactly one name.
//!
//! A chain alone is never enough: every Plugin of the installation has one, and any of them could
//! answer at an address that was another's a second ago.

use crate::certificates::leaf::{Usage, verify};
use crate::certificates::name::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// Why our own side of TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OperatorTlsError {
    /// Certificate or key are not PEM.
    #[error("reading the operator's leaf: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The key is of a kind that the provider does not know, or settings contradict.
    #[error("setting up TLS for sessions: {0}")]
    Setup(#[from] Error),
}

/// What the operator shows and whom it trusts.
#[derive(Clone)]
pub struct OperatorTls {
    provider: Arc<CryptoProvider>,
    leaf: Arc<SingleCertAndKey>,
    authority: CertificateDer<'static>,
}

impl OperatorTls {
    /// From the operator's leaf and the authority's certificate.
    pub fn new(
        certificate_pem: &str,
        key_pem: &str,
        authority: CertificateDer<'static>,
    ) -> Result<Self, OperatorTlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from_pem_slice(certificate_pem.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let leaf = CertifiedKey::from_der(chain, key, &provider)?;
        Ok(Self {
            provider,
            leaf: Arc::new(SingleCertAndKey::from(leaf)),
            authority,
        })
    }

    /// Settings for dialling the one peer whose certificate carries `expected`.
    pub fn towards(&self, expected: Uri) -> Result<ClientConfig, OperatorTlsError> {
        let verifier = ExactName {
            expected,
            authority: self.authority.clone(),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.leaf) as Arc<_>);
        // A resumed session would be one without a look at the certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

#[derive(Debug)]
struct ExactName {
    expected: Uri,
    authority: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ExactName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify(
            end_entity,
            intermediates,
            &self.expected,
            &self.authority,
            Usage::Server,
            now,
        )
        .map(|()| ServerCertVerified::assertion())
        .map_err(|error| {
            Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error))))
        })
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOfferedOrEnabled,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
