//! Takes the files of a snapshot into the database: looked at first, then all in one step.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;
use rocksdb::{DB, IngestExternalFileOptions, Options, ReadOptions};

use super::error::io;
use super::view::RocksView;
use quorate_machine::keys::state_range;
use quorate_machine::state::{StateError, meta};

/// Bytes that are read from the files at a time.
const READAHEAD_BYTES: usize = 1 << 20;

/// Refuses files that hold keys of another replica, or another head or membership than was announced, or a block whose checksum is
/// wrong: what they replace may be the last good copy here.
///
/// The files are ingested (as hard links) into a database of their own beside them, which is read once, and is deleted at the end.
pub(super) fn check(files: &[PathBuf], replica: ReplicaId, expected: &SnapshotMeta) -> Result<(), StateError> {
    let refused = |reason: String| {
        let file = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        StateError::Snapshot { file, reason }
    };
    let Some(dir) = files.first().and_then(|file| file.parent()) else {
        return Err(refused("a snapshot has at least one file".into()));
    };
    let scratch = dir.join("check");
    remove(&scratch)?;
    let found = inspect(files, replica, &scratch).map_err(&refused);
    remove(&scratch)?;
    if found? != *expected {
        return Err(refused("the files hold another head or membership than was announced".into()));
    }
    Ok(())
}

/// Replaces what the files' ranges hold by the files, atomically; durable on return.
pub(super) fn ingest(db: &DB, files: &[PathBuf]) -> Result<(), StateError> {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    // Views that are open keep seeing what they saw.
    options.set_snapshot_consistency(true);
    // The files get a sequence number above all that is in the database, so that their tombstones reach it…
    options.set_allow_global_seqno(true);
    // …and a memtable with keys of their range is flushed first.
    options.set_allow_blocking_flush(true);
    db.ingest_external_file_opts(&options, files.to_vec()).map_err(io)
}

/// What the files hold, or what is wrong with them.
fn inspect(files: &[PathBuf], replica: ReplicaId, scratch: &Path) -> Result<SnapshotMeta, String> {
    fs::create_dir(scratch).map_err(|e| e.to_string())?;
    let mut links = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let link = scratch.join(format!("{number}.link"));
        fs::hard_link(file, &link).map_err(|e| format!("{}: {e}", file.display()))?;
        links.push(link);
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, scratch.join("db")).map_err(|e| e.to_string())?;
    let mut moving = IngestExternalFileOptions::default();
    moving.set_move_files(true);
    db.ingest_external_file_opts(&moving, links).map_err(|e| e.to_string())?;

    let (start, end) = state_range(replica);
    for file in db.live_files().map_err(|e| e.to_string())? {
        let inside = file.start_key.is_some_and(|key| key >= start) && file.end_key.is_some_and(|key| key <= end);
        if !inside {
            return Err(format!("it holds keys that are not replica {replica}'s"));
        }
    }
    read_all(&db).map_err(|e| e.to_string())?;
    meta::snapshot(&RocksView::new(&db), replica).map_err(|e| e.to_string())
}

/// Reads every block, which checks it.
fn read_all(db: &DB) -> Result<(), rocksdb::Error> {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    let mut iterator = db.raw_iterator_opt(options);
    iterator.seek_to_first();
    while iterator.valid() {
        iterator.next();
    }
    iterator.status()
}

fn remove(dir: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(error)),
        _ => Ok(()),
    }
}
