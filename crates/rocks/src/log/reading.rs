//! The entries collected by a read.

use quorate_types::Entry;

/// The entries collected by a read, up to a limit in bytes.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Reading {
    pub(super) fn new(bytes_max: usize) -> Self {
        Reading { entries: Vec::new(), bytes: 0, bytes_max }
    }

    /// Whether an entry of this size still fits. The first one always does.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.entries.is_empty() || self.bytes + size <= self.bytes_max
    }

    /// Adds an entry that fits.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.size_bytes();
        self.entries.push(entry);
    }
}
