//! The two steps of a snapshot's installation: all files are verified, while Raft knows nothing of
//! them, and then ingested together.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;
use rocksdb::{DB, ErrorKind, IngestExternalFileOptions, Options, ReadOptions};

use super::error::io;
use super::view::RocksView;
use quorate_machine::keys::state_range;
use quorate_machine::state::{StateError, meta};

/// Readahead of the verification, in bytes.
const READAHEAD_BYTES: usize = 1 << 20;

/// Refuses files with keys of another replica, another head or membership than `expected`, or a
/// block with a wrong checksum: the state that they would replace may be the last good copy here.
///
/// Ingests hard links of the files into a scratch database beside them, reads it once, and deletes
/// it.
pub(super) fn verify(
    files: &[PathBuf],
    replica: ReplicaId,
    expected: &SnapshotMeta,
    progress: &mut dyn FnMut(),
) -> Result<(), StateError> {
    let refused = |reason: String| {
        let file = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        StateError::Snapshot { file, reason }
    };
    let Some(dir) = files.first().and_then(|file| file.parent()) else {
        return Err(refused("a snapshot has at least one file".into()));
    };
    let scratch = dir.join("verify");
    remove(&scratch)?;
    let inspected = inspect(files, replica, &scratch, progress);
    remove(&scratch)?;
    match inspected {
        Ok(found) if found == *expected => Ok(()),
        Ok(_) => Err(refused(Defect::OtherMeta.to_string())),
        Err(defect) if defect.is_of_this_node() => Err(io(defect)),
        Err(defect) => Err(refused(defect.to_string())),
    }
}

/// Replaces the content of the files' ranges with the files, atomically; durable on return.
pub(super) fn ingest(db: &DB, files: &[PathBuf]) -> Result<(), StateError> {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    // Open views keep their state.
    options.set_snapshot_consistency(true);
    // The files get a sequence number above all others in the database, so that their tombstones
    // cover it.
    options.set_allow_global_seqno(true);
    // A memtable with keys of the range is flushed first.
    options.set_allow_blocking_flush(true);
    db.ingest_external_file_opts(&options, files.to_vec()).map_err(io)
}

/// The defect of a snapshot's files; the snapshot is refused.
#[derive(Debug, thiserror::Error)]
enum Defect {
    /// A file cannot be linked.
    #[error("{file}: {error}")]
    File {
        /// The file.
        file: String,
        /// Reason of the file system.
        error: std::io::Error,
    },
    /// The scratch directory cannot be made.
    #[error(transparent)]
    Scratch(#[from] std::io::Error),
    /// The files are no SST files, or a block is damaged.
    #[error(transparent)]
    Table(#[from] rocksdb::Error),
    /// A key belongs to another replica.
    #[error("it holds keys that are not replica {0}'s")]
    ForeignKey(ReplicaId),
    /// Head or membership cannot be decoded.
    #[error(transparent)]
    Meta(#[from] StateError),
    /// Head or membership are not those that the sender announced.
    #[error("head or membership differ from the announced ones")]
    OtherMeta,
}

impl Defect {
    /// Whether this node could not read or link the files, which may be fine: its disk is full, or
    /// fails.
    fn is_of_this_node(&self) -> bool {
        match self {
            Defect::File { .. } | Defect::Scratch(_) => true,
            Defect::Table(error) => error.kind() == ErrorKind::IOError,
            Defect::Meta(error) => matches!(error, StateError::Io(_)),
            Defect::ForeignKey(_) | Defect::OtherMeta => false,
        }
    }
}

/// Reads the applied log id and membership of the files, and verifies their keys and blocks.
fn inspect(
    files: &[PathBuf],
    replica: ReplicaId,
    scratch: &Path,
    progress: &mut dyn FnMut(),
) -> Result<SnapshotMeta, Defect> {
    fs::create_dir(scratch)?;
    let mut links = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let link = scratch.join(format!("{number}.link"));
        fs::hard_link(file, &link).map_err(|error| Defect::File { file: file.display().to_string(), error })?;
        links.push(link);
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, scratch.join("db"))?;
    let mut moving = IngestExternalFileOptions::default();
    moving.set_move_files(true);
    db.ingest_external_file_opts(&moving, links)?;

    let (start, end) = state_range(replica);
    for file in db.live_files()? {
        let inside = file.start_key.is_some_and(|key| key >= start) && file.end_key.is_some_and(|key| key <= end);
        if !inside {
            return Err(Defect::ForeignKey(replica));
        }
    }
    read_all(&db, progress)?;
    Ok(meta::snapshot(&RocksView::new(&db), replica)?)
}

/// Reads every block, which verifies its checksum. Calls `progress` after each
/// [`READAHEAD_BYTES`].
fn read_all(db: &DB, progress: &mut dyn FnMut()) -> Result<(), rocksdb::Error> {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    let mut iterator = db.raw_iterator_opt(options);
    iterator.seek_to_first();
    let mut unreported = 0;
    while let Some((key, value)) = iterator.item() {
        unreported += key.len() + value.len();
        if unreported >= READAHEAD_BYTES {
            progress();
            unreported = 0;
        }
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
