//! Generates the gRPC code from `proto/`; protox is the compiler, so none has to be installed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Relative to the package, so that checkouts that share a target folder do not watch each
    // other's files.
    println!("cargo::rerun-if-changed=../../proto");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let files = [
        "patchbay/session/v1/session.proto",
        "plugin/go_plugin.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
