//! The layers of the workspace: imports between crates run one way, and an outside library that
//! matters has a fixed list of owners.

use std::process::Command;

use anyhow::{Context, ensure};

/// Which of our crates a crate may import. A crate that is not listed may import none of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("connections", &[]),
    ("testpoints", &[]),
    ("proto", &["types"]),
    ("ring", &["types"]),
    ("machine", &["types", "testpoints"]),
    ("rocks", &["types", "testpoints", "machine"]),
    ("raft", &["types", "testpoints", "machine"]),
    ("topology", &["types", "ring", "machine"]),
    ("control", &["types", "testpoints", "ring", "machine", "raft", "topology"]),
    ("router", &["types", "testpoints", "ring"]),
    (
        "node",
        &["types", "testpoints", "connections", "proto", "ring", "machine", "rocks", "raft", "topology", "control"],
    ),
    ("client", &["types", "proto", "router"]),
    ("shortener", &["client", "connections"]),
    ("playground", &["types", "proto", "client"]),
    ("cli", &["types", "proto", "node", "client", "shortener", "playground"]),
    ("sim", &["types", "testpoints", "ring", "machine", "raft", "topology", "control", "router"]),
    ("jepsen", &["types", "testpoints", "proto", "router", "client", "sim"]),
    ("tests", &["proto", "client"]),
    // Documentation only: it links to all of these.
    ("guide", &["types", "machine", "rocks", "raft", "topology", "control", "router", "node", "client"]),
];

/// The owners of an outside library: no other crate may use it.
const OWNERS: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("rocksdb", &["rocks"]),
    ("hashring", &["ring"]),
    ("bincode", &["types"]),
    ("siphasher", &["ring", "machine"]),
    ("tonic", &["connections", "proto", "node", "client", "cli"]),
    ("axum", &["connections", "node", "shortener"]),
    ("moka", &["shortener"]),
    ("clap", &["cli", "jepsen"]),
];

/// Crates that stay plain: no runtime and no network.
const WITHOUT_TOKIO: &[&str] = &["types", "ring", "proto", "testpoints", "machine", "rocks", "topology"];

/// Crates that build without these libraries, also not through others.
const WITHOUT: &[(&str, &[&str])] = &[
    ("topology", &["rocksdb", "tonic"]),
    ("raft", &["rocksdb", "tonic"]),
    ("control", &["rocksdb", "tonic"]),
    ("router", &["rocksdb", "tonic"]),
    ("sim", &["rocksdb", "tonic"]),
];

/// A workspace member and its direct dependencies, without those that only its tests use.
type Dependencies = Vec<(String, Vec<String>)>;

/// Runs cargo on this workspace, and returns its output.
fn cargo(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = crate::root().join("Cargo.toml");
    let output = Command::new(cargo).args(arguments).arg("--offline").arg("--manifest-path").arg(manifest).output()?;
    ensure!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn dependencies() -> anyhow::Result<Dependencies> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    Ok(packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap_or_default().trim_start_matches("quorate-").to_owned();
            let all = package["dependencies"].as_array().cloned().unwrap_or_default();
            let direct = all.iter().filter(|dependency| dependency["kind"] != "dev" && dependency["kind"] != "build");
            (name, direct.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect())
        })
        .collect())
}

fn check_imports(all: &Dependencies) -> anyhow::Result<()> {
    for (name, direct) in all {
        let (_, allowed) = MAY_IMPORT.iter().find(|(crate_name, _)| crate_name == name).with_context(|| {
            format!("crate '{name}' is not in MAY_IMPORT: list there the crates that it may import")
        })?;
        for ours in direct.iter().filter_map(|dependency| dependency.strip_prefix("quorate-")) {
            ensure!(allowed.contains(&ours), "'{name}' imports '{ours}'; it may import only {allowed:?}");
        }
    }
    Ok(())
}

fn check_owners(all: &Dependencies) -> anyhow::Result<()> {
    for (name, direct) in all {
        for dependency in direct {
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

#[test]
fn imports_run_one_way() -> anyhow::Result<()> {
    check_imports(&dependencies()?)
}

#[test]
fn every_outside_library_has_its_owner() -> anyhow::Result<()> {
    check_owners(&dependencies()?)
}

/// The simulation runs the product's own code, so the crates that hold it build without disk and
/// wire.
#[test]
fn pure_crates_build_without_rocksdb_and_tonic() -> anyhow::Result<()> {
    for (name, without) in WITHOUT {
        let package = format!("quorate-{name}");
        let tree = cargo(&["tree", "--package", &package, "--edges", "normal", "--prefix", "none"])?;
        let tree = String::from_utf8(tree)?;
        ensure!(tree.starts_with(&package), "no tree of {package}: {tree}");
        for line in tree.lines() {
            let library = line.split(' ').next().unwrap_or_default();
            ensure!(!without.contains(&library), "'{name}' depends on {library}: cargo tree -p {package} -i {library}");
        }
    }
    Ok(())
}

/// The table lists each crate below those that import it, so no two crates can import each other.
#[test]
fn the_import_table_has_no_circle() -> anyhow::Result<()> {
    for (place, (name, allowed)) in MAY_IMPORT.iter().enumerate() {
        for below in *allowed {
            let listed = MAY_IMPORT[..place].iter().any(|(other, _)| other == below);
            ensure!(listed, "'{name}' may import '{below}', which is not listed above it");
        }
    }
    Ok(())
}

#[test]
fn a_backward_import_and_a_foreign_library_are_reported() {
    let sample = |name: &str, dependency: &str| vec![(name.to_owned(), vec![dependency.to_owned()])];
    assert!(check_imports(&sample("node", "quorate-raft")).is_ok());
    assert!(check_imports(&sample("raft", "quorate-node")).is_err());
    assert!(check_imports(&sample("unlisted", "serde")).is_err());
    assert!(check_owners(&sample("rocks", "rocksdb")).is_ok());
    assert!(check_owners(&sample("raft", "rocksdb")).is_err());
    assert!(check_owners(&sample("topology", "tokio")).is_err());
}
