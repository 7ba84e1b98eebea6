//! Compiles `proto/` with protox, so that the build needs no protoc.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 3] = ["quorate/kv/v1/kv.proto", "quorate/admin/v1/admin.proto", "quorate/peer/v1/peer.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
