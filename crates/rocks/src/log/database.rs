//! The log database and its tuning.

use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode};

use quorate_machine::log::LogError;

use crate::{background, wal_repair};

/// Cold reads are rare and sequential, so a small cache is enough.
const BLOCK_CACHE_BYTES: usize = 8 << 20;

/// Opens the database, tuned for entries that are written once, read soon and deleted from the
/// front.
///
/// `TolerateCorruptedTailRecords` drops a last write that is too short, as one that was never
/// acknowledged, and refuses to open if anything before it is damaged. (A damaged length in the
/// last 32 KiB of the write-ahead log looks the same to RocksDB; nothing can tell the two apart.)
/// The mode rules out recycled log files, whose old content would look like damage. RocksDB also
/// refuses a last write with holes, as a power cut leaves it; [`wal_repair`] detects that one and
/// cuts it off.
pub(super) fn open(path: &Path, memtable_bytes: usize) -> Result<DB, LogError> {
    let mut options = background::options();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // Detects the loss of an older write-ahead log file; `has_write_ahead_log` detects that of the
    // newest.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(4);
    // There is one writer, so the lock-free insert would only cost time.
    options.set_allow_concurrent_memtable_write(false);
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_target_file_size_base(memtable_bytes as u64);
    options.set_max_bytes_for_level_base(4 * memtable_bytes as u64);
    // Most entries are deleted before a compaction moves them, and the CPU is scarcer than the
    // disk.
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    let mut table = BlockBasedOptions::default();
    // Reads are short scans, so no bloom filter, and blocks that hold several entries.
    table.set_block_size(32 << 10);
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    options.set_block_based_table_factory(&table);
    wal_repair::open(&options, path).map_err(|error| LogError::Io(error.to_string().into()))
}

/// Whether the log database in this directory has any write-ahead log file. RocksDB keeps one from
/// the first opening on, so a database without one has lost its newest entries and votes. RocksDB
/// itself would open it as if they had never existed.
pub fn has_write_ahead_log(path: &Path) -> std::io::Result<bool> {
    for file in std::fs::read_dir(path)? {
        if file?.path().extension().is_some_and(|extension| extension == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}
