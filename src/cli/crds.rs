//! `crds`: the CustomResourceDefinitions, generated from the API crate.

use kube::CustomResourceExt;
use patchbay_api::{Job, JobOutput, Plugin};

use crate::stdio::{self, StdoutError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CrdsError {
    #[error("writing {name} as YAML: {source}")]
    Yaml {
        name: &'static str,
        source: serde_norway::Error,
    },
    #[error(transparent)]
    Output(#[from] StdoutError),
}

/// Prints one YAML document per kind.
pub(crate) fn run() -> Result<(), CrdsError> {
    for (name, crd) in [
        (Plugin::crd_name(), Plugin::crd()),
        (Job::crd_name(), Job::crd()),
        (JobOutput::crd_name(), JobOutput::crd()),
    ] {
        let text =
            serde_norway::to_string(&crd).map_err(|source| CrdsError::Yaml { name, source })?;
        stdio::text(&format!("---\n{text}"))?;
    }
    Ok(())
}
