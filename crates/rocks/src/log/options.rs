//! Options of the log.

use std::sync::Arc;

use super::writer::{self, OnFatal};

/// Limit on written entries in the tails of all replicas together, in bytes. Entries that are not
/// written yet come on top.
const TAILS_BYTES_MAX: usize = 64 << 20;
/// Limit on written entries in one replica's tail, in bytes: some seconds of a busy shard.
const TAIL_BYTES_MAX: usize = 8 << 20;
/// Size of a memtable. Most entries are purged before it is full, and so are never written a second
/// time.
const MEMTABLE_BYTES: usize = 64 << 20;

/// Options of a [`RocksLog`](super::RocksLog). The defaults suit a node; tests use smaller sizes
/// and observe failures.
#[derive(Clone)]
pub struct LogOptions {
    /// Size of a RocksDB memtable, in bytes.
    pub memtable_bytes: usize,
    /// Limit on written entries in all tails together, in bytes.
    pub tails_bytes_max: usize,
    /// Limit on written entries in one replica's tail, in bytes.
    pub tail_bytes_max: usize,
    /// Called once with the reason, on the writer thread, when a write or a sync has failed. The
    /// default exits with code 74. If it returns, nothing is retried, and all pending and later
    /// [`Done`](quorate_machine::log::Done)s get the error.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            memtable_bytes: MEMTABLE_BYTES,
            tails_bytes_max: TAILS_BYTES_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
            on_fatal: Arc::new(writer::exit) as OnFatal,
        }
    }
}
