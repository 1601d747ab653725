//! The order to start a plugin: the environment that each family promises it.

use patchbay_launcher::control::{Start, StartId};
use patchbay_protocol::pod_config::{GoPlugin, PcpController, PodConfig, Protocol};

use crate::configuration::digest;
use crate::paths::Root;

type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// Makes up the order. `host_certificate` is the PEM of the host's certificate, with AutoMTLS.
pub fn order(
    root: &Root,
    start_id: StartId,
    config: &PodConfig,
    host_certificate: Option<String>,
) -> Start {
    let directory = root
        .start_directory(start_id)
        .into_os_string()
        .into_encoded_bytes();
    let checksums = config.checksums.iter().filter_map(|checksum| {
        Some((
            checksum.path.clone().into_bytes(),
            digest(&checksum.sha256)?,
        ))
    });
    let mut start = Start {
        start_id,
        // Plugins before go-plugin 1.5 and those in other languages know only TMPDIR.
        env: vec![(b"TMPDIR".to_vec(), directory.clone())],
        defaults: Vec::new(),
        keep_host_variables: false,
        directory,
        checksums: checksums.collect(),
        head_lines: 0,
        term_millis: config.shutdown.term_seconds.saturating_mul(1000),
    };
    match &config.protocol {
        Protocol::GoPlugin(family) => {
            start.head_lines = family.skip_lines.saturating_add(1);
            go_plugin(family, &mut start, host_certificate);
        }
        Protocol::PcpController(family) => {
            // PLUGIN_NAME is no word of a host here, and neither are those that resemble it.
            start.keep_host_variables = true;
            start.defaults = vec![pair("PLUGIN_NAME", &config.plugin.name)];
            controller(family, root, &mut start.env);
        }
    }
    start
}

fn pair(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn go_plugin(family: &GoPlugin, start: &mut Start, host_certificate: Option<String>) {
    let mut versions = family.versions.clone();
    versions.sort_unstable();
    versions.dedup();
    let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
    let own = family.env.iter().map(|(name, value)| pair(name, value));
    start.env.splice(0..0, own);
    let directory = start.directory.clone();
    let env = &mut start.env;
    env.push((b"PLUGIN_UNIX_SOCKET_DIR".to_vec(), directory));
    env.push(pair("PLUGIN_MIN_PORT", &family.min_port.to_string()));
    env.push(pair("PLUGIN_MAX_PORT", &family.max_port.to_string()));
    env.push(pair("PLUGIN_PROTOCOL_VERSIONS", &versions.join(",")));
    // PLUGIN_MULTIPLEX_GRPC is left out: any value, even "false", changes the handshake line.
    if let Some(pem) = host_certificate {
        env.push(pair("PLUGIN_CLIENT_CERT", &pem));
    }
    env.push(pair(&family.cookie_key, &family.cookie_value));
}

fn controller(family: &PcpController, root: &Root, env: &mut Environment) {
    env.push(pair("PORT", &family.port.to_string()));
    env.push(pair("STAGE", &family.stage));
    // Plugins may print it; the library asks at the socket below.
    env.push(pair("RETHINK_HOST", "127.0.0.1"));
    if let Some(class_name) = &family.class_name {
        env.push(pair("PLUGIN", class_name));
    }
    let socket = root.jobs_socket().into_os_string().into_encoded_bytes();
    env.push((b"PATCHBAY_JOBS_SOCKET".to_vec(), socket));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::{config, go_plugin, pcp_config};
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
        let family = go_plugin(&mut config);
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

    #[test]
    fn a_controller_plugin_gets_its_own_environment_and_keeps_its_name() {
        let mut config = pcp_config(1, 10_000);
        let root = Root::new("/patchbay".into());
        let start = order(&root, StartId(0xab), &config, None);
        for (name, wanted) in [
            ("PORT", "10000"),
            ("STAGE", "PROD"),
            ("RETHINK_HOST", "127.0.0.1"),
            ("PATCHBAY_JOBS_SOCKET", "/patchbay/run/jobs.sock"),
            ("TMPDIR", "/patchbay/run/00000000000000ab"),
        ] {
            assert_eq!(value(&start, name), Some(wanted), "{name}");
        }
        assert_eq!(value(&start, "PLUGIN"), None);
        assert_eq!(start.defaults, [pair("PLUGIN_NAME", "kv")]);
        assert!(start.keep_host_variables);
        assert_eq!(start.head_lines, 0);
        assert_eq!(
            start
                .env
                .iter()
                .filter(|(name, _)| name.starts_with(b"PLUGIN_"))
                .count(),
            0
        );

        if let Protocol::PcpController(family) = &mut config.protocol {
            family.class_name = Some("SamplePlugin".into());
        }
        let start = order(&root, StartId(1), &config, None);
        assert_eq!(value(&start, "PLUGIN"), Some("SamplePlugin"));
    }
}
