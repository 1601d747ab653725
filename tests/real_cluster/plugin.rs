//! Manifests of Plugins, written as a user writes them.

use kube::api::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// The kind under test, without our own types: a story sees what `kubectl` sees.
pub fn plugin_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("patchbay.dev", "v1alpha1", "Plugin"))
}

/// A Plugin to apply.
#[derive(Clone)]
pub struct Plugin {
    pub name: String,
    pub spec: Value,
}

impl Plugin {
    /// The key-value example that ships with go-plugin.
    pub fn kv_go(name: &str) -> Plugin {
        Plugin::new(name, "patchbay.dev/example-kv-go:v1", json!(["/kv"]))
    }

    /// A program of a few lines, run by the Python of the example image.
    pub fn script(name: &str, program: &str) -> Plugin {
        Plugin::new(
            name,
            "patchbay.dev/example-python:v1",
            json!(["/usr/bin/python3", "-c", program]),
        )
    }

    fn new(name: &str, image: &str, command: Value) -> Plugin {
        let spec = json!({
            "image": image,
            "command": command,
            "workingDir": "/tmp",
            "protocol": {"goPlugin": {
                "cookie": {"key": "BASIC_PLUGIN", "value": "hello"},
                "versions": [1],
            }},
            // Stories wait for pods to go; nobody calls these plugins while they stop.
            "shutdown": {"drainSeconds": 0},
        });
        Plugin {
            name: name.to_owned(),
            spec,
        }
    }

    /// Sets a field of the spec by its path, such as `/protocol/goPlugin/versions`.
    pub fn with(mut self, path: &str, value: Value) -> Plugin {
        let mut at = &mut self.spec;
        for key in path.trim_start_matches('/').split('/') {
            if at.is_null() {
                *at = json!({});
            }
            at = &mut at[key];
        }
        *at = value;
        self
    }

    pub fn manifest(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "patchbay.dev/v1alpha1",
            "kind": "Plugin",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": self.spec,
        })
    }
}
