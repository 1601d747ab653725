//! Turns the proto files into Rust without the system's protoc, and keeps their descriptors
//! for the reflection service.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../proto";
    let files = ["kv.proto", "controller.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={root}/{file}");
    }
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
