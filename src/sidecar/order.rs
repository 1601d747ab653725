//! The order to start a plugin: go-plugin's environment contract.

use patchbay_launcher::control::{Start, StartId};
use patchbay_protocol::pod_config::{PodConfig, Protocol};

use crate::configuration::digest;
use crate::paths::Root;

/// Makes up the order. `host_certificate` is the PEM of the host's certificate, with AutoMTLS.
pub fn order(
    root: &Root,
    start_id: StartId,
    config: &PodConfig,
    host_certificate: Option<String>,
) -> Start {
    let Protocol::GoPlugin(family) = &config.protocol;
    let directory = root
        .start_directory(start_id)
        .into_os_string()
        .into_encoded_bytes();
    let mut versions = family.versions.clone();
    versions.sort_unstable();
    versions.dedup();
    let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = family
        .env
        .iter()
        .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
        .collect();
    let mut set = |name: &str, value: Vec<u8>| env.push((name.as_bytes().to_vec(), value));
    // Plugins before go-plugin 1.5 and those in other languages know only TMPDIR.
    set("TMPDIR", directory.clone());
    set("PLUGIN_UNIX_SOCKET_DIR", directory.clone());
    set("PLUGIN_MIN_PORT", family.min_port.to_string().into_bytes());
    set("PLUGIN_MAX_PORT", family.max_port.to_string().into_bytes());
    set("PLUGIN_PROTOCOL_VERSIONS", versions.join(",").into_bytes());
    // PLUGIN_MULTIPLEX_GRPC is left out: any value, even "false", changes the handshake line.
    if let Some(pem) = host_certificate {
        set("PLUGIN_CLIENT_CERT", pem.into_bytes());
    }
    set(&family.cookie_key, family.cookie_value.clone().into_bytes());
    Start {
        start_id,
        env,
        directory,
        checksums: config
            .checksums
            .iter()
            .filter_map(|checksum| {
                Some((
                    checksum.path.clone().into_bytes(),
                    digest(&checksum.sha256)?,
                ))
            })
            .collect(),
        head_lines: family.skip_lines.saturating_add(1),
        term_millis: config.shutdown.term_seconds.saturating_mul(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::config;
    use patchbay_protocol::pod_config::Checksum;

    fn value<'a>(start: &'a Start, name: &str) -> Option<&'a str> {
        start
            .env
            .iter()
            .find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn the_environment_follows_the_contract() {
        let mut config = config(1);
        let Protocol::GoPlugin(family) = &mut config.protocol;
        family.versions = vec![5, 3, 5];
        family.skip_lines = 2;
        config.checksums = vec![Checksum {
            path: "/kv".into(),
            sha256: "ab".repeat(32),
        }];
        let root = Root::new("/patchbay".into());
        let start = order(&root, StartId(0xab), &config, None);
        assert_eq!(value(&start, "PLUGIN_PROTOCOL_VERSIONS"), Some("3,5"));
        assert_eq!(value(&start, "COOKIE"), Some("v"));
        assert_eq!(value(&start, "PLUGIN_MIN_PORT"), Some("10000"));
        assert_eq!(value(&start, "PLUGIN_MAX_PORT"), Some("25000"));
        assert_eq!(
            value(&start, "TMPDIR"),
            Some("/patchbay/run/00000000000000ab")
        );
        assert_eq!(
            value(&start, "TMPDIR"),
            value(&start, "PLUGIN_UNIX_SOCKET_DIR")
        );
        assert_eq!(value(&start, "PLUGIN_CLIENT_CERT"), None);
        assert_eq!(value(&start, "PLUGIN_MULTIPLEX_GRPC"), None);
        assert_eq!((start.head_lines, start.term_millis), (3, 5000));
        assert_eq!(start.checksums, [(b"/kv".to_vec(), [0xab; 32])]);

        let start = order(&root, StartId(1), &config, Some("PEM\n".into()));
        assert_eq!(value(&start, "PLUGIN_CLIENT_CERT"), Some("PEM\n"));
    }
}
