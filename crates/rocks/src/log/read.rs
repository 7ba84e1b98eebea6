//! Reads a replica's entries: old ones from disk, newer ones from its tail.

use std::ops::Range;

use quorate_machine::log::LogError;
use quorate_types::Entry;
use rocksdb::DB;

use super::cold::read_cold;
use super::reading::Reading;
use super::replica_log::ReplicaLog;

/// Reads the entries of `range` up to a limit in bytes, as they were at one moment.
pub(super) fn read_entries(
    db: &DB,
    replica: &ReplicaLog,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<Entry>, LogError> {
    // A cut between the two reads may mix old and new entries; then start again. Each retry needs
    // another cut, so this ends.
    loop {
        let cuts = replica.cuts();
        let reading = read(db, replica, range.clone(), bytes_max);
        if replica.cuts() != cuts {
            continue;
        }
        let entries = reading?.entries;
        let follows = |pair: &[Entry]| pair[0].id.index + 1 == pair[1].id.index;
        assert!(entries.windows(2).all(follows), "a read of replica {} has a hole", replica.id);
        return Ok(entries);
    }
}

/// Reads old entries from disk and newer ones from the tail.
fn read(db: &DB, replica: &ReplicaLog, range: Range<u64>, bytes_max: usize) -> Result<Reading, LogError> {
    let mut reading = Reading::new(bytes_max);
    let mut start = range.start;
    while let Some(cold) = replica.read(start..range.end, &mut reading)? {
        start = cold.end;
        if !read_cold(db, replica.id, cold, &mut reading)? {
            break;
        }
    }
    Ok(reading)
}
