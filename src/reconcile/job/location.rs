//! Which jobs an ask can have: those for its client or any, and for its port or any.

pub use patchbay_protocol::location::canonical;

/// The location of a Job or an ask in the form in which they are compared; `None` for any.
pub fn named_client(location: &str) -> Option<String> {
    let location = canonical(location);
    (!location.is_empty()).then_some(location)
}

/// A port as text, as both sides write it: `010000` is not `10000`. The API allows five bytes; what
/// is longer can be the port of an ask only, and no job has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port([u8; 8]);

impl Port {
    pub const ANY: Port = Port([0; 8]);
    /// No port at all.
    const NONE: Port = Port([u8::MAX; 8]);

    /// Reads a port; empty means any.
    pub fn new(text: &str) -> Self {
        let mut port = [0; 8];
        match port.get_mut(..text.len()) {
            Some(start) if !text.contains('\0') => {
                start.copy_from_slice(text.as_bytes());
                Self(port)
            }
            _ => Self::NONE,
        }
    }

    /// Whether it stands for every port.
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// Whether a job for this port can go to an ask for `other`.
    pub fn fits(self, other: Port) -> bool {
        self.is_any() || other.is_any() || self == other
    }
}

/// Whether `text` can be the port of a Job: empty for any, or 1 to 65535 without leading zeros.
pub fn is_port(text: &str) -> bool {
    text.is_empty()
        || (!text.starts_with('0')
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_compared_as_text() {
        let job = Port::new("10000");
        for (ask, fits) in [
            ("10000", true),
            ("", true),
            ("010000", false),
            ("1000", false),
            ("100000000000", false),
            ("10000\0", false),
        ] {
            assert_eq!(job.fits(Port::new(ask)), fits, "{ask:?}");
            assert!(Port::ANY.fits(Port::new(ask)), "{ask:?}");
        }
    }

    #[test]
    fn target_port_is_a_port_number_or_empty() {
        for good in ["", "1", "10000", "65535"] {
            assert!(is_port(good), "{good:?}");
        }
        for bad in ["0", "65536", "010", "80/tc", "-1", "+1", " 80", "http"] {
            assert!(!is_port(bad), "{bad:?}");
        }
    }

    #[test]
    fn blank_client_means_any_client() {
        assert_eq!(named_client("  "), None);
        assert_eq!(named_client("::ffff:10.1.2.3"), Some("10.1.2.3".to_owned()));
    }
}
