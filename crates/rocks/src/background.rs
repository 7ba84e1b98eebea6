//! Options shared by both databases: they keep flushes and compactions from delaying syncs of the
//! write-ahead log.

use rocksdb::Options;

/// Options of a database that syncs its files in pieces of 1 MiB, and no piece before the previous
/// one is on disk. A sync of the write-ahead log then waits for a piece or two per file, not for
/// everything that a compaction has written.
pub(crate) fn options() -> Options {
    // The library has no setter for the second option.
    Options::default()
        .get_options_from_string("bytes_per_sync=1048576;strict_bytes_per_sync=true")
        .expect("RocksDB knows these options")
}
