//! The configuration: from the annotation, from the session, from the cache. The highest revision
//! wins, wherever it came from.

use patchbay_protocol::pod_config::{CONTRACT, PodConfig};

use crate::error::SystemError;
use crate::family::{self, InvalidSettings};
use crate::paths::{Root, replace};

/// Largest document in bytes; an object's annotations may have 256 KiB together.
const MAX_DOCUMENT: u64 = 256 * 1024;

/// Why a document is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("read the configuration: it is longer than {MAX_DOCUMENT} bytes")]
    TooLong,
    #[error("read the configuration: {0}")]
    Json(#[from] serde_json::Error),
    #[error("read the configuration: it follows contract {0}, this sidecar knows 1 to {CONTRACT}")]
    Contract(u32),
    #[error("read the configuration: the checksum of {0:?} is not 64 hexadecimal digits")]
    Checksum(String),
    /// The family's settings.
    #[error("read the configuration: {0}")]
    Family(#[from] InvalidSettings),
}

/// Reads and checks a document.
///
/// # Errors
/// What is wrong, for status.
pub fn parse(json: &str) -> Result<PodConfig, ConfigurationError> {
    if json.len() as u64 > MAX_DOCUMENT {
        return Err(ConfigurationError::TooLong);
    }
    let config: PodConfig = serde_json::from_str(json)?;
    if config.contract == 0 || config.contract > CONTRACT {
        return Err(ConfigurationError::Contract(config.contract));
    }
    family::of(&config.protocol).check()?;
    for checksum in &config.checksums {
        if digest(&checksum.sha256).is_none() {
            return Err(ConfigurationError::Checksum(checksum.path.clone()));
        }
    }
    Ok(config)
}

/// The 32 bytes that 64 hexadecimal digits stand for.
pub fn digest(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let mut bytes = [0_u8; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// The one in force, and where newer ones come from.
#[derive(Debug)]
pub struct Configuration {
    root: Root,
    in_force: Option<u64>,
    /// What was read last from the annotation, to tell a change.
    seen: Option<String>,
}

impl Configuration {
    /// Nothing is in force yet.
    pub fn new(root: Root) -> Configuration {
        Configuration {
            root,
            in_force: None,
            seen: None,
        }
    }

    /// What an earlier process of this sidecar had in force.
    pub fn cached(&mut self) -> Option<PodConfig> {
        let text = read_bounded(&self.cache()).ok()??;
        let config = parse(&text).ok()?;
        self.in_force = Some(config.revision);
        Some(config)
    }

    /// Looks at the annotation. `None` when there is nothing new.
    ///
    /// # Errors
    /// It cannot be read or understood; told once for each content.
    pub fn look(&mut self) -> Result<Option<PodConfig>, ConfigurationError> {
        let path = self
            .root
            .config()
            .join(patchbay_launcher::layout::CONFIG_FILE);
        let text = read_bounded(&path).map_err(|error| SystemError::at("read", &path, error))?;
        let Some(text) = text else { return Ok(None) };
        if self.seen.as_ref() == Some(&text) {
            return Ok(None);
        }
        let config = parse(&text);
        self.seen = Some(text);
        self.admit(config?)
    }

    /// Takes a document of the session.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn accept(&mut self, json: &str) -> Result<Option<PodConfig>, ConfigurationError> {
        let config = parse(json)?;
        self.admit(config)
    }

    fn admit(&mut self, config: PodConfig) -> Result<Option<PodConfig>, ConfigurationError> {
        if self
            .in_force
            .is_some_and(|revision| config.revision <= revision)
        {
            return Ok(None);
        }
        self.in_force = Some(config.revision);
        let kept = serde_json::to_vec(&config)
            .map_err(|error| SystemError::new("write the configuration", error));
        if let Err(error) = kept.and_then(|json| replace(&self.cache(), &json, 0o600)) {
            // The annotation still has it, or the session sends it again.
            tracing::warn!(%error, "the configuration could not be kept for a next sidecar");
        }
        Ok(Some(config))
    }

    fn cache(&self) -> std::path::PathBuf {
        self.root.private().join("config.json")
    }
}

fn read_bounded(path: &std::path::Path) -> std::io::Result<Option<String>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_DOCUMENT + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::config;
    use patchbay_launcher::layout;

    fn json(revision: u64) -> String {
        serde_json::to_string(&config(revision)).unwrap()
    }

    fn fresh() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        std::fs::create_dir(root.config()).unwrap();
        (folder, root)
    }

    #[test]
    fn the_highest_revision_wins_wherever_it_comes_from() {
        let (_folder, root) = fresh();
        let mut configuration = Configuration::new(root.clone());
        assert_eq!(configuration.look().unwrap(), None);
        std::fs::write(root.config().join("config"), json(2)).unwrap();
        assert_eq!(configuration.look().unwrap(), Some(config(2)));
        assert_eq!(configuration.look().unwrap(), None);
        assert_eq!(configuration.accept(&json(1)).unwrap(), None);
        assert_eq!(configuration.accept(&json(3)).unwrap(), Some(config(3)));
        std::fs::write(
            root.config().join("config"),
            json(2).replace("\"ns\"", "\"n2\""),
        )
        .unwrap();
        assert_eq!(configuration.look().unwrap(), None);

        let mut next = Configuration::new(root);
        assert_eq!(next.cached(), Some(config(3)));
        assert_eq!(next.look().unwrap(), None);
    }

    #[test]
    fn bad_document_is_reported_once_and_changes_nothing() {
        let (_folder, root) = fresh();
        let mut configuration = Configuration::new(root.clone());
        std::fs::write(root.config().join("config"), "{").unwrap();
        assert!(
            configuration
                .look()
                .unwrap_err()
                .to_string()
                .starts_with("read the configuration")
        );
        assert_eq!(configuration.look().unwrap(), None);
        std::fs::write(root.config().join("config"), json(1)).unwrap();
        assert_eq!(configuration.look().unwrap(), Some(config(1)));
    }

    #[test]
    fn documents_that_cannot_work_are_refused_and_unknown_fields_are_not() {
        let change = |from: &str, to: &str| parse(&json(1).replace(from, to));
        assert!(
            change("\"contract\":1", "\"contract\":99")
                .unwrap_err()
                .to_string()
                .contains("99")
        );
        assert!(change("[3,5]", "[]").is_err());
        assert!(change("\"COOKIE\"", "\"A=B\"").is_err());
        assert!(change("10000", "60000").is_err());
        let controller = |port| {
            let config = crate::instance::tests::pcp_config(1, port);
            parse(&serde_json::to_string(&config).unwrap())
        };
        assert!(controller(10_000).is_ok());
        assert!(controller(0).is_err());
        assert!(
            controller(layout::SESSION_PORT)
                .unwrap_err()
                .to_string()
                .contains("7443")
        );
        assert!(change("\"contract\":1", "\"future\":{},\"contract\":1").is_ok());
        assert!(
            parse(&"x".repeat(300_000))
                .unwrap_err()
                .to_string()
                .contains("longer")
        );
    }

    #[test]
    fn digests_are_64_digits() {
        assert_eq!(digest(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(digest(&"0F".repeat(32)), Some([15; 32]));
        for bad in ["", "0f", &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(digest(bad), None);
        }
    }
}
