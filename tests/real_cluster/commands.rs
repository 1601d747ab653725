//! Programs that a story starts: our command line, and the control program of the embedded cluster.

use crate::world::{Outcome, World, fail};
use std::path::Path;
use tokio::process::Command;

/// What a program printed.
pub struct Printed {
    /// Whether it ended with exit code 0.
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl World {
    /// Runs `kubectl patchbay ARGUMENTS`.
    pub async fn patchbay(&self, arguments: &[&str]) -> Outcome<Printed> {
        run(&self.programs.join("kubectl-patchbay"), arguments).await
    }

    /// Runs `kubectl -n NAMESPACE ARGUMENTS`.
    pub async fn kubectl(&self, namespace: &str, arguments: &[&str]) -> Outcome<Printed> {
        let all = [&["-n", namespace], arguments].concat();
        run(Path::new("kubectl"), &all).await
    }

    /// Runs a script of this project.
    pub async fn script(&self, path: &str) -> Outcome<Printed> {
        run(Path::new(path), &[]).await
    }

    /// Calls a method of a Plugin and returns the reply as it was printed.
    pub async fn call(
        &self,
        namespace: &str,
        plugin: &str,
        method: &str,
        request: &str,
    ) -> Outcome<String> {
        let printed = self
            .patchbay(&["call", "-n", namespace, plugin, method, request])
            .await?;
        if !printed.success {
            fail!(
                "calling {method} of {plugin}: {}{}",
                printed.out,
                printed.err
            );
        }
        Ok(printed.out)
    }

    /// Runs a verb of the embedded cluster's control program.
    pub async fn cluster(&self, arguments: &[&str]) -> Outcome<String> {
        let Some(program) = &self.embedded else {
            fail!("this story needs the embedded cluster");
        };
        let printed = run(program, arguments).await?;
        if !printed.success {
            fail!(
                "cluster {}: {}{}",
                arguments.join(" "),
                printed.out,
                printed.err
            );
        }
        Ok(printed.out)
    }
}

async fn run(program: &Path, arguments: &[&str]) -> Outcome<Printed> {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await?;
    Ok(Printed {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
