//! Rules about single places: where records are encoded, where the clock is read, and how a file
//! opens.

use std::path::PathBuf;

use anyhow::ensure;

use crate::source::files_below;

fn sources() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut paths = Vec::new();
    files_below(&crate::root().join("crates"), "rs", &mut paths)?;
    ensure!(paths.len() > 50, "only {} source files were found", paths.len());
    paths.into_iter().map(|path| Ok((path.clone(), std::fs::read_to_string(path)?))).collect()
}

/// Inside a crate, too, a library keeps to its place; and time is a parameter, so that tests and
/// the simulation can set it.
#[test]
fn only_the_codec_encodes_and_only_the_edges_read_the_clock() -> anyhow::Result<()> {
    for (path, text) in sources()? {
        let inside = |part: &str| path.to_string_lossy().contains(part);
        let coding = ["encode", "decode", "config"].iter().any(|part| text.contains(&format!("bincode::{part}")));
        ensure!(!coding || inside("types/src/codec.rs"), "{}: only types::codec encodes", path.display());
        let clock = text.contains("SystemTime::now");
        let edges = ["types/src/clock.rs", "crates/cli/", "crates/node/", "crates/playground/"];
        ensure!(
            !clock || edges.iter().any(|edge| inside(edge)),
            "{}: reads the clock; take the time as a parameter",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn every_source_file_opens_with_its_purpose() -> anyhow::Result<()> {
    for (path, text) in sources()? {
        ensure!(text.starts_with("//!"), "{} does not open with a '//!' paragraph", path.display());
    }
    Ok(())
}
