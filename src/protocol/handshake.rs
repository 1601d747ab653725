//! The handshake line: the one line that a go-plugin program prints on stdout to tell where it
//! listens.
//!
//! ```text
//! CORE|APP|NETWORK|ADDRESS|PROTOCOL|SERVERCERT|MULTIPLEX
//! 1|5|unix|/patchbay/run/00c0ffee/plugin41616557|grpc|
//! ```
//!
//! Every byte is foreign. [`parse`] judges one line and says, when it refuses, which field of the
//! Plugin resource or of the plugin is to be changed. Nothing here opens the address: whether a
//! path lies beneath the shared folder, and whether the port is one of ours, is for the one who
//! dials to say (same reason, `BadAddress`).

use crate::escape::{self, printable};
use crate::reason::Reason;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Longest line in bytes that can be a handshake; hosts written in Go have the same limit.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest path of a unix socket on Linux, in bytes.
pub const MAX_PATH: usize = 107;
/// The only core protocol there is.
pub const CORE: i64 = 1;
/// A sixth field up to this many characters is no certificate: old plugins put other things there.
const NO_CERTIFICATE: usize = 50;

/// What the host asked the plugin for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect<'a> {
    /// Application versions that are accepted: `spec.protocol.goPlugin.versions`.
    pub versions: &'a [u32],
    /// Transport security that was asked for: `spec.protocol.goPlugin.tls.mode`.
    pub tls: Asked,
}

/// Transport security that the host asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// None: a certificate in the line is an error.
    None,
    /// The plugin has to answer with its certificate.
    AutoMTLS,
    /// Certificates come from elsewhere; one in the line is passed over with a warning.
    Explicit,
}

/// A line that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The application version that the plugin chose; one of [`Expect::versions`].
    pub app_version: u32,
    /// Where the plugin listens.
    pub address: Address,
    /// DER of the plugin's certificate. Present exactly when AutoMTLS was asked for. It has the
    /// outer shape of DER; whether it is a certificate is for the TLS code to say.
    pub certificate: Option<Vec<u8>>,
    /// What a plugin author may want to know, each a sentence.
    pub warnings: Vec<String>,
}

impl Handshake {
    /// The core protocol version; always 1.
    pub fn core_version(&self) -> u32 {
        CORE as u32
    }
}

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Absolute path of a unix socket, at most [`MAX_PATH`] bytes, without `.` and `..`.
    Unix(PathBuf),
    /// Loopback addresses, to be tried in this order; one or two.
    Tcp(Vec<SocketAddr>),
}

impl Address {
    /// The word of the handshake line for it: `unix` or `tcp`.
    pub fn network(&self) -> &'static str {
        match self {
            Address::Unix(_) => "unix",
            Address::Tcp(_) => "tcp",
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => f.write_str(&printable(
                path.as_os_str().as_encoded_bytes(),
                escape::QUOTE,
            )),
            Address::Tcp(all) => match all.first() {
                Some(first) => write!(f, "{first}"),
                None => f.write_str("nowhere"),
            },
        }
    }
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    /// The word for status.
    pub reason: Reason,
    /// What is wrong and what to do about it.
    pub message: String,
}

fn reject<T>(reason: Reason, message: String) -> Result<T, Rejected> {
    Err(Rejected { reason, message })
}

/// Judges the line `line`, with or without its line end.
///
/// The order of the checks is that of hosts written in Go: core version, application version,
/// address, protocol, certificate. Fields after the sixth say nothing, since multiplexing is never
/// asked for.
pub fn parse(line: &[u8], expect: &Expect<'_>) -> Result<Handshake, Rejected> {
    if line.len() >= MAX_LINE {
        return reject(
            Reason::NotAHandshake,
            format!(
                "the first line on stdout is too long to be a handshake (over {MAX_LINE} bytes): \
                 `{}`. Send other output to stderr until the plugin serves",
                quote(line)
            ),
        );
    }
    let text = line.trim_ascii();
    let fields: Vec<&[u8]> = text.split(|byte| *byte == b'|').collect();
    let [core, app, network, address, rest @ ..] = fields.as_slice() else {
        return reject(Reason::NotAHandshake, not_a_handshake(line));
    };
    core_version(core, line)?;
    let app_version = app_version(app, expect.versions, line)?;
    let address = parse_address(network, address)?;
    protocol(rest.first().copied(), line)?;
    let mut warnings = Vec::new();
    let certificate = certificate(
        rest.get(1).copied().unwrap_or_default(),
        expect.tls,
        &mut warnings,
    )?;
    Ok(Handshake {
        app_version,
        address,
        certificate,
        warnings,
    })
}

/// Whether `line` has the outer shape of a handshake: four fields or more, the first two of them
/// numbers. With `handshake.skipLines` other lines are passed over; one that has this shape is
/// the handshake, right or wrong.
pub fn looks_like_handshake(line: &[u8]) -> bool {
    if line.len() >= MAX_LINE {
        return false;
    }
    let fields: Vec<&[u8]> = line.trim_ascii().splitn(5, |byte| *byte == b'|').collect();
    match fields.as_slice() {
        [core, app, _, _, ..] => integer(core).is_some() && integer(app).is_some(),
        _ => false,
    }
}

fn quote(bytes: &[u8]) -> String {
    printable(bytes, escape::QUOTE)
}

fn not_a_handshake(line: &[u8]) -> String {
    let shown = match line.trim_ascii() {
        [] => "an empty line".to_owned(),
        _ => format!("`{}`", quote(line)),
    };
    format!(
        "the first line on stdout is not a handshake but {shown}. Something writes there before \
         the plugin serves (a banner, a log, a wrapper script): send it to stderr, or let \
         spec.protocol.goPlugin.handshake.skipLines pass over it"
    )
}

/// A decimal number as Go reads it: an optional sign and digits, leading zeros included.
fn integer(field: &[u8]) -> Option<i64> {
    let digits = match field {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn core_version(field: &[u8], line: &[u8]) -> Result<(), Rejected> {
    match integer(field) {
        Some(CORE) => Ok(()),
        Some(other) => reject(
            Reason::CoreVersionUnsupported,
            format!(
                "the plugin speaks core protocol {other} of go-plugin, but only {CORE} is spoken \
                 here: build it with a current go-plugin. Its handshake: `{}`",
                quote(line)
            ),
        ),
        None => reject(
            Reason::CoreVersionUnsupported,
            format!(
                "the core protocol version in the handshake is not a number: `{}`",
                quote(line)
            ),
        ),
    }
}

fn app_version(field: &[u8], accepted: &[u32], line: &[u8]) -> Result<u32, Rejected> {
    let mut sorted: Vec<u32> = accepted.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let list = sorted
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let Some(offered) = integer(field) else {
        return reject(
            Reason::AppVersionUnsupported,
            format!(
                "the application version in the handshake is not a number: `{}`. Accepted: {list} \
                 (spec.protocol.goPlugin.versions)",
                quote(line)
            ),
        );
    };
    if let Ok(version) = u32::try_from(offered)
        && sorted.contains(&version)
    {
        return Ok(version);
    }
    let remedy = match sorted.last() {
        Some(newest) if offered < i64::from(*newest) => "use a newer plugin",
        _ => "use an older plugin, or update its clients",
    };
    reject(
        Reason::AppVersionUnsupported,
        format!(
            "the plugin offers application version {offered}, but spec.protocol.goPlugin.versions \
             accepts {list}: {remedy}, or add {offered} there if the clients speak it"
        ),
    )
}

fn parse_address(network: &[u8], address: &[u8]) -> Result<Address, Rejected> {
    let parsed = match network {
        b"unix" => unix(address),
        b"tcp" => tcp(address),
        _ => Err("the network must be `unix` or `tcp`, in lower case"),
    };
    parsed.or_else(|why| {
        reject(
            Reason::BadAddress,
            format!(
                "the plugin announced the address `{} {}`, which cannot be used: {why}",
                printable(network, 32),
                quote(address)
            ),
        )
    })
}

fn unix(path: &[u8]) -> Result<Address, &'static str> {
    match path {
        [] => return Err("the path is empty"),
        [b'@', ..] => {
            return Err(
                "abstract sockets are not used, because any program of the pod can take \
                        their names; listen on a path in PLUGIN_UNIX_SOCKET_DIR",
            );
        }
        [b'/', ..] => {}
        _ => return Err("the path is not absolute; listen on a path in PLUGIN_UNIX_SOCKET_DIR"),
    }
    if path.len() > MAX_PATH {
        return Err("the path is longer than the 107 bytes that the kernel allows");
    }
    if path.contains(&0) {
        return Err("the path contains a zero byte");
    }
    let path = std::str::from_utf8(path).map_err(|_| "the path is not UTF-8")?;
    if path.split('/').any(|part| part == "." || part == "..") {
        return Err("the path contains `.` or `..`");
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn tcp(address: &[u8]) -> Result<Address, &'static str> {
    const LOOPBACK: &str = "only loopback addresses are used; listen on 127.0.0.1";
    let address = std::str::from_utf8(address).map_err(|_| "it is not host:port")?;
    let (host, port) = address.rsplit_once(':').ok_or("it is not host:port")?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the port is not a number");
    }
    let port: u16 = port.parse().map_err(|_| "the port is above 65535")?;
    if port == 0 {
        return Err("the port is 0");
    }
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    // No resolver is asked: a static program has none that is safe, and the name has one meaning.
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return Ok(Address::Tcp(vec![v4, v6]));
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().map(IpAddr::V4),
    };
    match ip.map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_loopback() => Ok(Address::Tcp(vec![SocketAddr::from((ip, port))])),
        Ok(_) => Err(LOOPBACK),
        Err(_) => {
            Err("the host is not an address, and names other than localhost are not looked up")
        }
    }
}

fn protocol(field: Option<&[u8]>, line: &[u8]) -> Result<(), Rejected> {
    const REMEDY: &str = "only grpc is supported. Plugins in Go: set GRPCServer in ServeConfig";
    match field {
        Some(b"grpc") => Ok(()),
        None => reject(
            Reason::ProtocolUnsupported,
            format!(
                "the handshake names no protocol, which means netrpc; {REMEDY}. The line: `{}`",
                quote(line)
            ),
        ),
        Some(b"") => reject(
            Reason::ProtocolUnsupported,
            format!(
                "the protocol in the handshake is empty; {REMEDY}. The line: `{}`",
                quote(line)
            ),
        ),
        Some(other) => reject(
            Reason::ProtocolUnsupported,
            format!("the plugin speaks {}; {REMEDY}", printable(other, 32)),
        ),
    }
}

/// Standard alphabet; a `=` at the end is tolerated, since only Go's own decoder refuses it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn certificate(
    field: &[u8],
    asked: Asked,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, Rejected> {
    let present = field.len() > NO_CERTIFICATE;
    match (asked, present) {
        (Asked::None | Asked::Explicit, false) => Ok(None),
        (Asked::Explicit, true) => {
            warnings.push(
                "the plugin sent a certificate in its handshake; it is passed over, because \
                 spec.protocol.goPlugin.tls.mode is Explicit"
                    .to_owned(),
            );
            Ok(None)
        }
        (Asked::None, true) => reject(
            Reason::BadCertificate,
            "the plugin sent a TLS certificate in its handshake although no TLS was asked for: \
             set spec.protocol.goPlugin.tls.mode to AutoMTLS"
                .to_owned(),
        ),
        (Asked::AutoMTLS, false) => reject(
            Reason::MtlsNotHonoured,
            "the plugin did not answer the request for AutoMTLS: its handshake carries no \
             certificate. It is not served by go-plugin's own server, or brings its own TLS; set \
             spec.protocol.goPlugin.tls.mode to None or Explicit"
                .to_owned(),
        ),
        (Asked::AutoMTLS, true) => {
            if field.ends_with(b"=") {
                warnings.push(
                    "the certificate in the handshake is padded with `=`, which hosts written in \
                     Go refuse"
                        .to_owned(),
                );
            }
            match BASE64.decode(field) {
                Ok(der) if is_der_sequence(&der) => Ok(Some(der)),
                Ok(_) => bad_certificate("it does not have the shape of DER"),
                Err(error) => bad_certificate(&format!("it is not base64 ({error})")),
            }
        }
    }
}

fn bad_certificate<T>(why: &str) -> Result<T, Rejected> {
    reject(
        Reason::BadCertificate,
        format!(
            "the TLS certificate in the plugin's handshake cannot be read: {why}. It has to be the \
             DER of the server's certificate in base64 without padding"
        ),
    )
}

/// Whether the bytes are one DER sequence and nothing behind it.
fn is_der_sequence(der: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = der else {
        return false;
    };
    match length {
        0..=0x7f => rest.len() == usize::from(*length),
        0x81..=0x83 => {
            let bytes = usize::from(length & 0x7f);
            let Some((length, content)) = rest.split_at_checked(bytes) else {
                return false;
            };
            let length = length
                .iter()
                .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
            content.len() == length
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "handshake_tests.rs"]
mod tests;
