//! Writes the CustomResourceDefinitions: to stdout, or one file each into the folder that is
//! given as the only argument.

use kube::CustomResourceExt;
use patchbay_api::{Job, JobOutput, Plugin};
use std::error::Error;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let crds = [
        (Plugin::crd_name().to_owned(), Plugin::crd()),
        (Job::crd_name().to_owned(), Job::crd()),
        (JobOutput::crd_name().to_owned(), JobOutput::crd()),
    ];
    let folder = std::env::args_os().nth(1);
    for (name, crd) in crds {
        let text = format!(
            "# Made by `make generate`; do not edit.\n{}",
            serde_norway::to_string(&crd)?
        );
        match &folder {
            Some(folder) => {
                let path = Path::new(folder).join(format!("{name}.yaml"));
                std::fs::write(&path, text)
                    .map_err(|e| format!("writing {}: {e}", path.display()))?;
            }
            None => write!(std::io::stdout(), "---\n{text}")?,
        }
    }
    Ok(())
}
