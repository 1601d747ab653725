//! `crds`: the kinds that this version knows, as the API crate defines them.

use crate::output::{self, OutputError};
use kube::CustomResourceExt;
use patchbay_api::Plugin;

/// Why the kinds are not printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrdsError {
    #[error("writing {name} as YAML: {source}")]
    Yaml {
        name: &'static str,
        source: serde_norway::Error,
    },
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Prints one YAML document for each kind.
pub(crate) fn run() -> Result<(), CrdsError> {
    let name = Plugin::crd_name();
    let text = serde_norway::to_string(&Plugin::crd())
        .map_err(|source| CrdsError::Yaml { name, source })?;
    output::text(&format!("---\n{text}"))?;
    Ok(())
}
