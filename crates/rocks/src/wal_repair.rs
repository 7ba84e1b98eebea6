//! Repairs the last write of a database after a power cut or a failed sync, when only parts of it
//! may be on disk. That write is the last record of the write-ahead log or of the manifest (the
//! list of the database's files, written in the same format).
//!
//! RocksDB accepts a last record that is too short, as a torn write, but refuses one with wrong
//! bytes: it cannot tell a torn write from rot. Its holes can, as in etcd's write-ahead log
//! (`isTornEntry` in its `wal/decoder.go`): a disk writes whole sectors, so an unwritten part is a
//! sector of zeros.
//!
//! ```text
//!   damaged record                         │ treated as    │ why
//!   ───────────────────────────────────────┼───────────────┼──────────────────────────────────────
//!   has a hole (¹), no intact record after │ torn: cut off │ never acknowledged: the writer starts
//!                                          │               │ no write before the last is synced
//!   has a hole, an intact record after     │ rot: refused  │ a later write exists, so this one was
//!                                          │               │ synced and acknowledged
//!   has no hole                            │ rot: refused  │ rot does not make sectors of zeros
//! ```
//!
//! (¹) A whole sector of zeros; or zeros from the start of the record to the next sector; or zeros
//! from the start of a sector to the end of the record: at least 16, or any number if the sector
//! starts a page.
//!
//! The rule is wrong for one case: an acknowledged last write that has rotted and whose own content
//! contains such zeros.
//!
//! The file is a sequence of blocks of 32 KiB, each of fragments of records (RocksDB's
//! `db/log_format.h`):
//!
//! ```text
//!   ┌ crc32c, masked: 4 ┬ length: 2 ┬ type: 1 ┬ length bytes ┐
//!   type: 1 whole, 2 first, 3 middle, 4 last fragment of a record
//! ```
//!
//! Recycled, compressed or time-stamped logs have other types; ours are none of these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{DB, ErrorKind, Options};

/// RocksDB's block size.
const BLOCK: usize = 32 << 10;
/// Size of a fragment's header.
const HEADER: usize = 7;
/// Smallest unit that a disk writes atomically.
const SECTOR: usize = 512;
/// Smallest unit that the kernel writes back; most holes begin at a page.
const PAGE: usize = 4096;
/// Fewer zeros than this at the end of a fragment, not at the start of a page, are no sign of a
/// hole: numbers may end in zeros.
const ZEROS_MIN: usize = 16;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;

/// The database cannot be opened; the node must not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// RocksDB's reason. It is not a torn last write, or that was cut off and is not the only
    /// damage.
    #[error(transparent)]
    Database(#[from] rocksdb::Error),
    /// The database is corrupt, and its files could not be examined for a torn last write.
    #[error("{error}; examining the files failed: {repair}")]
    Repair {
        /// RocksDB's reason.
        error: rocksdb::Error,
        /// Failure of the examination.
        repair: io::Error,
    },
}

/// Opens a database, creating it if needed. Cuts off a torn last write.
pub(crate) fn open(options: &Options, directory: &Path) -> Result<DB, OpenError> {
    match DB::open(options, directory) {
        Err(error) if error.kind() == ErrorKind::Corruption => match cut(directory) {
            Ok(true) => Ok(DB::open(options, directory)?),
            Ok(false) => Err(error.into()),
            Err(repair) => Err(OpenError::Repair { error, repair }),
        },
        opened => Ok(opened?),
    }
}

/// Cuts a torn last write off the newest write-ahead log file and the manifest of the database in
/// this directory, durably. Returns false, without a change, if there is no torn write: then the
/// damage is something else and the database must not be opened.
fn cut(directory: &Path) -> io::Result<bool> {
    let mut any = false;
    for file in [newest(directory)?, manifest(directory)?].into_iter().flatten() {
        any |= cut_file(&file)?;
    }
    Ok(any)
}

fn cut_file(path: &Path) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    let Some(end) = torn_at(&bytes) else { return Ok(false) };
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(end as u64)?;
    file.sync_all()?;
    tracing::warn!(file = %path.display(), bytes = bytes.len() - end, "cut off a torn last write, which was never acknowledged");
    Ok(true)
}

/// The current manifest.
fn manifest(directory: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(directory.join("CURRENT")) {
        Ok(name) => Ok(Some(directory.join(name.trim_end())).filter(|path| path.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The non-empty write-ahead log file with the highest number. RocksDB may have created a newer,
/// still empty one.
fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for file in fs::read_dir(directory)? {
        let file = file?;
        if file.metadata()?.len() == 0 {
            continue;
        }
        let path = file.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "log"))
            && newest.as_ref().is_none_or(|(known, _)| number > *known)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// The offset of the torn record, if the file is damaged only by a torn last write.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    // The record that the next fragment continues.
    let mut record = None;
    let mut at = 0;
    while at < bytes.len() {
        if BLOCK - at % BLOCK < HEADER {
            at += BLOCK - at % BLOCK;
            continue;
        }
        let Some((kind, length)) = fragment(bytes, at) else {
            let begin = record.unwrap_or(at);
            return (has_hole(bytes, at) && !is_followed(bytes, at)).then_some(begin);
        };
        match kind {
            FIRST => record = Some(at),
            MIDDLE => {}
            _ => record = None,
        }
        at += HEADER + length;
    }
    None
}

/// Type and length of the fragment at this offset, if it is intact.
fn fragment(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if at % BLOCK + HEADER + length > BLOCK {
        return None;
    }
    let checked = bytes.get(at + HEADER - 1..at + HEADER + length)?;
    let crc = crc32c::crc32c(checked).rotate_right(15).wrapping_add(0xa282_ead8);
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (crc == stored).then_some((header[6], length))
}

/// Whether a sector of the damaged fragment was never written. If its length was not written
/// either, the fragment may reach to the end of its block.
fn has_hole(bytes: &[u8], at: usize) -> bool {
    let block_end = bytes.len().min(at - at % BLOCK + BLOCK);
    let end = match bytes.get(at + 4..at + HEADER) {
        None | Some([0, 0, 0]) => block_end,
        Some(header) => block_end.min(at + HEADER + usize::from(u16::from_le_bytes([header[0], header[1]]))),
    };
    let unwritten = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == 0);
    // Before the first whole sector there is at least part of the checksum, which is not zero by
    // chance.
    let first = at.next_multiple_of(SECTOR).min(end);
    let sectors = (first..end).step_by(SECTOR).map(|from| (from, end.min(from + SECTOR)));
    (at < first && unwritten(at, first))
        || sectors.filter(|(from, to)| from % PAGE == 0 || to - from >= ZEROS_MIN).any(|(from, to)| unwritten(from, to))
}

/// Whether an intact record begins after this offset. If so, the damaged record was followed by
/// another write, so it had been synced. The search covers all offsets, because the damage may hide
/// where the next record begins. Fragments that continue a record do not count: they may be later
/// parts of the same write.
fn is_followed(bytes: &[u8], at: usize) -> bool {
    let begins = |at: &usize| matches!(bytes.get(at + HEADER - 1), Some(&(WHOLE | FIRST)));
    (at + 1..bytes.len()).filter(begins).any(|at| fragment(bytes, at).is_some())
}
