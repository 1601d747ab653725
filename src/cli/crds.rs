//! `crds`: the kinds that this version knows, as the API crate defines them.

use crate::output::{self, OutputError};
use kube::CustomResourceExt;
use patchbay_api::{Job, JobOutput, Plugin};

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
    for (name, crd) in [
        (Plugin::crd_name(), Plugin::crd()),
        (Job::crd_name(), Job::crd()),
        (JobOutput::crd_name(), JobOutput::crd()),
    ] {
        let text =
            serde_norway::to_string(&crd).map_err(|source| CrdsError::Yaml { name, source })?;
        output::text(&format!("---\n{text}"))?;
    }
    Ok(())
}
