//! The lock of a data directory: at most one process serves it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::error::DataDirError;

/// The lock file; its text is the id of the process that holds it.
pub(super) const LOCK: &str = "LOCK";

/// Takes the lock and writes this process's id into it.
pub(super) fn take(dir: &Path) -> Result<File, DataDirError> {
    let unwritable = |source| DataDirError::Unwritable { path: dir.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK))
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(unwritable)?;
            write!(file, "{}", std::process::id()).map_err(unwritable)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().map(|_| text.trim().to_owned()).filter(|pid| !pid.is_empty());
            Err(DataDirError::Locked { path: dir.to_owned(), pid })
        }
        Err(TryLockError::Error(source)) => Err(unwritable(source)),
    }
}
