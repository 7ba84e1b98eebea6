//! The documents: links and paths lead to files, and the README stays short.

use std::path::{Path, PathBuf};

use anyhow::ensure;

/// All documents below `dir`.
pub(crate) fn documents(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            documents(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The targets of the links in `text` that are files, without their `#section`.
fn targets(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let files = links.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or(target)).collect()
}

/// The parts of `text` in backticks that are paths of this repository.
fn paths_in_backticks(text: &str) -> Vec<&str> {
    let folders = ["crates/", "tests/", "jepsen/", "docs/", "cluster/"];
    let is_path = |part: &&str| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        plain && folders.iter().any(|folder| part.starts_with(folder))
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

#[test]
fn links_and_paths_in_documents_lead_to_files() -> anyhow::Result<()> {
    let mut paths = Vec::new();
    documents(&crate::root(), &mut paths)?;
    ensure!(paths.len() >= 4, "only {} documents were found", paths.len());
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for target in targets(&text) {
            ensure!(folder.join(target).exists(), "{}: the link to '{target}' leads nowhere", path.display());
        }
        for file in paths_in_backticks(&text) {
            let exists = folder.join(file).exists() || crate::root().join(file).exists();
            ensure!(exists, "{}: there is no '{file}'", path.display());
        }
    }
    Ok(())
}

/// Long material belongs into `docs/`.
#[test]
fn readme_stays_short() -> anyhow::Result<()> {
    const LINES_MAX: usize = 120;
    let lines = std::fs::read_to_string(crate::root().join("README.md"))?.lines().count();
    ensure!(lines <= LINES_MAX, "README.md has {lines} lines, and may have {LINES_MAX}");
    Ok(())
}

#[test]
fn links_and_paths_are_found() {
    let text = "[a](docs/tour.md#top), [b](https://example.org), [c](#here) and ![d](e.svg)";
    assert_eq!(targets(text), ["docs/tour.md", "e.svg"]);
    let text = "`crates/raft/src/lib.rs`, `cargo doc`, `tests/run --full`, `crates/*/tests` and `types/codec.rs`";
    assert_eq!(paths_in_backticks(text), ["crates/raft/src/lib.rs"]);
}
