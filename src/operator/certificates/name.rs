//! Who is who: the URI in a certificate, and nothing else, names a party.

use std::fmt;

/// The unique name of one installation: 32 hexadecimal digits, made once, kept in the Secret
/// that holds the authority.
///
/// It is content of that Secret and not the uid of an object, so that a restore from a backup
/// keeps every identity valid and no further object has to be read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation(String);

/// Something that is not the name of an installation.
#[derive(Debug, thiserror::Error)]
#[error("reading the installation's name: {0:?} is not 32 lower-case hexadecimal digits")]
pub struct BadInstallation(String);

impl Installation {
    /// Reads a name from outside.
    pub fn parse(text: &str) -> Result<Self, BadInstallation> {
        let good = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadInstallation(text.chars().take(64).collect()))
        }
    }

    /// Makes a name from 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A party of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateIdentity {
    Operator,
    /// Every sidecar of one Plugin.
    Plugin {
        /// Namespace of the Plugin.
        namespace: String,
        /// Uid of the Plugin: a new Plugin of the same name is somebody else.
        uid: String,
    },
}

impl CertificateIdentity {
    /// The URI that a certificate of this party carries.
    pub fn uri(&self, installation: &Installation) -> Uri {
        let installation = installation.as_str();
        Uri(match self {
            CertificateIdentity::Operator => format!("patchbay://{installation}/operator"),
            CertificateIdentity::Plugin { namespace, uid } => {
                format!("patchbay://{installation}/plugin/{namespace}/{uid}")
            }
        })
    }
}

/// The URI of an [`CertificateIdentity`] within an [`Installation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    /// The text that has to be equal, byte for byte.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_installation_and_party() {
        let installation = Installation::from_random([0xab; 16]);
        assert_eq!(
            CertificateIdentity::Operator.uri(&installation).as_str(),
            "patchbay://abababababababababababababababab/operator"
        );
        let plugin = CertificateIdentity::Plugin {
            namespace: "shop".into(),
            uid: "u-1".into(),
        };
        assert_eq!(
            plugin.uri(&installation).as_str(),
            "patchbay://abababababababababababababababab/plugin/shop/u-1"
        );
    }

    #[test]
    fn only_32_hexadecimal_digits_are_a_name() {
        assert!(Installation::parse(&"0a".repeat(16)).is_ok());
        for bad in ["", "xyz", &"0A".repeat(16), &"0a".repeat(17), "../operator"] {
            assert!(Installation::parse(bad).is_err(), "{bad}");
        }
    }
}
