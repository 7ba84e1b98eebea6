//! Small files that are replaced as a whole: after a crash a file has its old or its new content,
//! never a mix.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The suffix of a file that is being written; the next start deletes one that a crash left.
pub(crate) const TEMP_SUFFIX: &str = ".tmp";

/// Writes `dir/name`; durable on return. One writer of a name at a time.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = dir.join(format!("{name}{TEMP_SUFFIX}"));
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, dir.join(name))?;
    sync_dir(dir)
}

/// Reads `dir/name`; none if there is no such file.
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
