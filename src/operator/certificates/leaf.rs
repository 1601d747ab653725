//! Whether a stored leaf is still the right one. Pure; the clock is an argument.

use super::authority::{CertificateAuthority, LEAF_DAYS};
use super::name::Uri;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// A leaf is replaced at this age: before half of its life, so that a whole half is left for an
/// operator that is away.
pub const RENEWED_AFTER: SignedDuration = SignedDuration::from_hours(24 * LEAF_DAYS * 2 / 5);

/// Why a leaf has to be issued (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is no certificate.
    Missing,
    /// Certificate or key cannot be parsed, or do not belong together.
    Unreadable,
    /// It names somebody else.
    WrongName,
    /// Another authority signed it, or peers are told to trust another one.
    WrongAuthority,
    /// It is older than [`RENEWED_AFTER`] or not valid now.
    Old,
}

impl Flaw {
    /// For logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Flaw::Missing => "it does not exist",
            Flaw::Unreadable => "it cannot be read",
            Flaw::WrongName => "it names somebody else",
            Flaw::WrongAuthority => "another authority signed it",
            Flaw::Old => "it is old",
        }
    }
}

/// The three files of an identity, as stored.
pub struct Files<'a> {
    /// `tls.crt`, PEM.
    pub certificate: &'a [u8],
    /// `tls.key`, PEM.
    pub key: &'a [u8],
    /// `ca.crt`, PEM.
    pub authority: &'a [u8],
}

/// A leaf without flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// When it is to be replaced.
    pub renew_at: Timestamp,
}

/// Looks at a leaf as a careful peer would, and at its age.
pub fn inspect(
    files: &Files<'_>,
    expected: &Uri,
    authority: &CertificateAuthority,
    now: Timestamp,
) -> Result<Sound, Flaw> {
    if files.authority != authority.certificate_pem().as_bytes() {
        return Err(Flaw::WrongAuthority);
    }
    let der = CertificateDer::from_pem_slice(files.certificate).map_err(|_| Flaw::Unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(files.key).map_err(|_| Flaw::Unreadable)?;
    let key = rcgen::KeyPair::try_from(&key).map_err(|_| Flaw::Unreadable)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| Flaw::Unreadable)?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(Flaw::Unreadable);
    }
    let begins = Timestamp::from_second(parsed.validity().not_before.timestamp())
        .map_err(|_| Flaw::Unreadable)?;
    let renew_at = begins
        .checked_add(RENEWED_AFTER)
        .map_err(|_| Flaw::Unreadable)?;
    if now >= renew_at || now < begins {
        return Err(Flaw::Old);
    }
    verify(
        &der,
        &[],
        expected,
        authority.certificate(),
        Usage::Server,
        unix_time(now),
    )
    .map_err(|e| match e {
        VerifyError::Name { .. } => Flaw::WrongName,
        VerifyError::Chain(_) => Flaw::WrongAuthority,
    })?;
    Ok(Sound { renew_at })
}

/// What the holder of a certificate wants to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// Why a peer's certificate is refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Not signed by our authority, not valid now, or not for this use.
    #[error("verifying the peer's certificate: {0}")]
    Chain(webpki::Error),
    /// A good chain, but somebody else: every Plugin of the installation has such a chain.
    #[error("verifying the peer's certificate: it names {found:?}, expected {expected}")]
    Name {
        /// What it should name.
        expected: Uri,
        found: Vec<String>,
    },
}

/// Chain, validity, use, and exactly one URI equal to `expected`.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    expected: &Uri,
    authority: &CertificateDer<'_>,
    usage: Usage,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let leaf = EndEntityCert::try_from(leaf).map_err(VerifyError::Chain)?;
    let anchors = [anchor_from_trusted_cert(authority).map_err(VerifyError::Chain)?];
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        intermediates,
        now,
        usage,
        None,
        None,
    )
    .map_err(VerifyError::Chain)?;
    let found: Vec<&str> = leaf.valid_uri_names().take(4).collect();
    if found == [expected.as_str()] {
        Ok(())
    } else {
        Err(VerifyError::Name {
            expected: expected.clone(),
            found: found
                .into_iter()
                .map(|uri| uri.chars().take(256).collect())
                .collect(),
        })
    }
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::super::name::CertificateIdentity;
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn days(days: i64) -> SignedDuration {
        SignedDuration::from_hours(24 * days)
    }

    fn authority() -> CertificateAuthority {
        CertificateAuthority::load(&CertificateAuthority::generate(now()).unwrap()).unwrap()
    }

    fn plugin(uid: &str) -> CertificateIdentity {
        CertificateIdentity::Plugin {
            namespace: "shop".into(),
            uid: uid.into(),
        }
    }

    fn look(
        authority: &CertificateAuthority,
        issued: &CertificateIdentity,
        expected: &CertificateIdentity,
        now_then: Timestamp,
    ) -> Result<Sound, Flaw> {
        let leaf = authority.issue(issued, now()).unwrap();
        inspect(
            &Files {
                certificate: leaf.certificate.as_bytes(),
                key: leaf.key.as_bytes(),
                authority: authority.certificate_pem().as_bytes(),
            },
            &expected.uri(authority.installation()),
            authority,
            now_then,
        )
    }

    #[test]
    fn a_fresh_leaf_is_sound_and_says_when_it_will_not_be() {
        let sound = look(&authority(), &plugin("u"), &plugin("u"), now()).unwrap();
        assert!(sound.renew_at > now() + days(30));
        assert!(sound.renew_at < now() + days(45), "before half its life");
    }

    #[test]
    fn a_leaf_is_replaced_before_half_its_life() {
        let authority = authority();
        assert!(look(&authority, &plugin("u"), &plugin("u"), now() + days(35)).is_ok());
        assert_eq!(
            look(&authority, &plugin("u"), &plugin("u"), now() + days(37)),
            Err(Flaw::Old)
        );
        assert_eq!(
            look(&authority, &plugin("u"), &plugin("u"), now() - days(1)),
            Err(Flaw::Old),
            "from the future"
        );
    }

    #[test]
    fn a_leaf_of_another_plugin_of_the_same_name_is_replaced() {
        assert_eq!(
            look(&authority(), &plugin("old"), &plugin("new"), now()),
            Err(Flaw::WrongName)
        );
    }

    #[test]
    fn a_leaf_of_another_authority_is_replaced_even_if_it_names_the_same() {
        let (ours, theirs) = (authority(), authority());
        let leaf = theirs.issue(&plugin("u"), now()).unwrap();
        let uri = plugin("u").uri(theirs.installation());
        let trusted = |ca: &CertificateAuthority| {
            inspect(
                &Files {
                    certificate: leaf.certificate.as_bytes(),
                    key: leaf.key.as_bytes(),
                    authority: ca.certificate_pem().as_bytes(),
                },
                &uri,
                &ours,
                now(),
            )
        };
        assert_eq!(trusted(&theirs), Err(Flaw::WrongAuthority));
        assert_eq!(trusted(&ours), Err(Flaw::WrongAuthority));
    }

    #[test]
    fn rubbish_is_replaced_and_never_panics() {
        let authority = authority();
        let leaf = authority.issue(&plugin("u"), now()).unwrap();
        let other = authority.issue(&plugin("u"), now()).unwrap();
        let uri = plugin("u").uri(authority.installation());
        let pairs: [(&[u8], &[u8]); 4] = [
            (b"", b""),
            (leaf.certificate.as_bytes(), b"rubbish"),
            (b"\xff\xfe", leaf.key.as_bytes()),
            (leaf.certificate.as_bytes(), other.key.as_bytes()),
        ];
        for (certificate, key) in pairs {
            let files = Files {
                certificate,
                key,
                authority: authority.certificate_pem().as_bytes(),
            };
            assert_eq!(
                inspect(&files, &uri, &authority, now()),
                Err(Flaw::Unreadable)
            );
        }
    }

    #[test]
    fn the_operator_is_a_client_and_no_server() {
        let authority = authority();
        let leaf = authority
            .issue(&CertificateIdentity::Operator, now())
            .unwrap();
        let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let uri = CertificateIdentity::Operator.uri(authority.installation());
        let check = |usage| {
            verify(
                &der,
                &[],
                &uri,
                authority.certificate(),
                usage,
                unix_time(now()),
            )
        };
        assert!(check(Usage::Client).is_ok());
        assert!(matches!(check(Usage::Server), Err(VerifyError::Chain(_))));
    }

    #[test]
    fn an_authority_whose_key_was_swapped_is_refused() {
        let mut stored = CertificateAuthority::generate(now()).unwrap();
        stored.key = CertificateAuthority::generate(now()).unwrap().key;
        assert!(matches!(
            CertificateAuthority::load(&stored),
            Err(super::super::authority::AuthorityError::Mismatch)
        ));
    }
}
