//! Transport security towards the plugin.
//!
//! AutoMTLS: both sides make a certificate of their own per start and trust exactly the other's.
//! Explicit: certificates come from a Secret, verified as usual.
//!
//! The crypto provider is named in every configuration and never taken from the process. It must
//! verify P-521 signatures, because that is what plugins in Go sign with; a test holds it to that.

use patchbay_protocol::escape::{QUOTE, printable};
use patchbay_protocol::reason::Reason;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The name that every certificate of AutoMTLS carries.
const LOCALHOST: &str = "localhost";
/// Clocks of one node are the same clock, but a virtual machine may have been asleep.
const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);
/// How far a host certificate begins in the past.
const BEGINS_BEFORE: Duration = Duration::from_secs(60 * 60);
/// How long a host certificate lasts: as long as the process that it was given to may live.
const LASTS: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Why transport security could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate in the handshake line is not a certificate.
    #[error(
        "the TLS certificate in the plugin's handshake cannot be read: {0}. It has to be the DER \
         of the server's certificate in base64 without padding"
    )]
    PluginCertificate(String),
    /// A file of the Secret cannot be used.
    #[error("using {path} of the Secret in spec.protocol.goPlugin.tls failed: {why}")]
    File {
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Not a DNS name and not an address.
    #[error("spec.protocol.goPlugin.tls.serverName `{0}` is not a host name")]
    ServerName(String),
    /// A certificate of ours could not be made or used.
    #[error("making the host's certificate failed: {0}")]
    Host(String),
}

impl TlsError {
    /// The word for status.
    pub fn reason(&self) -> Reason {
        match self {
            TlsError::PluginCertificate(_) => Reason::BadCertificate,
            TlsError::File { .. } | TlsError::ServerName(_) | TlsError::Host(_) => {
                Reason::TlsFailed
            }
        }
    }
}

/// The one crypto provider for links to a plugin. Without the post-quantum group: the link never
/// leaves the pod, and offering it behind X25519 costs servers in Go a second round trip.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ];
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// How to speak TLS to one plugin. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// AutoMTLS: trusts exactly the certificate `plugin` (DER, from the handshake line) and shows
    /// the host certificate that the plugin got when it was started.
    pub fn pinned(plugin: &[u8], host: &HostCertificate) -> Result<Client, TlsError> {
        let verifier = Pinned::new(plugin)?;
        let config = builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![host.certificate.clone()], host.key())
            .map_err(|error| TlsError::Host(error.to_string()))?;
        Client::new(config, LOCALHOST)
    }

    /// Explicit: trusts what `ca.crt` in `folder` vouches for under the name `server_name`, and
    /// shows `tls.crt` with `tls.key` if they are there.
    pub fn explicit(folder: &Path, server_name: &str) -> Result<Client, TlsError> {
        let ca = folder.join("ca.crt");
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&ca)? {
            roots
                .add(certificate)
                .map_err(|error| file_error(&ca, error))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| file_error(&ca, error))?;
        let config = builder().with_webpki_verifier(verifier);
        let (chain, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let config = if chain.exists() || key.exists() {
            let certificates = certificates(&chain)?;
            let secret = read(&key)?;
            let secret =
                PrivateKeyDer::from_pem_slice(&secret).map_err(|error| file_error(&key, error))?;
            config
                .with_client_auth_cert(certificates, secret)
                .map_err(|error| file_error(&key, error))?
        } else {
            config.with_no_client_auth()
        };
        Client::new(config, server_name)
    }

    fn new(mut config: ClientConfig, name: &str) -> Result<Client, TlsError> {
        // Servers refuse or drop gRPC connections that do not offer it.
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName(printable(name.as_bytes(), QUOTE)))?;
        Ok(Client {
            config: Arc::new(config),
            name,
        })
    }

    /// The configuration for a connector.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// The name that the plugin has to prove.
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    // The provider supports both versions; a build where it did not would fail every test here.
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap_or_else(|_| unreachable!("the provider has cipher suites for TLS 1.2 and 1.3"))
}

fn file_error(path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| file_error(path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file_error(path, error))?;
    if all.is_empty() {
        return Err(file_error(path, "it holds no certificate"));
    }
    Ok(all)
}

/// The host's own certificate of one start of a plugin: P-256, no authority, for both directions.
/// (Plugins on grpcio refuse the P-521 that hosts written in Go use.)
#[derive(Clone)]
pub struct HostCertificate {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl std::fmt::Debug for HostCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostCertificate").finish_non_exhaustive()
    }
}

impl HostCertificate {
    /// Makes a new key and certificate.
    pub fn generate() -> Result<HostCertificate, TlsError> {
        let host = |error: rcgen::Error| TlsError::Host(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(host)?;
        let mut params = CertificateParams::new(vec![LOCALHOST.to_owned()]).map_err(host)?;
        params
            .distinguished_name
            .push(DnType::CommonName, LOCALHOST);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let now = SystemTime::now();
        params.not_before = (now - BEGINS_BEFORE).into();
        params.not_after = (now + LASTS).into();
        let certificate = params.self_signed(&key).map_err(host)?;
        Ok(HostCertificate {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        })
    }

    /// The one of an earlier process, from its hand-over record: DER and PKCS #8.
    pub fn from_parts(certificate: Vec<u8>, key: Vec<u8>) -> HostCertificate {
        HostCertificate {
            certificate: certificate.into(),
            key,
        }
    }

    /// DER of the certificate.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// PKCS #8 of the key. A secret.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// The value of PLUGIN_CLIENT_CERT: PEM of the certificate.
    pub fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = behind;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

/// Accepts one certificate and no other.
///
/// The usual verification cannot be used: plugins in Go show a certificate that is its own
/// authority. Equality of the bytes replaces the chain; dates and name are still looked at; the
/// signature, which proves that the peer has the key, is verified by the provider.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
}

impl Pinned {
    fn new(der: &[u8]) -> Result<Pinned, TlsError> {
        let unreadable = |why: &dyn std::fmt::Display| {
            TlsError::PluginCertificate(printable(why.to_string().as_bytes(), QUOTE))
        };
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(unreadable(&"something follows behind it"));
        }
        let certificate = CertificateDer::from(der.to_vec());
        // The library that will look at the name and the signature has to be able to read it too.
        webpki::EndEntityCert::try_from(&certificate).map_err(|error| unreadable(&error))?;
        Ok(Pinned {
            certificate,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() != self.certificate.as_ref() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let slack = CLOCK_SLACK.as_secs() as i64;
        if now.saturating_add(slack) < self.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.saturating_sub(slack) > self.not_after {
            return Err(CertificateError::Expired.into());
        }
        webpki::EndEntityCert::try_from(end_entity)
            .and_then(|certificate| certificate.verify_is_valid_for_subject_name(server_name))
            .map_err(|_| CertificateError::NotValidForName)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a failed TLS handshake means, in words for the one who wrote the Plugin.
pub(super) fn explain(error: &rustls::Error, name: &ServerName<'_>) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match error {
        InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the plugin showed another certificate than the one in its handshake".to_owned()
        }
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "the plugin's certificate is not valid for the name `{}`",
            name.to_str()
        ),
        // A foreign authority of the same name shows as a signature that does not fit.
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!(
                "the plugin's certificate for `{}` was not issued by the authority in ca.crt",
                name.to_str()
            )
        }
        InvalidCertificate(CertificateError::Other(_)) => format!(
            "the plugin's certificate for `{}` is not acceptable ({error}). A certificate that is \
             an authority itself cannot be used with Explicit",
            name.to_str()
        ),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the plugin's certificate has expired".to_owned()
        }
        InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the plugin's certificate is not valid yet; look at the clocks".to_owned(),
        AlertReceived(_) => format!("the plugin refused the host's certificate or TLS ({error})"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tls_tests.rs"]
mod tests;
