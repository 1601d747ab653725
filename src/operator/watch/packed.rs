//! One object as it is kept: packed, as JSON, and unpacked when somebody asks.
//!
//! As Rust values a thousand Plugins with their children took 35 MB, most of it empty fields and
//! small allocations.

use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Counts what is written.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One object.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
    /// Its resource version; 0 where that is no number.
    pub(super) version: u64,
    json: Box<[u8]>,
}

impl Packed {
    /// Nothing for an object without a name, which the API server never sends.
    pub(super) fn new<K: Resource + Serialize>(object: &K) -> Option<Self> {
        let meta = object.meta();
        let version = meta.resource_version.as_deref();
        // Measured first, so that what is kept was never larger: a buffer that grows leaves holes.
        let mut size = Size(0);
        serde_json::to_writer(&mut size, object).ok()?;
        let mut json = Vec::with_capacity(size.0);
        serde_json::to_writer(&mut json, object).ok()?;
        Some(Self {
            name: meta.name.as_deref()?.into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: version.and_then(|v| v.parse().ok()).unwrap_or(0),
            json: json.into_boxed_slice(),
        })
    }

    pub(super) fn unpack<K: DeserializeOwned>(&self) -> Option<K> {
        serde_json::from_slice(&self.json).ok()
    }

    /// Whether this is the same object at a later version. Versions are compared as numbers where
    /// both are; anything else counts as not newer, and the event wins.
    pub(super) fn newer_than(&self, event: &Packed) -> bool {
        self.uid == event.uid && event.version != 0 && self.version > event.version
    }
}
