//! How the place of a client is written, so that the same client is always the same text.

use std::net::{IpAddr, Ipv6Addr};

/// Longest location in bytes, as the API has it.
pub const MAX_LOCATION: usize = 253;

/// The canonical form: an address without brackets and zone, IPv4 out of IPv6 where it is mapped
/// (`::ffff:10.1.2.3`), everything else as a name in lower case. Names are compared as text and
/// never resolved. Empty for text that is only white space.
pub fn canonical(text: &str) -> String {
    let text = text.trim();
    match address(text) {
        Some(address) => address.to_string(),
        None => text.to_lowercase(),
    }
}

/// The address that `text` is, if it is one.
pub fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    // The zone names an interface of one machine and means nothing elsewhere.
    let bare = bare.split_once('%').map_or(bare, |(bare, _)| bare);
    match bare.parse::<IpAddr>().ok()? {
        IpAddr::V6(v6) => Some(unmapped(v6)),
        v4 @ IpAddr::V4(_) => Some(v4),
    }
}

fn unmapped(v6: Ipv6Addr) -> IpAddr {
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_client_has_one_spelling() {
        for (given, expected) in [
            ("10.1.2.3", "10.1.2.3"),
            (" 10.1.2.3\n", "10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::FFFF:a01:203", "10.1.2.3"),
            ("10.1.2.3%eth0", "10.1.2.3"),
            ("[::ffff:10.1.2.3]", "10.1.2.3"),
            ("fe80:0:0::1%eth0", "fe80::1"),
            ("[FE80::1]", "fe80::1"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("Scraper-7.Example.ORG", "scraper-7.example.org"),
            // Not an address by the rules of addresses: a name.
            ("010.1.2.3", "010.1.2.3"),
            ("10.1.2", "10.1.2"),
            ("a%b", "a%b"),
            ("", ""),
            ("  ", ""),
        ] {
            assert_eq!(canonical(given), expected, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_its_own(text in ".{0,40}") {
            let once = canonical(&text);
            prop_assert_eq!(canonical(&once), once);
        }

        #[test]
        fn every_address_keeps_its_value(bits in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits);
            prop_assert_eq!(canonical(&format!("[{address}%x]")), unmapped(address).to_string());
        }
    }
}
