//! The authority of an installation: its key signs every leaf. Pure but for random numbers.

use super::name::{CertificateIdentity, Installation};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// How long the authority's certificate is valid.
const AUTHORITY_DAYS: i64 = 3650;
/// How long a leaf is valid.
pub(super) const LEAF_DAYS: i64 = 90;
/// Certificates begin in the past, because the clocks of nodes differ.
const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No random numbers, or parameters that the library refuses.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The stored authority is not what we wrote.
    #[error("reading the authority's {what}: {source}")]
    Read {
        what: &'static str,
        /// The parser's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Key and certificate belong to different authorities.
    #[error("reading the authority: its key does not belong to its certificate")]
    Mismatch,
}

/// What is stored of an authority. Holds the private key, so it has no `Debug`.
pub struct StoredAuthority {
    /// Name of the installation.
    pub installation: String,
    pub certificate: String,
    /// The private key, PKCS#8 PEM.
    pub key: String,
}

/// A certificate and its key. Holds the private key, so it has no `Debug`.
pub struct IssuedLeaf {
    pub certificate: String,
    /// The private key, PKCS#8 PEM.
    pub key: String,
}

/// The authority, ready to sign.
pub struct CertificateAuthority {
    installation: Installation,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a new authority with a new installation name.
    pub fn generate(now: Timestamp) -> Result<StoredAuthority, AuthorityError> {
        let installation = Installation::from_random(random_bytes()?);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = parameters(
            &format!("patchbay {}", installation.as_str()),
            now,
            AUTHORITY_DAYS,
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(StoredAuthority {
            installation: installation.as_str().to_owned(),
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Reads a stored authority.
    pub fn load(stored: &StoredAuthority) -> Result<Self, AuthorityError> {
        let read = |what, source| AuthorityError::Read { what, source };
        let installation = Installation::parse(&stored.installation)
            .map_err(|e| read("installation name", e.into()))?;
        let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
            .map_err(|e| read("certificate", e.into()))?;
        let key = KeyPair::from_pem(&stored.key).map_err(|e| read("key", e.into()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|e| read("certificate", e.into()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| read("certificate", e.into()))?;
        Ok(Self {
            installation,
            certificate_pem: stored.certificate.clone(),
            certificate,
            issuer,
        })
    }

    /// The installation that this authority speaks for.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The certificate that peers trust, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate that peers trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a new key for `identity`, valid from shortly before `now`.
    pub fn issue(
        &self,
        identity: &CertificateIdentity,
        now: Timestamp,
    ) -> Result<IssuedLeaf, AuthorityError> {
        let uri = identity.uri(&self.installation);
        let (common_name, usages) = match identity {
            CertificateIdentity::Operator => (
                "patchbay operator",
                vec![ExtendedKeyUsagePurpose::ClientAuth],
            ),
            // Sidecars will talk to each other: each is a server and a client.
            CertificateIdentity::Plugin { .. } => (
                "patchbay plugin",
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ],
            ),
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = parameters(common_name, now, LEAF_DAYS);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri.as_str())?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        Ok(IssuedLeaf {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn parameters(common_name: &str, now: Timestamp, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let seconds =
        |t: Timestamp| std::time::Duration::from_secs(t.as_second().max(0).unsigned_abs());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(now - BACKDATED);
    params.not_after = epoch + seconds(now + SignedDuration::from_hours(24 * days));
    params
}

fn random_bytes() -> Result<[u8; 16], AuthorityError> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Make(rcgen::Error::RingUnspecified))?;
    Ok(bytes)
}
