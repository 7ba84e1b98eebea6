//! Tuning of the state database, in one place, with the reasons.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

use crate::background;
use quorate_machine::rate_limiter::RateLimiter;

/// Options that may differ between nodes: memory, and the rate of snapshot exports.
#[derive(Clone)]
pub struct StateOptions {
    memtable_bytes: usize,
    cache: Cache,
    export_rate: Option<Arc<RateLimiter>>,
}

/// Maximum number of memtables, including those being flushed; writes stall when all are full.
const MEMTABLES_MAX: i32 = 4;

const MIB: usize = 1 << 20;
/// Small memtables measured faster: a larger skip list costs more cache misses than it saves
/// flushes.
const MEMTABLE_BYTES: usize = 16 * MIB;
const CACHE_BYTES: usize = 64 * MIB;
const FILE_BYTES: u64 = 32 << 20;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

impl StateOptions {
    /// The default memtables, and a block cache of this size.
    pub fn with_cache_bytes(cache_bytes: usize) -> Self {
        StateOptions { memtable_bytes: MEMTABLE_BYTES, cache: Cache::new_lru_cache(cache_bytes), export_rate: None }
    }

    /// Sets the size of a memtable in bytes; up to four exist at a time.
    pub fn memtable_bytes(self, memtable_bytes: usize) -> Self {
        StateOptions { memtable_bytes, ..self }
    }

    /// Limits the rate at which snapshot files are written.
    pub fn export_rate(self, rate_limiter: Arc<RateLimiter>) -> Self {
        StateOptions { export_rate: Some(rate_limiter), ..self }
    }

    /// Blocks until `bytes` of a snapshot may be written.
    pub(super) fn wait_for_export(&self, bytes: usize) {
        if let Some(rate_limiter) = &self.export_rate {
            thread::sleep(rate_limiter.reserve(bytes, Instant::now()));
        }
    }

    /// Options of the database.
    pub(super) fn database(&self) -> Options {
        let mut options = self.tables_of(background::options());
        options.create_if_missing(true);
        options.set_write_buffer_size(self.memtable_bytes);
        options.set_max_write_buffer_number(MEMTABLES_MAX);
        // One thread flushes while another compacts.
        options.set_max_background_jobs(2);
        // Levels in proportion to the memtables: level 0 is compacted when it holds four of them.
        options.set_level_zero_file_num_compaction_trigger(4);
        options.set_max_bytes_for_level_base(4 * u64::try_from(self.memtable_bytes).expect("a size fits 64 bits"));
        options.set_target_file_size_base(FILE_BYTES);
        // Dropping a snapshot or an iterator leaves the deletion of files to the background.
        options.set_avoid_unnecessary_blocking_io(true);
        // Any number above 0 makes RocksDB reject writes without the write-ahead log.
        options.set_recycle_log_file_num(0);
        // Bounds RocksDB's own diagnostics.
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options
    }

    /// Options of the tables in a snapshot; they equal the database's.
    pub(super) fn tables(&self) -> Options {
        self.tables_of(Options::default())
    }

    fn tables_of(&self, mut options: Options) -> Options {
        let mut blocks = BlockBasedOptions::default();
        // Point reads are the hot path. Scans are bounded to one replica and need no prefix filter.
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        // Filters and indexes count against the cache limit. Those of level 0, which every read
        // uses, are pinned in it.
        blocks.set_block_cache(&self.cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options
    }
}

impl Default for StateOptions {
    fn default() -> Self {
        Self::with_cache_bytes(CACHE_BYTES)
    }
}
