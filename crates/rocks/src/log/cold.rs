//! Reads entries from disk, each verified as it is read.

use std::ops::Range;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::{Entry, ReplicaId};
use rocksdb::{DB, DBRawIterator, ReadOptions};

use super::error::io;
use super::reading::Reading;
use quorate_machine::keys::{LogSpace, log_entry_key, parse_log_key};
use quorate_machine::log::LogError;

/// Readahead of a scan over the log, in bytes.
const READAHEAD_BYTES: usize = 2 << 20;

/// Iterator over a replica's entries on disk, in order, each verified as it is read. A hole or a
/// wrong checksum is an error and ends the iteration; it is never skipped.
pub(super) struct ColdEntries<'db> {
    replica: ReplicaId,
    iterator: DBRawIterator<'db>,
    /// The next index, if it is known.
    expected: Option<u64>,
}

impl<'db> ColdEntries<'db> {
    /// Iterates over `range`. With `starts_anywhere`, the first entry may come later than the start
    /// of the range.
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

/// Decodes and verifies an entry.
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

/// Reads the entries of `range`, which must all be on disk, until `reading` is full. Returns
/// whether all of them fit.
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
