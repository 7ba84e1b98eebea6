//! Flipping bits in files.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;

/// The non-empty files below a directory that have one of the extensions, or any if none is given.
pub(super) fn files(dir: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            // The directory may be deleted while it is read.
            found.extend(files(&path, extensions).unwrap_or_default());
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let wanted = extensions.is_empty() || extensions.contains(&extension);
        if wanted && std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Flips one bit of a file; returns its number.
pub(super) fn flip_bit(path: &Path, rng: &mut StdRng) -> anyhow::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    ensure!(bytes > 0, "{} is empty", path.display());
    let bit = rng.random_range(0..bytes * 8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8)?;
    file.sync_all()?;
    Ok(bit)
}
