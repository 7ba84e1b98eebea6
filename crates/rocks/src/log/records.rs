//! The log database: its tuning, and how operations become a batch and bytes become entries again.

use std::ops::Range;
use std::path::Path;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::{Entry, ReplicaId};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DBRecoveryMode, ReadOptions, WriteBatch,
};

use super::replica::{Change, Operation, Reading};
use crate::{background, wal_repair};
use quorate_machine::keys::{LogSpace, log_entry_key, log_key, parse_log_key};
use quorate_machine::log::LogError;

/// The scratch buffer gives memory back above this, after a large entry.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// What a pass over the log reads ahead, in bytes.
const READAHEAD_BYTES: usize = 2 << 20;

/// Cold reads are rare and sequential: a small cache is enough.
const BLOCK_CACHE_BYTES: usize = 8 << 20;

pub(super) fn io(error: rocksdb::Error) -> LogError {
    LogError::Io(error.into_string().into())
}

/// Opens the database, tuned for entries that are written once, read soon and deleted from the front.
///
/// `TolerateCorruptedTailRecords` takes a last write that is too short for one that was never acknowledged, and refuses to open where
/// anything before the end is damaged. (A damaged length in the last 32 KiB of the write-ahead log looks like that to RocksDB;
/// nothing can tell the two apart.) It rules out recycled log files, whose old content would look like such damage. A last write
/// with holes, as a power cut leaves it, RocksDB refuses, too: that one `torn` recognises and cuts off.
pub(super) fn open(path: &Path, memtable_bytes: usize) -> Result<DB, LogError> {
    let mut options = background::options();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // An older write-ahead log that is lost as a whole is noticed here; the newest one by `has_write_ahead_log`.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(4);
    // One writer: the lock-free insert would only cost.
    options.set_allow_concurrent_memtable_write(false);
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_target_file_size_base(memtable_bytes as u64);
    options.set_max_bytes_for_level_base(4 * memtable_bytes as u64);
    // Most entries die before they are ever moved; the processor is scarcer than the disk.
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    let mut table = BlockBasedOptions::default();
    // Reads are short scans, so no bloom filter and blocks of some entries each.
    table.set_block_size(32 << 10);
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    options.set_block_based_table_factory(&table);
    wal_repair::open(&options, path).map_err(|reason| LogError::Io(reason.into()))
}

/// Whether the log database in that directory has any write-ahead log. RocksDB keeps one from the first opening on, so a
/// database without is one whose newest entries and votes were lost; RocksDB itself would open it as if they had never been.
pub fn has_write_ahead_log(path: &Path) -> std::io::Result<bool> {
    for file in std::fs::read_dir(path)? {
        if file?.path().extension().is_some_and(|extension| extension == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds the one batch of a drain.
pub(super) struct BatchBuilder {
    batch: WriteBatch,
    scratch: Vec<u8>,
    entries: usize,
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        BatchBuilder { batch: WriteBatch::default(), scratch: Vec::new(), entries: 0 }
    }

    /// Starts a batch of about so many bytes.
    pub(super) fn start(&mut self, bytes: usize) {
        self.batch = WriteBatch::with_capacity_bytes(bytes);
        self.entries = 0;
    }

    /// Takes the batch, and how many entries it appends.
    pub(super) fn finish(&mut self) -> (WriteBatch, usize) {
        (std::mem::take(&mut self.batch), self.entries)
    }

    /// Adds an operation. Operations of one replica are added in their order: a later one wins.
    pub(super) fn add(&mut self, operation: &Operation) {
        let replica = operation.replica.id;
        match &operation.change {
            Change::Create => self.put(&log_key(LogSpace::Replica, replica), |out| {
                codec::encode_into(out, Kind::Replica, &operation.replica.group)
            }),
            Change::Destroy { .. } => {
                self.batch.put(log_key(LogSpace::Tombstone, replica), []);
                sweep(&mut self.batch, replica);
                return;
            }
            Change::Append(entries) => {
                self.entries += entries.len();
                for entry in entries {
                    self.put(&log_entry_key(replica, entry.id.index), |out| {
                        codec::encode_into(out, Kind::Entry, entry)
                    });
                }
            }
            Change::Vote(vote) => {
                self.put(&log_key(LogSpace::Vote, replica), |out| codec::encode_into(out, Kind::Vote, vote))
            }
            Change::Truncate(gone) => gone.iter().for_each(|gone| self.delete(replica, gone.clone())),
            Change::Purge { gone, upto, .. } => {
                self.delete(replica, gone.clone());
                self.put(&log_key(LogSpace::Purged, replica), |out| codec::encode_into(out, Kind::LogId, upto));
            }
            Change::Mark => {}
        }
        if let Some(vote) = &operation.won {
            self.put(&log_key(LogSpace::Vote, replica), |out| codec::encode_into(out, Kind::Vote, vote));
        }
        match &operation.committed {
            Some(Some(committed)) => {
                self.put(&log_key(LogSpace::Committed, replica), |out| codec::encode_into(out, Kind::LogId, committed))
            }
            Some(None) => self.batch.delete(log_key(LogSpace::Committed, replica)),
            None => {}
        }
    }

    /// Puts what `encode` writes.
    fn put(&mut self, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_MAX);
        encode(&mut self.scratch);
        self.batch.put(key, &self.scratch);
    }

    /// One deletion for few entries, and one for many: a range tombstone costs every later read a little.
    fn delete(&mut self, replica: ReplicaId, gone: Range<u64>) {
        match gone.end - gone.start {
            0 => {}
            1 => self.batch.delete(log_entry_key(replica, gone.start)),
            _ => self.batch.delete_range(log_entry_key(replica, gone.start), log_entry_key(replica, gone.end)),
        }
    }
}

/// Deletes everything of a replica but its tombstone.
pub(super) fn sweep(batch: &mut WriteBatch, replica: ReplicaId) {
    for space in [LogSpace::Replica, LogSpace::Vote, LogSpace::Committed, LogSpace::Purged] {
        batch.delete(log_key(space, replica));
    }
    batch.delete_range(log_entry_key(replica, 0), log_entry_key(replica, u64::MAX));
}

/// The entries on disk of one replica, in order, each checked as it is read. A hole or a wrong checksum is an error and the
/// end: it is never skipped.
pub(super) struct ColdEntries<'db> {
    replica: ReplicaId,
    iterator: DBRawIterator<'db>,
    /// The index that must come next, where that is known.
    expected: Option<u64>,
}

impl<'db> ColdEntries<'db> {
    /// The entries of `range`. Where `starts_anywhere`, the first one may be later than its start.
    pub(super) fn new(db: &'db DB, replica: ReplicaId, range: Range<u64>, starts_anywhere: bool) -> Self {
        let mut options = ReadOptions::default();
        options.set_iterate_range(
            log_entry_key(replica, range.start).to_vec()..log_entry_key(replica, range.end).to_vec(),
        );
        options.set_readahead_size(READAHEAD_BYTES);
        options.fill_cache(false);
        let mut iterator = db.raw_iterator_opt(options);
        iterator.seek_to_first();
        ColdEntries { replica, iterator, expected: (!starts_anywhere).then_some(range.start) }
    }
}

impl Iterator for ColdEntries<'_> {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some((key, value)) = self.iterator.item() else {
            return self.iterator.status().err().map(|error| Err(io(error)));
        };
        let entry = check(self.replica, self.expected, key, value);
        self.expected = entry.as_ref().ok().map(|entry| entry.id.index + 1);
        self.iterator.next();
        Some(entry)
    }
}

/// Makes an entry of what is on disk.
fn check(replica: ReplicaId, expected: Option<u64>, key: &[u8], value: &[u8]) -> Result<Entry, LogError> {
    let Some((LogSpace::Entry, _, Some(index))) = parse_log_key(key) else {
        return Err(LogError::Io("a key of the log database is malformed".into()));
    };
    if let Some(expected) = expected.filter(|expected| *expected != index) {
        return Err(LogError::Hole { replica, index: expected });
    }
    let entry: Entry =
        codec::decode(Kind::Entry, value).map_err(|source| LogError::Corrupt { replica, index, source })?;
    if entry.id.index != index {
        let reason = format!("entry {} is stored at index {index}", entry.id);
        return Err(LogError::Corrupt { replica, index, source: CodecError::Malformed { kind: Kind::Entry, reason } });
    }
    Ok(entry)
}

/// Reads what a range has on disk, as much as there is room for. All of `range` must be there. Gives whether all of it fit.
pub(super) fn read_cold(
    db: &DB,
    replica: ReplicaId,
    range: Range<u64>,
    reading: &mut Reading,
) -> Result<bool, LogError> {
    let mut next = range.start;
    for entry in ColdEntries::new(db, replica, range.clone(), false) {
        let entry = entry?;
        if !reading.has_room(entry.size_bytes()) {
            return Ok(false);
        }
        next = entry.id.index + 1;
        reading.push(entry);
    }
    if next < range.end {
        return Err(LogError::Hole { replica, index: next });
    }
    Ok(true)
}
