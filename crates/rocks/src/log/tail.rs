//! The newest entries of one replica's log, in memory. Replication and apply mostly read from here.
//! An entry that is not written yet exists only here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_types::Entry;

/// The newest entries of a log.
///
/// # Invariants
/// * The entries are consecutive and end with the log's last one; all earlier entries are on disk.
/// * An entry that is not written yet is never evicted, even beyond the limit.
#[derive(Debug)]
pub(super) struct Tail {
    slots: VecDeque<Slot>,
    bytes: usize,
    /// The last written operation of the replica.
    written: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// The operation that appended the entry.
    operation: u64,
}

impl Tail {
    pub(super) fn new() -> Self {
        Tail { slots: VecDeque::new(), bytes: 0, written: 0 }
    }

    /// Adds the entry after the last one.
    pub(super) fn push(&mut self, entry: Entry, operation: u64) {
        let last = self.last();
        assert!(last.is_none_or(|last| last + 1 == entry.id.index), "entry {} follows {last:?}", entry.id);
        self.bytes += entry.size_bytes();
        self.slots.push_back(Slot { entry, operation });
    }

    /// Records that all operations up to this one are on disk.
    pub(super) fn written(&mut self, operation: u64) {
        assert!(operation >= self.written, "operations of a replica are written in order");
        self.written = operation;
    }

    /// Whether the operation is on disk.
    pub(super) fn is_written(&self, operation: u64) -> bool {
        operation <= self.written
    }

    /// Evicts the oldest written entries until the rest fits into `bytes_max` or is not written.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.slots.front().is_some_and(|slot| slot.operation <= self.written) {
            self.pop_front();
        }
        assert!(!self.slots.is_empty() || self.bytes == 0, "an empty tail has no bytes");
    }

    /// Drops the entries below `index`, which were purged.
    pub(super) fn drop_below(&mut self, index: u64) {
        while self.slots.front().is_some_and(|slot| slot.entry.id.index < index) {
            self.pop_front();
        }
        self.shrink();
    }

    /// Drops the entries from `index` on, which were truncated.
    pub(super) fn drop_from(&mut self, index: u64) {
        while let Some(slot) = self.slots.pop_back_if(|slot| slot.entry.id.index >= index) {
            self.bytes -= slot.entry.size_bytes();
        }
    }

    /// The index of the last entry in the tail.
    pub(super) fn last(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.entry.id.index)
    }

    /// The index of the first entry in the tail.
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.entry.id.index)
    }

    /// The entries from `index` on, which must not be before the first one.
    pub(super) fn from(&self, index: u64) -> impl Iterator<Item = &Entry> {
        assert!(self.first().is_none_or(|first| first <= index), "entry {index} is not in the tail");
        let skip = self.first().map_or(0, |first| index - first);
        self.slots.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).map(|slot| &slot.entry)
    }

    fn pop_front(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.entry.size_bytes();
        }
    }

    /// Releases memory after many entries were dropped.
    fn shrink(&mut self) {
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

/// Size limit of each tail, such that all tails of a node stay within one bound. Every replica has
/// the same share: simple, and a busy replica cannot starve the others.
#[derive(Debug)]
pub(super) struct TailBudget {
    node_bytes_max: usize,
    replica_bytes_max: usize,
    replicas: AtomicUsize,
}

impl TailBudget {
    pub(super) fn new(node_bytes_max: usize, replica_bytes_max: usize) -> Self {
        TailBudget { node_bytes_max, replica_bytes_max, replicas: AtomicUsize::new(0) }
    }

    /// Divides the bound among this many replicas. A tail shrinks to its new share at its next
    /// write.
    pub(super) fn share_among(&self, replicas: usize) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }

    /// The limit of one replica's tail in bytes.
    pub(super) fn share(&self) -> usize {
        let replicas = self.replicas.load(Ordering::Relaxed).max(1);
        self.replica_bytes_max.min(self.node_bytes_max / replicas)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{LogId, ReplicaId};

    use super::*;

    fn entry(index: u64) -> Entry {
        Entry::normal(LogId { term: 1, leader: ReplicaId(1), index }, Bytes::from(vec![7; 36]))
    }

    /// The limit applies only to written entries, and the operation of a truncated entry does not
    /// count for its successor.
    #[test]
    fn unwritten_entries_are_never_evicted() {
        let mut tail = Tail::new();
        (0..10).for_each(|i| tail.push(entry(i), i + 1));
        tail.evict(300);
        assert_eq!(tail.first(), Some(0));
        tail.written(4);
        tail.evict(300);
        assert_eq!(tail.first(), Some(4));
        tail.drop_from(6);
        tail.push(entry(6), 20);
        tail.written(10);
        tail.evict(0);
        assert_eq!(tail.first(), Some(6));
        assert_eq!(tail.from(6).count(), 1);
        tail.written(20);
        tail.evict(0);
        assert_eq!((tail.first(), tail.bytes), (None, 0));
    }

    #[test]
    fn purge_drops_unwritten_entries_too() {
        let mut tail = Tail::new();
        (5..10).for_each(|i| tail.push(entry(i), i));
        tail.drop_below(8);
        assert_eq!(tail.from(9).map(|e| e.id.index).collect::<Vec<_>>(), [9]);
        assert_eq!(tail.bytes, 200);
    }
}
