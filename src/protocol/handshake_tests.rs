//! The parts of cases 1 to 11 and 20 of the go-plugin conformance list that are about the line.

use super::*;
use proptest::prelude::*;

fn with(line: &str, versions: &[u32], tls: Asked) -> Result<Handshake, Rejected> {
    parse(line.as_bytes(), &Expect { versions, tls })
}

fn plain(line: &str) -> Result<Handshake, Rejected> {
    with(line, &[1], Asked::None)
}

#[track_caller]
fn refused(line: &str, versions: &[u32], tls: Asked, reason: Reason, words: &[&str]) {
    let Err(rejected) = with(line, versions, tls) else {
        panic!("`{line}` was accepted");
    };
    assert_eq!(rejected.reason, reason, "{line}: {}", rejected.message);
    for word in words {
        assert!(
            rejected.message.contains(word),
            "`{word}` is missing in: {}",
            rejected.message
        );
    }
}

fn unix_path(path: &str) -> Address {
    Address::Unix(PathBuf::from(path))
}

#[test]
fn the_five_field_line_is_accepted() {
    let handshake = plain("1|1|unix|/run/p/s|grpc").unwrap();
    assert_eq!(handshake.app_version, 1);
    assert_eq!(handshake.core_version(), 1);
    assert_eq!(handshake.address, unix_path("/run/p/s"));
    assert_eq!(handshake.certificate, None);
    assert!(handshake.warnings.is_empty());
}

#[test]
fn an_empty_sixth_field_and_white_space_around_are_accepted() {
    for line in [
        "1|5|unix|/run/p/s|grpc|",
        "1|5|unix|/run/p/s|grpc|\r\n",
        " \t1|5|unix|/run/p/s|grpc|  \r",
        "+1|05|unix|/run/p/s|grpc|",
    ] {
        let handshake = with(line, &[3, 5], Asked::None).unwrap();
        assert_eq!(handshake.app_version, 5, "{line:?}");
        assert_eq!(handshake.address, unix_path("/run/p/s"));
    }
}

#[test]
fn further_fields_are_passed_over() {
    assert!(plain("1|1|unix|/run/p/s|grpc||true|future").is_ok());
    assert!(plain("1|1|unix|/run/p/s|grpc|old data that is short|nonsense||").is_ok());
}

#[test]
fn loopback_tcp_in_all_its_forms_is_accepted() {
    let v4: SocketAddr = "127.0.0.1:1234".parse().unwrap();
    let v6: SocketAddr = "[::1]:1234".parse().unwrap();
    for (address, expected) in [
        ("127.0.0.1:1234", vec![v4]),
        ("[::1]:1234", vec![v6]),
        (":1234", vec![v4, v6]),
        ("localhost:1234", vec![v4, v6]),
        ("127.8.8.8:1234", vec!["127.8.8.8:1234".parse().unwrap()]),
        ("[::ffff:127.0.0.1]:1234", vec![v4]),
    ] {
        let handshake = plain(&format!("1|1|tcp|{address}|grpc")).unwrap();
        assert_eq!(handshake.address, Address::Tcp(expected), "{address}");
        assert_eq!(handshake.address.network(), "tcp");
    }
}

#[test]
fn any_other_address_is_refused() {
    for line in [
        "1|1|tcp|10.1.2.3:80|grpc",
        "1|1|tcp|0.0.0.0:80|grpc",
        "1|1|tcp|[::]:80|grpc",
        "1|1|tcp|[2001:db8::1]:80|grpc",
        "1|1|tcp|example.com:80|grpc",
        "1|1|tcp|127.0.0.1|grpc",
        "1|1|tcp|127.0.0.1:|grpc",
        "1|1|tcp|127.0.0.1:0|grpc",
        "1|1|tcp|127.0.0.1:65536|grpc",
        "1|1|tcp|127.0.0.1:http|grpc",
        "1|1|tcp|127.0.0.1:+80|grpc",
        "1|1|tcp|::1:80|grpc",
        "1|1|tcp||grpc",
        "1|1|udp|x|grpc",
        "1|1|UNIX|/x|grpc",
        "1|1||/x|grpc",
        "1|1|unix||grpc",
        "1|1|unix|relative|grpc",
        "1|1|unix|@abstract|grpc",
        "1|1|unix|/run/../etc/s|grpc",
        "1|1|unix|/run/./s|grpc",
        "1|1|unix|/run/\0s|grpc",
    ] {
        refused(
            line,
            &[1],
            Asked::None,
            Reason::BadAddress,
            &["announced the address"],
        );
    }
    let long = format!("1|1|unix|/{}|grpc", "x".repeat(MAX_PATH));
    refused(&long, &[1], Asked::None, Reason::BadAddress, &["107"]);
    let longest = format!("1|1|unix|/{}|grpc", "x".repeat(MAX_PATH - 1));
    assert!(plain(&longest).is_ok());
}

#[test]
fn netrpc_is_named_even_where_the_line_does_not_name_it() {
    let reason = Reason::ProtocolUnsupported;
    refused("1|1|unix|/s", &[1], Asked::None, reason, &["netrpc"]);
    refused(
        "1|1|unix|/s|netrpc",
        &[1],
        Asked::None,
        reason,
        &["netrpc", "GRPCServer"],
    );
    refused("1|1|unix|/s|", &[1], Asked::None, reason, &["empty"]);
    refused("1|1|unix|/s|GRPC", &[1], Asked::None, reason, &["GRPC"]);
}

#[test]
fn the_core_version_must_be_one() {
    let reason = Reason::CoreVersionUnsupported;
    refused(
        "2|1|unix|x|grpc",
        &[1],
        Asked::None,
        reason,
        &["core protocol 2"],
    );
    refused(
        "abc|1|unix|x|grpc",
        &[1],
        Asked::None,
        reason,
        &["not a number"],
    );
    refused(
        "|1|unix|x|grpc",
        &[1],
        Asked::None,
        reason,
        &["not a number"],
    );
    refused("-1|1|unix|x|grpc", &[1], Asked::None, reason, &["-1"]);
    refused(
        "99999999999999999999|1|unix|x|grpc",
        &[1],
        Asked::None,
        reason,
        &[],
    );
}

#[test]
fn the_application_version_must_be_listed() {
    let reason = Reason::AppVersionUnsupported;
    let field = "spec.protocol.goPlugin.versions";
    refused(
        "1|7|unix|/s|grpc",
        &[5, 3],
        Asked::None,
        reason,
        &["3, 5", field, "7", "older plugin"],
    );
    refused(
        "1|2|unix|/s|grpc",
        &[5, 3],
        Asked::None,
        reason,
        &["3, 5", "newer plugin"],
    );
    refused(
        "1|x|unix|/s|grpc",
        &[5, 3],
        Asked::None,
        reason,
        &["3, 5", "not a number"],
    );
    refused("1|-3|unix|/s|grpc", &[5, 3], Asked::None, reason, &["-3"]);
    refused(
        "1|4294967299|unix|/s|grpc",
        &[3],
        Asked::None,
        reason,
        &["4294967299"],
    );
}

#[test]
fn a_line_that_is_no_handshake_is_quoted() {
    let reason = Reason::NotAHandshake;
    refused(
        "hello",
        &[1],
        Asked::None,
        reason,
        &["`hello`", "stderr", "skipLines"],
    );
    refused("", &[1], Asked::None, reason, &["empty line"]);
    refused("1|1|unix", &[1], Asked::None, reason, &["1|1|unix"]);
    refused(
        "\u{1b}[1mWelcome",
        &[1],
        Asked::None,
        reason,
        &["\\x1b[1mWelcome"],
    );
    let rejected = parse(
        b"\xff\xfe\0",
        &Expect {
            versions: &[1],
            tls: Asked::None,
        },
    )
    .unwrap_err();
    assert!(
        rejected.message.contains("\\xff\\xfe\\x00"),
        "{}",
        rejected.message
    );
}

#[test]
fn an_endless_line_is_refused_with_a_short_message() {
    for byte in [b'x', 0, b'|'] {
        let line = vec![byte; 70 * 1024];
        let rejected = parse(
            &line,
            &Expect {
                versions: &[1],
                tls: Asked::None,
            },
        )
        .unwrap_err();
        assert_eq!(rejected.reason, Reason::NotAHandshake);
        assert!(rejected.message.contains("too long"));
        assert!(rejected.message.len() < 600, "{}", rejected.message.len());
        assert!(!looks_like_handshake(&line));
    }
}

#[test]
fn only_lines_of_the_right_shape_are_not_skipped() {
    for line in [
        "1|1|unix|/s|grpc",
        "2|7|udp|x",
        "  1|1|unix|/s|grpc|\r\n",
        "1|1|||||||||",
    ] {
        assert!(looks_like_handshake(line.as_bytes()), "{line}");
    }
    for line in [
        "",
        "hello",
        "Welcome | to | the | plugin",
        "a|b|c|d",
        "1|1|unix",
        "1|x|unix|/s",
    ] {
        assert!(!looks_like_handshake(line.as_bytes()), "{line}");
    }
}

/// A DER sequence of 120 bytes, which is what this module looks at of a certificate.
fn der() -> Vec<u8> {
    let mut der = vec![0x30, 118];
    der.extend(0..118);
    der
}

#[test]
fn the_certificate_is_unpadded_base64_of_der() {
    let unpadded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(der());
    let line = format!("1|1|unix|/s|grpc|{unpadded}");
    let handshake = with(&line, &[1], Asked::AutoMTLS).unwrap();
    assert_eq!(handshake.certificate.as_deref(), Some(der().as_slice()));
    assert!(handshake.warnings.is_empty());
}

#[test]
fn a_padded_certificate_is_accepted_with_a_warning() {
    let mut longer = der();
    longer[1] = 119;
    longer.push(7);
    let padded = base64::engine::general_purpose::STANDARD.encode(&longer);
    assert!(padded.ends_with('='));
    let handshake = with(&format!("1|1|unix|/s|grpc|{padded}"), &[1], Asked::AutoMTLS).unwrap();
    assert_eq!(handshake.certificate, Some(longer));
    assert_eq!(handshake.warnings.len(), 1);
    assert!(handshake.warnings[0].contains("padded"));
}

#[test]
fn auto_mtls_without_an_answer_is_told_apart_from_junk() {
    let reason = Reason::MtlsNotHonoured;
    let field = "spec.protocol.goPlugin.tls.mode";
    refused("1|1|unix|/s|grpc", &[1], Asked::AutoMTLS, reason, &[field]);
    refused("1|1|unix|/s|grpc|", &[1], Asked::AutoMTLS, reason, &[field]);
    let short = format!("1|1|unix|/s|grpc|{}", "x".repeat(50));
    refused(&short, &[1], Asked::AutoMTLS, reason, &[field]);
    assert!(plain(&format!("1|1|unix|/s|grpc|{}", "x".repeat(20))).is_ok());
    for junk in [
        "!".repeat(51),
        "x".repeat(51),
        "A".repeat(52),
        "\u{e9}".repeat(40),
    ] {
        let line = format!("1|1|unix|/s|grpc|{junk}");
        refused(
            &line,
            &[1],
            Asked::AutoMTLS,
            Reason::BadCertificate,
            &["cannot be read"],
        );
    }
}

#[test]
fn a_certificate_that_nobody_asked_for_is_refused_or_passed_over() {
    let line = format!(
        "1|1|unix|/s|grpc|{}",
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(der())
    );
    refused(
        &line,
        &[1],
        Asked::None,
        Reason::BadCertificate,
        &["AutoMTLS"],
    );
    let handshake = with(&line, &[1], Asked::Explicit).unwrap();
    assert_eq!(handshake.certificate, None);
    assert_eq!(handshake.warnings.len(), 1);
}

/// Pieces that a line can be put together from, so that the search gets past the first checks.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"1".to_vec()),
        Just(b"|".to_vec()),
        Just(b"unix".to_vec()),
        Just(b"tcp".to_vec()),
        Just(b"grpc".to_vec()),
        Just(b"/run/s".to_vec()),
        Just(b":1234".to_vec()),
        Just(b"127.0.0.1".to_vec()),
        Just(b"[::1]".to_vec()),
        Just(b"MHYA".repeat(20)),
        proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #[test]
    fn no_line_breaks_the_parser(
        pieces in proptest::collection::vec(piece(), 0..24),
        tls in prop_oneof![Just(Asked::None), Just(Asked::AutoMTLS), Just(Asked::Explicit)],
    ) {
        let line = pieces.concat();
        let looks = looks_like_handshake(&line);
        match parse(&line, &Expect { versions: &[1, 11], tls }) {
            Ok(handshake) => {
                prop_assert!(looks);
                prop_assert_eq!(handshake.certificate.is_some(), tls == Asked::AutoMTLS);
                if let Address::Tcp(all) = &handshake.address {
                    prop_assert!(!all.is_empty() && all.iter().all(|one| one.ip().is_loopback()));
                }
            }
            Err(rejected) => {
                prop_assert!(!rejected.message.is_empty() && rejected.message.len() < 1024);
                prop_assert!(!rejected.message.contains(|c: char| c.is_control()));
            }
        }
    }

    #[test]
    fn a_good_line_survives_any_tail(tail in "[|a-z0-9]{0,200}") {
        let line = format!("1|1|unix|/s|grpc||{tail}");
        prop_assert!(plain(&line).is_ok());
    }
}
