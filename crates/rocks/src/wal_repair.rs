//! The last write of a database that lost its power, or whose sync failed: parts of it may be on disk and others not. It is the last
//! one of the write-ahead log, or of the manifest, which says of which files the database consists and is written in the same way.
//!
//! RocksDB takes a last record that is too short for a torn write, but refuses one whose bytes are wrong: it cannot tell a write that
//! was cut off from one that has rotted. What a power cut leaves can be told apart, as etcd's write-ahead log does
//! (`isTornEntry` in its `wal/decoder.go`): a disk writes whole sectors, so a part that was never written is a sector of
//! zeros, which rot does not make. A write like that was never acknowledged, because the writer begins none before the last one is
//! synced; it is cut off, and nothing else is. What this cannot tell from it: a last write that *was* acknowledged, has rotted,
//! and holds zeros of its own that fill a sector, or that are its end: sixteen or more where a sector begins with them, any
//! number where a page does.
//!
//! The file is a sequence of blocks of 32 KiB, each of fragments of records (RocksDB's `db/log_format.h`):
//!
//! ```text
//!   ┌ crc32c, masked: 4 ┬ length: 2 ┬ type: 1 ┬ length bytes ┐      type: 1 whole, 2 first, 3 middle, 4 last fragment of a record
//! ```
//!
//! Recycled, compressed or time-stamped logs have other types; ours are none of these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{DB, ErrorKind, Options};

/// RocksDB's block.
const BLOCK: usize = 32 << 10;
/// What precedes a fragment.
const HEADER: usize = 7;
/// What a disk writes as a whole, at least.
const SECTOR: usize = 512;
/// What the kernel writes as a whole, at least: most holes begin at one.
const PAGE: usize = 4096;
/// Elsewhere, fewer zeros than this at the end of a fragment say nothing: numbers end in some.
const ZEROS_MIN: usize = 16;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;

/// Opens a database, or makes it; without its last write where that was torn. An error says what else is wrong.
pub(crate) fn open(options: &Options, directory: &Path) -> Result<DB, String> {
    match DB::open(options, directory) {
        Err(error) if error.kind() == ErrorKind::Corruption => match cut(directory) {
            Ok(true) => DB::open(options, directory).map_err(rocksdb::Error::into_string),
            Ok(false) => Err(error.into_string()),
            Err(also) => Err(format!("{error}; looking at it: {also}")),
        },
        opened => opened.map_err(rocksdb::Error::into_string),
    }
}

/// Cuts a torn last write off the newest write-ahead log of the database in this directory, and off its manifest, durably. False, and
/// nothing is touched, if what is wrong is something else: then it must not be opened.
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
    tracing::warn!(file = %path.display(), bytes = bytes.len() - end, "a last write that lost its power was cut off; it was never acknowledged");
    Ok(true)
}

/// The manifest that the database would be opened with.
fn manifest(directory: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(directory.join("CURRENT")) {
        Ok(name) => Ok(Some(directory.join(name.trim_end())).filter(|path| path.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The write-ahead log with the highest number that holds anything: RocksDB may have begun one and written nothing to it.
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

/// Where the record begins that was torn, if that and nothing else is wrong.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    // The record that the next fragment goes on with.
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

/// The type and the length of the fragment there, if it is whole.
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

/// Whether some sector of the damaged fragment was never written. Where its length was not written either, it may reach to the
/// end of its block.
fn has_hole(bytes: &[u8], at: usize) -> bool {
    let block_end = bytes.len().min(at - at % BLOCK + BLOCK);
    let end = match bytes.get(at + 4..at + HEADER) {
        None | Some([0, 0, 0]) => block_end,
        Some(header) => block_end.min(at + HEADER + usize::from(u16::from_le_bytes([header[0], header[1]]))),
    };
    let unwritten = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == 0);
    // Before the first whole sector there is a piece of the checksum at least, which is not zero by chance.
    let first = at.next_multiple_of(SECTOR).min(end);
    let sectors = (first..end).step_by(SECTOR).map(|from| (from, end.min(from + SECTOR)));
    (at < first && unwritten(at, first))
        || sectors.filter(|(from, to)| from % PAGE == 0 || to - from >= ZEROS_MIN).any(|(from, to)| unwritten(from, to))
}

/// Whether a record that begins after it is whole: then the one that is not was followed by another write, and so it had been
/// synced. It is looked for everywhere, because the damage may hide where the next one begins. Fragments that go on with a record
/// are no sign of that: they are later parts of the same write.
fn is_followed(bytes: &[u8], at: usize) -> bool {
    let begins = |at: &usize| matches!(bytes.get(at + HEADER - 1), Some(&(WHOLE | FIRST)));
    (at + 1..bytes.len()).filter(begins).any(|at| fragment(bytes, at).is_some())
}
