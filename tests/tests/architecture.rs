//! The rules of the architecture: imports run one way, and every outside library has one owner.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Which of our crates a crate may import. What is not named may import nothing of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("connections", &[]),
    ("proto", &["types"]),
    ("ring", &["types"]),
    ("testpoints", &[]),
    ("machine", &["types", "testpoints"]),
    ("rocks", &["types", "testpoints", "machine"]),
    ("raft", &["types", "testpoints", "machine"]),
    ("topology", &["types", "ring", "machine"]),
    ("node", &["types", "testpoints", "connections", "proto", "ring", "machine", "rocks", "raft", "topology"]),
    ("router", &["types", "proto", "ring"]),
    ("client", &["types", "router"]),
    ("shortener", &["client", "connections"]),
    ("cli", &["types", "proto", "node", "router", "client", "shortener"]),
    ("jepsen", &["types", "proto", "router", "client", "sim"]),
    ("sim", &["types", "ring", "machine", "raft", "topology"]),
    ("tests", &["proto", "router", "client"]),
];

/// Which crates may use an outside library.
const OWNERS: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("rocksdb", &["rocks"]),
    ("hashring", &["ring"]),
    ("bincode", &["types"]),
    ("siphasher", &["ring", "machine"]),
    ("tonic", &["connections", "proto", "node", "router", "cli"]),
    ("axum", &["connections", "node", "shortener"]),
    ("moka", &["shortener"]),
    ("clap", &["cli", "jepsen"]),
];

/// Crates that stay plain: no runtime and no network.
const WITHOUT_TOKIO: &[&str] = &["types", "ring", "proto", "testpoints", "machine", "rocks", "topology"];

fn root() -> PathBuf {
    // Asked when the test runs: another clone that shares the target directory may have compiled it.
    let tests = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"));
    tests.parent().expect("the tests are in the workspace").to_owned()
}

/// Each workspace member and its direct dependencies, without those that only its tests use.
fn dependencies() -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let short = |name: &str| name.trim_start_matches("quorate-").to_owned();
    Ok(packages
        .iter()
        .map(|package| {
            let name = short(package["name"].as_str().unwrap_or_default());
            let all = package["dependencies"].as_array().cloned().unwrap_or_default();
            let direct = all.iter().filter(|dependency| dependency["kind"] != "dev" && dependency["kind"] != "build");
            (name, direct.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect())
        })
        .collect())
}

#[test]
fn imports_run_one_way() -> anyhow::Result<()> {
    for (name, direct) in dependencies()? {
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .with_context(|| format!("crate '{name}' is not in the table of imports: say there what it may import"))?;
        for ours in direct.iter().filter_map(|dependency| dependency.strip_prefix("quorate-")) {
            ensure!(allowed.contains(&ours), "'{name}' imports '{ours}'; it may import only {allowed:?}");
        }
    }
    Ok(())
}

#[test]
fn every_outside_library_has_its_owner() -> anyhow::Result<()> {
    for (name, direct) in dependencies()? {
        for dependency in &direct {
            if let Some((_, owners)) = OWNERS.iter().find(|(library, _)| library == dependency) {
                ensure!(owners.contains(&name.as_str()), "'{name}' uses {dependency}, which only {owners:?} may");
            }
        }
        if WITHOUT_TOKIO.contains(&name.as_str()) {
            ensure!(!direct.iter().any(|dependency| dependency == "tokio"), "'{name}' must stay without tokio");
        }
    }
    Ok(())
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Inside a crate, too, a library keeps to its place.
#[test]
fn bincode_is_used_only_where_the_persisted_types_are() -> anyhow::Result<()> {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files)?;
    ensure!(files.len() > 50, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let inside = |part: &str| file.to_string_lossy().contains(part);
        let coding =
            text.contains("bincode::encode") || text.contains("bincode::decode") || text.contains("bincode::config");
        ensure!(!coding || inside("types/src/codec.rs"), "{}: only types::codec encodes", file.display());
        let clock = text.contains("SystemTime::now");
        ensure!(
            !clock || inside("types/src/clock.rs") || inside("crates/cli/") || inside("crates/node/"),
            "{}: time is handed in",
            file.display()
        );
    }
    Ok(())
}

/// A page that does not open with what it is for is a page nobody finds.
#[test]
fn every_source_file_says_what_it_is_for() -> anyhow::Result<()> {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files)?;
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.starts_with("//!"), "{} does not open with a '//!' paragraph", file.display());
    }
    Ok(())
}
