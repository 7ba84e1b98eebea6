//! How the state database is set up, all in one place, with the reasons.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

use crate::background;
use quorate_machine::rate_limiter::RateLimiter;

/// What may differ between nodes: the memory of the state database, and how fast files of snapshots are written.
#[derive(Clone)]
pub struct StateOptions {
    memtable_bytes: usize,
    cache: Cache,
    export_rate: Option<Arc<RateLimiter>>,
}

/// Memtables at most, with those that are being flushed: writes wait when all are full.
const MEMTABLES_MAX: i32 = 4;

const MIB: usize = 1 << 20;
/// Small memtables measured better: a larger skip list costs more cache misses than it saves flushes.
const MEMTABLE_BYTES: usize = 16 * MIB;
const CACHE_BYTES: usize = 64 * MIB;
const FILE_BYTES: u64 = 32 << 20;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

impl StateOptions {
    /// The usual memtables, and a block cache of that many bytes.
    pub fn with_cache_bytes(cache_bytes: usize) -> Self {
        StateOptions { memtable_bytes: MEMTABLE_BYTES, cache: Cache::new_lru_cache(cache_bytes), export_rate: None }
    }

    /// Memtables of that many bytes instead; up to four exist at a time.
    pub fn memtable_bytes(self, memtable_bytes: usize) -> Self {
        StateOptions { memtable_bytes, ..self }
    }

    /// Files of snapshots are written no faster than `pace` lets bytes pass.
    pub fn export_rate(self, rate_limiter: Arc<RateLimiter>) -> Self {
        StateOptions { export_rate: Some(rate_limiter), ..self }
    }

    /// Waits until `bytes` of a snapshot may be written. Blocks.
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
        // Levels in proportion to the memtables: level 0 is compacted at four of them.
        options.set_level_zero_file_num_compaction_trigger(4);
        options.set_max_bytes_for_level_base(4 * u64::try_from(self.memtable_bytes).expect("a size fits 64 bits"));
        options.set_target_file_size_base(FILE_BYTES);
        // A dropped snapshot or iterator leaves the deletion of files to the background.
        options.set_avoid_unnecessary_blocking_io(true);
        // Any number above 0 makes RocksDB reject writes without the write-ahead log.
        options.set_recycle_log_file_num(0);
        // RocksDB's own diagnostics, bounded.
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options
    }

    /// Options of the tables that are written for a snapshot: they are like the database's own.
    pub(super) fn tables(&self) -> Options {
        self.tables_of(Options::default())
    }

    fn tables_of(&self, mut options: Options) -> Options {
        let mut blocks = BlockBasedOptions::default();
        // Point reads are the hot path. Scans stay inside a replica by their bounds and need no filter of prefixes.
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        // Filters and indexes count against the cache's bound; those of level 0, which every read asks, stay in it.
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
