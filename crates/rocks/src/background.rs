//! What flushes and compactions may do to the write-ahead log: both databases begin with these options.

use rocksdb::Options;

/// Options of a database that writes its files in pieces of 1 MiB, and no piece before the one before it is on disk: an fsync of the
/// write-ahead log then waits behind a piece or two of each file, and not behind all that a compaction would hand to the disk.
pub(crate) fn options() -> Options {
    // The library has no function of its own for the second one.
    Options::default()
        .get_options_from_string("bytes_per_sync=1048576;strict_bytes_per_sync=true")
        .expect("RocksDB knows these options")
}
