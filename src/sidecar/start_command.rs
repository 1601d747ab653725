//! The command to start a plugin. What its family promises it is the family's to add.

use patchbay_launcher::control::{Start, StartId};
use patchbay_protocol::pod_config::PodConfig;

use crate::configuration::digest;
use crate::family::go_plugin::tls::HostCertificate;
use crate::family::{self, StartContext};
use crate::paths::Root;

/// Makes up the command. `host_certificate` is the one that was made for this start, if any.
pub fn start_command(
    root: &Root,
    start_id: StartId,
    config: &PodConfig,
    host_certificate: Option<&HostCertificate>,
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
    let context = StartContext {
        plugin: &config.plugin.name,
        root,
        host_certificate,
    };
    family::of(&config.protocol).complete_start(&mut start, &context);
    start
}

/// An environment variable.
pub fn variable(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::{config, go_plugin, pcp_config};
    use patchbay_protocol::pod_config::{Checksum, FamilyConfig};

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
        let start = start_command(&root, StartId(0xab), &config, None);
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

        let host = HostCertificate::generate().unwrap();
        let start = start_command(&root, StartId(1), &config, Some(&host));
        assert_eq!(value(&start, "PLUGIN_CLIENT_CERT"), Some(&*host.pem()));
    }

    #[test]
    fn pcp_controller_gets_its_own_environment_and_keeps_its_name() {
        let mut config = pcp_config(1, 10_000);
        let root = Root::new("/patchbay".into());
        let start = start_command(&root, StartId(0xab), &config, None);
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
        assert_eq!(start.defaults, [variable("PLUGIN_NAME", "kv")]);
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

        if let FamilyConfig::PcpController(family) = &mut config.protocol {
            family.class_name = Some("SamplePlugin".into());
        }
        let start = start_command(&root, StartId(1), &config, None);
        assert_eq!(value(&start, "PLUGIN"), Some("SamplePlugin"));
    }
}
